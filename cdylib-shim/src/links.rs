//! `readlink`, `realpath` and their kin; the names that the kernel has for things in the store
//! are given back as the names that the program used.

use crate::descriptor::may_be_link_to_open;
use crate::original::{hooks, original};
use crate::session::{self, Session};
use crate::sys::{call, fail, finish, set_errno};
use crate::target::{FOLLOW, NO_FOLLOW, Outcome, Place, Scope, is_bad_pointer, text, with_target};
use copper_core::counters::Family;
use copper_core::path::{self, PATH_MAX};
use core::ffi::{CStr, c_char, c_int, c_void};
use libc::{AT_FDCWD, size_t, ssize_t};

/// Writes the name a program would use for a path in the store into `out`: the origin's under a
/// covered prefix, else the view's. `None` where it is no path in the store.
pub(crate) fn name_for_program(
    session: &'static Session,
    stored: &[u8],
    out: &mut [u8; PATH_MAX + 1],
) -> Option<usize> {
    let origin = session.origin_of_stored(stored)?;
    let scope = if session.covers(origin) {
        Scope::Prefix
    } else {
        Scope::View
    };
    put_name(session, scope, origin, out)
}

/// Writes the name by which a child will find a place, whatever its directory is,
/// NUL-terminated and ending as the caller's path did.
pub(crate) fn put_place(
    session: &Session,
    place: Place<'_>,
    out: &mut [u8; PATH_MAX + 1],
) -> Option<usize> {
    let length = put_name(session, place.scope, place.path, out)?;
    let end = length + place.ending.len();
    out.get_mut(length..end)?.copy_from_slice(place.ending);
    *out.get_mut(end)? = 0;
    Some(end)
}

/// Writes the origin path `origin` as it is called in `scope`, NUL-terminated.
pub(crate) fn put_name(
    session: &Session,
    scope: Scope,
    origin: &[u8],
    out: &mut [u8; PATH_MAX + 1],
) -> Option<usize> {
    let (start, rest) = match scope {
        Scope::Prefix => (&b""[..], origin),
        Scope::View if origin == b"/" => (session.view, &b""[..]),
        Scope::View => (session.view, origin),
    };
    let length = start.len() + rest.len();
    out.get_mut(..length + 1)?[..start.len()].copy_from_slice(start);
    out[start.len()..length].copy_from_slice(rest);
    out[length] = 0;
    (length <= PATH_MAX).then_some(length)
}

fn copy_out(from: &[u8], out: *mut c_char, room: size_t) -> ssize_t {
    let length = from.len().min(room);
    // SAFETY: the caller's buffer has `room` bytes.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), out.cast(), length) };
    length as ssize_t
}

/// Reads a link, with the kernel's part given.
fn read_common(
    directory: c_int,
    path: *const c_char,
    out: *mut c_char,
    room: size_t,
    kernel: impl Fn(c_int, *const c_char, *mut c_char, size_t) -> ssize_t,
) -> ssize_t {
    // The kernel takes the room for an int, and looks at it before it looks at the path.
    if room as c_int <= 0 {
        return fail(libc::EINVAL) as ssize_t;
    }
    with_target(
        Family::Readlink,
        directory,
        path,
        NO_FOLLOW,
        |outcome| match outcome {
            Outcome::Found(found) if is_bad_pointer(out.cast()) => {
                let (directory, path) = found.route.of(directory, path);
                kernel(directory, path, out, room)
            }
            Outcome::Found(found) if found.record.attributes().is_link() => {
                copy_out(found.record.link(), out, room)
            }
            Outcome::Found(_) => fail(libc::EINVAL) as ssize_t,
            Outcome::Absent { errno, .. } => fail(errno) as ssize_t,
            Outcome::Kernel(route) => {
                let (directory, path) = route.of(directory, path);
                if text(path).is_some_and(may_be_link_to_open) {
                    read_of_process(directory, path, out, room, kernel)
                } else {
                    kernel(directory, path, out, room)
                }
            }
        },
    )
}

/// Links of `/proc` (and those of `/dev` that lead there) name open files, working directories and programs.
#[cold]
#[inline(never)]
fn read_of_process(
    directory: c_int,
    path: *const c_char,
    out: *mut c_char,
    room: size_t,
    kernel: impl Fn(c_int, *const c_char, *mut c_char, size_t) -> ssize_t,
) -> ssize_t {
    let Some(session) = session::known() else {
        return kernel(directory, path, out, room);
    };
    let mut whole = [0u8; PATH_MAX + 1];
    let length = kernel(directory, path, whole.as_mut_ptr().cast(), PATH_MAX);
    if length < 0 || room == 0 {
        return kernel(directory, path, out, room);
    }
    let mut named = [0u8; PATH_MAX + 1];
    let stored = before_removal(session, &whole[..length as usize]);
    match name_for_program(session, stored, &mut named) {
        Some(length) => copy_out(&named[..length], out, room),
        None => copy_out(&whole[..length as usize], out, room),
    }
}

