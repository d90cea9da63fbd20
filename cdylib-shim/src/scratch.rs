//! Memory for argument lists and environments, without malloc: a vfork child may need it, and
//! shares its parent's heap and locks.

use crate::sys::{self, call, fail};
use core::ffi::c_int;

const SMALL: usize = 512;
const LARGE: usize = 4096;

/// Hands `words` zeroed words to `then`, and returns what it returns.
///
/// Lists too long for a stack are mapped; where a vfork child then becomes another program, its
/// parent keeps that mapping.
pub(crate) fn with_scratch(words: usize, then: &mut dyn FnMut(&mut [usize]) -> c_int) -> c_int {
    if words <= SMALL {
        on_stack::<SMALL>(then)
    } else if words <= LARGE {
        on_stack::<LARGE>(then)
    } else {
        mapped(words, then)
    }
}

#[cold]
#[inline(never)]
fn on_stack<const WORDS: usize>(then: &mut dyn FnMut(&mut [usize]) -> c_int) -> c_int {
    then(&mut [0; WORDS])
}

#[cold]
#[inline(never)]
fn mapped(words: usize, then: &mut dyn FnMut(&mut [usize]) -> c_int) -> c_int {
    let Some(length) = words.checked_mul(size_of::<usize>()) else {
        return fail(libc::E2BIG);
    };
    let Some(base) = sys::anonymous(length) else {
        return fail(libc::ENOMEM);
    };
    // SAFETY: the mapping is ours alone, zeroed, aligned, and `words` long.
    let result = then(unsafe { core::slice::from_raw_parts_mut(base.cast::<usize>(), words) });
    // SAFETY: nobody refers to the mapping any more.
    unsafe { call!(libc::SYS_munmap, base, length) };
    result
}

/// How many words `bytes` bytes need.
pub(crate) fn words_for(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<usize>())
}

/// The same memory as bytes.
pub(crate) fn as_bytes(words: &mut [usize]) -> &mut [u8] {
    let length = size_of_val(words);
    // SAFETY: every byte pattern is a valid word and the other way round.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), length) }
}
