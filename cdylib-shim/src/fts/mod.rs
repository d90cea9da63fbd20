//! `fts`, which walks a tree inside libc: a walk of which a root is covered is made here, over our
//! own hooks, so that it sees the catalog; every other walk is libc's.
//!
//! The structures are the public ones of `<fts.h>`. A walk of ours has its own address where libc's
//! has a list or nothing, so that both kinds can be told apart. `fts_set` only writes to an entry,
//! which is the same for both.

mod ends;
mod entries;
mod place;
mod reading;
mod steps;
mod structures;

use crate::original::{hooks, original};
use crate::sys::{errno, set_errno};
use crate::target::text;
use crate::walk::{before_walk, is_covered};
use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use ends::begin;
use structures::{ALL_OPTIONS, Compare, LONGEST, NAMES_ONLY, Walk};

/// The walk, if it is one of ours.
fn ours<'w>(walk: *mut c_void) -> Option<&'w mut Walk> {
    let walk = walk.cast::<Walk>();
    // SAFETY: the caller's FTS; libc's never has its own address there.
    unsafe { (!walk.is_null() && (*walk).this == walk).then(|| &mut *walk) }
}

/// Whether a walk is to be ours: its options and roots are good, and a root is covered.
///
/// # Safety
/// `roots` must be a NULL-terminated list of paths, or null.
unsafe fn takes(roots: *const *const c_char, options: c_int) -> bool {
    if roots.is_null() || options & !ALL_OPTIONS != 0 {
        return false;
    }
    let before = errno();
    let mut covered = false;
    let mut root = roots;
    // SAFETY: as the caller says.
    unsafe {
        while !(*root).is_null() {
            if !text(*root).is_some_and(|path| (1..LONGEST).contains(&path.len())) {
                set_errno(before);
                return false;
            }
            covered = covered || is_covered(*root);
            root = root.add(1);
        }
    }
    set_errno(before);
    covered
}

/// Defines the names of `fts`.
macro_rules! fts_hooks {
    ($($open:ident $read:ident $children:ident $close:ident)*) => {$(
        hooks! {
            fn $open(
                roots: *const *const c_char,
                options: c_int,
                compare: Option<Compare>,
            ) -> *mut c_void {
                // SAFETY: the caller's NULL-terminated list of paths.
                unsafe {
                    if takes(roots, options) {
                        return begin(roots, options, compare).cast();
                    }
                    let mut root = roots;
                    while !root.is_null() && !(*root).is_null() {
                        before_walk(*root);
                        root = root.add(1);
                    }
                }
                original!(
                    fn $open(
                        roots: *const *const c_char, options: c_int, compare: Option<Compare>,
                    ) -> *mut c_void;
                    or null_mut()
                )
            }

            fn $read(walk: *mut c_void) -> *mut c_void {
                match ours(walk) {
                    Some(walk) => walk.next().cast(),
                    None => original!(fn $read(walk: *mut c_void) -> *mut c_void; or null_mut()),
                }
            }

            fn $children(walk: *mut c_void, option: c_int) -> *mut c_void {
                match ours(walk) {
                    Some(walk) if matches!(option, 0 | NAMES_ONLY) => {
                        walk.list(option == NAMES_ONLY).cast()
                    }
                    Some(_) => {
                        set_errno(libc::EINVAL);
                        null_mut()
                    }
                    None => original!(
                        fn $children(walk: *mut c_void, option: c_int) -> *mut c_void;
                        or null_mut()
                    ),
                }
            }

            fn $close(walk: *mut c_void) -> c_int {
                match ours(walk) {
                    Some(walk) => Walk::end(walk),
                    None => original!(fn $close(walk: *mut c_void) -> c_int; or -1),
                }
            }
        }
    )*};
}

fts_hooks! {
    fts_open fts_read fts_children fts_close
    fts64_open fts64_read fts64_children fts64_close
}