/// The name in the mirror that a running program had before the helper removed it: the kernel puts
/// a mark behind it.
fn before_removal<'p>(session: &Session, name: &'p [u8]) -> &'p [u8] {
    name.strip_suffix(b" (deleted)")
        .filter(|before| path::below(before, session.mirror).is_some())
        .unwrap_or(name)
}

fn raw_readlink(directory: c_int, path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t {
    // SAFETY: the caller's own arguments.
    finish(unsafe { call!(libc::SYS_readlinkat, directory, path, out, room) })
}

hooks! {
    fn readlink(path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t {
        read_common(AT_FDCWD, path, out, room, |directory, path, out, room| {
            original!(
                fn readlink(path: *const c_char, out: *mut c_char, room: size_t) -> ssize_t;
                else { raw_readlink(directory, path, out, room) }
            )
        })
    }

    fn readlinkat(
        directory: c_int,
        path: *const c_char,
        out: *mut c_char,
        room: size_t,
    ) -> ssize_t {
        read_common(directory, path, out, room, |directory, path, out, room| {
            original!(
                fn readlinkat(
                    directory: c_int, path: *const c_char, out: *mut c_char, room: size_t,
                ) -> ssize_t;
                else { raw_readlink(directory, path, out, room) }
            )
        })
    }

    fn __readlink_chk(
        path: *const c_char,
        out: *mut c_char,
        room: size_t,
        size: size_t,
    ) -> ssize_t {
        read_common(AT_FDCWD, path, out, room.min(size), |directory, path, out, room| {
            raw_readlink(directory, path, out, room)
        })
    }

    fn __readlinkat_chk(
        directory: c_int,
        path: *const c_char,
        out: *mut c_char,
        room: size_t,
        size: size_t,
    ) -> ssize_t {
        read_common(directory, path, out, room.min(size), |directory, path, out, room| {
            raw_readlink(directory, path, out, room)
        })
    }
}

/// Gives a path to a caller of `realpath`: in its buffer, or in memory of its own.
pub(crate) fn give(path: &[u8], out: *mut c_char) -> *mut c_char {
    let target = if out.is_null() {
        // SAFETY: plain allocation; realpath allocates here as well.
        unsafe { libc::malloc(path.len() + 1) }.cast::<c_char>()
    } else {
        out
    };
    if target.is_null() {
        set_errno(libc::ENOMEM);
        return target;
    }
    copy_out(path, target, path.len());
    // SAFETY: a buffer given to realpath has PATH_MAX bytes, one of our own one more than the path.
    unsafe { *target.add(path.len()) = 0 };
    target
}

fn nothing(errno: c_int) -> *mut c_char {
    set_errno(errno);
    core::ptr::null_mut()
}

fn real_common(
    path: *const c_char,
    out: *mut c_char,
    kernel: impl Fn(*const c_char, *mut c_char) -> *mut c_char,
) -> *mut c_char {
    with_target(
        Family::Readlink,
        AT_FDCWD,
        path,
        FOLLOW,
        |outcome| match outcome {
            Outcome::Absent { errno, .. } => nothing(errno),
            Outcome::Kernel(route) => kernel(route.path(path), out),
            Outcome::Found(found) => give_name(&found, out),
        },
    )
}

#[inline(never)]
fn give_name(found: &crate::target::Found<'_>, out: *mut c_char) -> *mut c_char {
    let mut named = [0u8; PATH_MAX + 1];
    match put_name(found.session, found.scope, found.record.path(), &mut named) {
        Some(length) => give(&named[..length], out),
        None => nothing(libc::ENAMETOOLONG),
    }
}

/// What libc's `realpath` gave may lie in the store: it went through `/proc/self/fd`, say.
fn translated(result: *mut c_char, given: *mut c_char) -> *mut c_char {
    let (Some(session), false) = (session::known(), result.is_null()) else {
        return result;
    };
    // SAFETY: realpath's result is NUL-terminated.
    let stored = unsafe { CStr::from_ptr(result) }.to_bytes();
    let mut named = [0u8; PATH_MAX + 1];
    let Some(length) = name_for_program(session, stored, &mut named) else {
        return result;
    };
    if given.is_null() {
        // SAFETY: libc allocated it for the caller, who gets another in its place.
        unsafe { libc::free(result.cast::<c_void>()) };
    }
    give(&named[..length], given)
}

hooks! {
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char {
        real_common(path, out, |path, out| {
            let result = original!(
                fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char;
                or core::ptr::null_mut()
            );
            translated(result, out)
        })
    }

    fn __realpath_chk(path: *const c_char, out: *mut c_char, size: size_t) -> *mut c_char {
        real_common(path, out, |path, out| {
            let result = original!(
                fn __realpath_chk(
                    path: *const c_char, out: *mut c_char, size: size_t,
                ) -> *mut c_char;
                or core::ptr::null_mut()
            );
            translated(result, out)
        })
    }

    fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
        real_common(path, core::ptr::null_mut(), |path, out| {
            let result = original!(
                fn canonicalize_file_name(path: *const c_char) -> *mut c_char;
                or core::ptr::null_mut()
            );
            translated(result, out)
        })
    }
}
