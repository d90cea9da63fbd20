//! `glob`, which takes the functions it reads directories with from its caller, and is given ours.

use crate::directory::{closedir, opendir, readdir};
use crate::original::{hooks, original};
use crate::session;
use crate::stat::{lstat, stat};
use core::ffi::{c_char, c_int};
use libc::glob_t as Glob;

/// `GLOB_ALTDIRFUNC`: the caller gives the functions that read directories.
const ALTERNATIVE: c_int = 1 << 9;

/// The whole of glibc's `glob_t`.
#[repr(C)]
struct Whole {
    count: libc::size_t,
    paths: *mut *mut c_char,
    reserved: libc::size_t,
    flags: c_int,
    close: usize,
    read: usize,
    open: usize,
    lstat: usize,
    stat: usize,
}

const _: () = assert!(size_of::<Whole>() == size_of::<Glob>());

type OnError = Option<unsafe extern "C" fn(*const c_char, c_int) -> c_int>;

/// Lends `glob` our functions for one call.
fn with_our_functions(flags: c_int, out: *mut Glob, glob: impl FnOnce(c_int) -> c_int) -> c_int {
    if session::known().is_none() || flags & ALTERNATIVE != 0 || out.is_null() {
        return glob(flags);
    }
    let whole = out.cast::<Whole>();
    // SAFETY: the caller's structure, of the size checked above.
    unsafe {
        (*whole).close = closedir as *const () as usize;
        (*whole).read = readdir as *const () as usize;
        (*whole).open = opendir as *const () as usize;
        (*whole).lstat = lstat as *const () as usize;
        (*whole).stat = stat as *const () as usize;
    }
    let result = glob(flags | ALTERNATIVE);
    // SAFETY: as above; the flag is not the caller's.
    unsafe { (*whole).flags &= !ALTERNATIVE };
    result
}

/// Defines the names of `glob`.
macro_rules! glob_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            pattern: *const c_char,
            flags: c_int,
            on_error: OnError,
            out: *mut Glob,
        ) -> c_int {
            with_our_functions(flags, out, |flags| original!(
                fn $name(
                    pattern: *const c_char, flags: c_int, on_error: OnError, out: *mut Glob,
                ) -> c_int;
                or libc::GLOB_NOMATCH
            ))
        } }
    )*};
}

glob_hooks! { glob glob64 }
