//! `fopen`, `freopen` and `setmntent`, which open inside libc: a file that is only read is opened by the
//! store's name for it, so that everything else about the stream is libc's own.

use crate::content::with_stored;
use crate::open::{may_write, open_common, told};
use crate::original::{hooks, original};
use crate::scope::grants;
use crate::sys::set_errno;
use crate::target::{FOLLOW, Outcome, Scope, with_place, with_target};
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::request::Operation;
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int};
use libc::{AT_FDCWD, FILE};

/// The flags of `open` that a mode string means.
fn flags_of(mode: *const c_char) -> c_int {
    let mode = if mode.is_null() {
        b""
    } else {
        // SAFETY: libc's contract makes the mode NUL-terminated.
        unsafe { CStr::from_ptr(mode) }.to_bytes()
    };
    let modifiers = mode.split(|&byte| byte == b',').next().unwrap_or(b"");
    let plus = modifiers.contains(&b'+');
    let access = if plus { libc::O_RDWR } else { libc::O_WRONLY };
    let exclusive = if modifiers.contains(&b'x') {
        libc::O_EXCL
    } else {
        0
    };
    match mode.first() {
        Some(b'w') => access | libc::O_CREAT | libc::O_TRUNC | exclusive,
        Some(b'a') => access | libc::O_CREAT | exclusive,
        _ if plus => libc::O_RDWR,
        _ => libc::O_RDONLY,
    }
}

/// Whether libc looks at the path at all.
fn is_sound(mode: *const c_char) -> bool {
    // SAFETY: libc's contract makes the mode NUL-terminated.
    !mode.is_null() && matches!(unsafe { *mode } as u8, b'r' | b'w' | b'a')
}

fn nothing(errno: c_int) -> *mut FILE {
    set_errno(errno);
    core::ptr::null_mut()
}

/// Opens a stream, with libc's part given.
fn common(
    path: *const c_char,
    mode: *const c_char,
    libc_opens: impl Fn(*const c_char) -> *mut FILE,
) -> *mut FILE {
    let flags = flags_of(mode);
    if !is_sound(mode) {
        return libc_opens(path);
    }
    if may_write(flags) {
        return for_writing(path, flags, libc_opens);
    }
    with_target(
        Family::Open,
        AT_FDCWD,
        path,
        FOLLOW,
        |outcome| match outcome {
            Outcome::Kernel(route) => libc_opens(route.path(path)),
            Outcome::Absent { errno, .. } => nothing(errno),
            Outcome::Found(found) => {
                let attributes = found.record.attributes();
                let readable = grants(found.session, attributes, libc::R_OK) == Some(true);
                let servable = attributes.is_regular() || (attributes.is_directory() && readable);
                if !servable {
                    found.count_passed(Counted::Special);
                    return libc_opens(found.route.path(path));
                }
                with_stored(&found, Operation::Content, |stored| {
                    let stream =
                        stored.map_or(core::ptr::null_mut(), |name| libc_opens(name.as_ptr()));
                    if stream.is_null() {
                        libc_opens(found.route.path(path))
                    } else {
                        stream
                    }
                })
            }
        },
    )
}

/// As `open` goes with these flags: it finds the way, says what is wrong, and tells the helper.
fn for_writing(
    path: *const c_char,
    flags: c_int,
    libc_opens: impl Fn(*const c_char) -> *mut FILE,
) -> *mut FILE {
    let stream = Cell::new(core::ptr::null_mut());
    open_common(AT_FDCWD, path, flags, |_, path| {
        stream.set(libc_opens(path));
        if stream.get().is_null() { -1 } else { 0 }
    });
    stream.get()
}

/// Defines the names of `fopen`.
macro_rules! fopen_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE {
            common(path, mode, |path| {
                original!(
                    fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE;
                    or core::ptr::null_mut()
                )
            })
        } }
    )*};
}

// `setmntent` opens as `fopen` does, whatever else it does to the stream.
fopen_hooks! { fopen fopen64 _IO_fopen setmntent }

/// Defines the names of `freopen`.
macro_rules! freopen_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            path: *const c_char,
            mode: *const c_char,
            stream: *mut FILE,
        ) -> *mut FILE {
            let reopen = |path: *const c_char| {
                original!(
                    fn $name(
                        path: *const c_char, mode: *const c_char, stream: *mut FILE,
                    ) -> *mut FILE;
                    or core::ptr::null_mut()
                )
            };
            if path.is_null() { reopen(path) } else { reopen_common(path, mode, reopen) }
        } }
    )*};
}

freopen_hooks! { freopen freopen64 }

/// `freopen` closes the old stream whatever happens, so libc must be called exactly once.
fn reopen_common(
    path: *const c_char,
    mode: *const c_char,
    reopen: impl FnOnce(*const c_char) -> *mut FILE,
) -> *mut FILE {
    if may_write(flags_of(mode)) {
        return reopen_for_writing(path, reopen);
    }
    with_target(
        Family::Open,
        AT_FDCWD,
        path,
        FOLLOW,
        |outcome| match outcome {
            Outcome::Found(found) if found.record.attributes().is_regular() => {
                with_stored(&found, Operation::Content, |stored| {
                    reopen(stored.map_or(found.route.path(path), CStr::as_ptr))
                })
            }
            Outcome::Found(found) => {
                found.count_passed(Counted::Special);
                reopen(found.route.path(path))
            }
            Outcome::Kernel(route) => reopen(route.path(path)),
            Outcome::Absent { .. } => reopen(path),
        },
    )
}

fn reopen_for_writing(
    path: *const c_char,
    reopen: impl FnOnce(*const c_char) -> *mut FILE,
) -> *mut FILE {
    let in_view = with_place(AT_FDCWD, path, |place| {
        place.is_some_and(|place| place.scope == Scope::View)
    });
    if in_view {
        // An empty name fails in libc, which closes the stream as it should.
        reopen(c"".as_ptr());
        return nothing(libc::EROFS);
    }
    let stream = with_place(AT_FDCWD, path, |place| {
        reopen(place.map_or(path, |place| place.route().path(path)))
    });
    if !stream.is_null() {
        told(AT_FDCWD, path, Operation::Writing);
    }
    stream
}
