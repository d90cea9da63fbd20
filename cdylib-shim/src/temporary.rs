//! `mkstemp` and its kin, which make up a name and create what has it.
//!
//! `mktemp` and `tempnam` only look whether a made-up name is free; the kernel answers that.

use crate::change::Last;
use crate::change::{Meaning, Standing, Target, refuse, settle};
use crate::entries::mkdir_refusal;
use crate::open::told;
use crate::original::{hooks, original};
use crate::target::text;
use copper_core::path::PATH_MAX;
use copper_core::request::Operation;
use core::ffi::{c_char, c_int};
use libc::AT_FDCWD;

/// What is replaced in a template.
const PLACE: &[u8] = b"XXXXXX";

fn is_template(template: &[u8], suffix: usize) -> bool {
    template
        .len()
        .checked_sub(suffix)
        .and_then(|end| template.get(..end))
        .is_some_and(|start| start.ends_with(PLACE))
}

/// Makes the call, or refuses it; `suffix` is the length of what follows the made-up part.
fn common(
    template: *mut c_char,
    suffix: c_int,
    operation: Operation,
    native: &dyn Fn(*mut c_char) -> c_int,
) -> c_int {
    settle(
        AT_FDCWD,
        template,
        Meaning::Entry,
        &mut |target| match target {
            Target::View(standing) => refuse(refusal(template, suffix, standing)),
            Target::Writable {
                path,
                told: covered,
                ..
            } => {
                let result = if core::ptr::eq(path, template) {
                    native(template)
                } else {
                    through_copy(template, path, native)
                };
                if result != -1 && covered.is_some() {
                    told(AT_FDCWD, template, operation);
                }
                result
            }
        },
    )
}

fn refusal(template: *const c_char, suffix: c_int, standing: Standing) -> c_int {
    let bytes = text(template).unwrap_or(b"");
    if !usize::try_from(suffix).is_ok_and(|suffix| is_template(bytes, suffix)) {
        return libc::EINVAL;
    }
    match standing {
        // A made-up name that is taken is replaced by another.
        Standing::Exists(_) => libc::EROFS,
        other => mkdir_refusal(other, Last::of(template)),
    }
}

/// Makes the call with another path, and gives the made-up name back in the caller's template.
#[cold]
#[inline(never)]
fn through_copy(
    template: *mut c_char,
    path: *const c_char,
    native: &dyn Fn(*mut c_char) -> c_int,
) -> c_int {
    let mut room = [0u8; PATH_MAX + 1];
    let (Some(path), Some(given)) = (text(path), text(template)) else {
        return native(template);
    };
    room[..path.len()].copy_from_slice(path);
    let result = native(room.as_mut_ptr().cast());
    // The last component is the same in both.
    let name = copper_core::path::split_last(given).1.len();
    let (from, to) = (path.len().saturating_sub(name), given.len() - name);
    // SAFETY: the caller's template is writable and at least as long as its last component.
    unsafe {
        let to = template.cast::<u8>().add(to);
        core::ptr::copy_nonoverlapping(room.as_ptr().add(from), to, path.len() - from);
    }
    result
}

/// Defines the calls that open what they make.
macro_rules! file_hooks {
    ($($name:ident($($argument:ident),*) suffix $suffix:expr;)*) => {$(
        hooks! { fn $name(template: *mut c_char $(, $argument: c_int)*) -> c_int {
            common(template, $suffix, Operation::Writing, &|template| original!(
                fn $name(template: *mut c_char $(, $argument: c_int)*) -> c_int;
                or -1
            ))
        } }
    )*};
}

file_hooks! {
    mkstemp() suffix 0;
    mkstemp64() suffix 0;
    mkostemp(flags) suffix 0;
    mkostemp64(flags) suffix 0;
    mkstemps(suffix) suffix suffix;
    mkstemps64(suffix) suffix suffix;
    mkostemps(suffix, flags) suffix suffix;
    mkostemps64(suffix, flags) suffix suffix;
}

hooks! {
    fn mkdtemp(template: *mut c_char) -> *mut c_char {
        let result = common(template, 0, Operation::Changed, &|template| {
            let made = original!(
                fn mkdtemp(template: *mut c_char) -> *mut c_char;
                or core::ptr::null_mut()
            );
            if made.is_null() { -1 } else { 0 }
        });
        if result == -1 { core::ptr::null_mut() } else { template }
    }
}
