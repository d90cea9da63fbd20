//! The working directory. In the view it is really moved, to the mirrored directory in the store,
//! and the kernel's answer is translated back; nothing is remembered here, since a vfork child
//! shares all memory with its parent but not the working directory.

use crate::ask::ask;
use crate::content::with_stored;
use crate::descriptor::{record_of, scope_of};
use crate::links::put_name;
use crate::original::{hooks, original};
use crate::scope::grants;
use crate::session::{self, Session};
use crate::stat::stat;
use crate::sys::{call, errno, fail, finish, set_errno};
use crate::target::{Found, Outcome, Scope, with_target, working_directory};
use copper_core::catalog::resolve::Ending;
use copper_core::counters::Family;
use copper_core::path::{self, PATH_MAX};
use copper_core::request::Operation;
use core::ffi::{CStr, c_char, c_int, c_void};
use libc::{AT_FDCWD, size_t};

const DIRECTORY: Ending = Ending {
    follow: true,
    directory: true,
};

fn kernel_chdir(path: *const c_char) -> c_int {
    original!(fn chdir(path: *const c_char) -> c_int; else {
        // SAFETY: the path is the caller's or NUL-terminated by us.
        finish(unsafe { call!(libc::SYS_chdir, path) }) as c_int
    })
}

hooks! {
    fn chdir(path: *const c_char) -> c_int {
        with_target(Family::Chdir, AT_FDCWD, path, DIRECTORY, |outcome| match outcome {
            Outcome::Kernel(route) => {
                let result = kernel_chdir(route.path(path));
                if result == 0 && route.is_in_view() {
                    enter_store();
                }
                result
            }
            Outcome::Absent { errno, .. } => fail(errno),
            Outcome::Found(found) if found.scope == Scope::View => enter_view(&found),
            Outcome::Found(found) => kernel_chdir(found.route.path(path)),
        })
    }

    fn fchdir(descriptor: c_int) -> c_int {
        if let Some(session) = session::known()
            && let Some(record) = record_of(session, descriptor)
            && record.is_directory()
            && scope_of(session, descriptor, record.path()) == Scope::Prefix
        {
            return kernel_chdir(record.path_terminated().as_ptr());
        }
        original!(fn fchdir(descriptor: c_int) -> c_int; else {
            // SAFETY: the caller's own argument.
            finish(unsafe { call!(libc::SYS_fchdir, descriptor) }) as c_int
        })
    }

    fn chroot(path: *const c_char) -> c_int {
        let result = original!(fn chroot(path: *const c_char) -> c_int; or -1);
        if result == 0 {
            // From now on every path means another file.
            session::switch_off();
        }
        result
    }
}

/// Moves into the store's mirror of a directory of the view, or where that cannot be into the
/// origin's directory.
fn enter_view(found: &Found<'_>) -> c_int {
    let attributes = found.record.attributes();
    match grants(found.session, attributes, libc::X_OK) {
        Some(false) => return fail(libc::EACCES),
        Some(true) => {}
        None if is_searchable(found.record.path_terminated()) => {}
        None => return fail(libc::EACCES),
    }
    let entered = with_stored(found, Operation::Content, |stored| {
        let stored = stored?;
        match raw_chdir(stored) {
            libc::ENOENT => {
                let path = found.record.path();
                ask(found.session, Operation::Content, path, b"");
                Some(raw_chdir(stored))
            }
            errno => Some(errno),
        }
    });
    match entered {
        Some(0) => 0,
        _ => kernel_chdir(found.record.path_terminated().as_ptr()),
    }
}

/// From a directory of the origin, which the kernel alone could find, to its place in the view.
#[cold]
#[inline(never)]
fn enter_store() {
    let Some(session) = session::known() else {
        return;
    };
    let mut room = [0u8; PATH_MAX + 1];
    if let Some(length) = working_directory(&mut room)
        && !path::is_node_local(&room[..length])
    {
        let before = errno();
        ask(session, Operation::Content, &room[..length], b"");
        Left { session }.back();
        set_errno(before);
    }
}

/// Moves by a descriptor, and stays in the view where the descriptor is the origin's, because only
/// the kernel could find it.
pub(crate) fn fchdir_within(descriptor: c_int) -> c_int {
    let before = session::known().is_some_and(is_in_store);
    // SAFETY: the caller's descriptor.
    let result = unsafe { fchdir(descriptor) };
    if result == 0 && before && !session::known().is_some_and(is_in_store) {
        enter_store();
    }
    result
}

/// Whether the origin lets its directory be entered.
fn is_searchable(path: &CStr) -> bool {
    let (path, mode, flags) = (path.as_ptr(), libc::X_OK, libc::AT_EACCESS);
    // SAFETY: the path is NUL-terminated.
    let result = unsafe { call!(libc::SYS_faccessat2, AT_FDCWD, path, mode, flags) };
    result != -(libc::EACCES as isize)
}

fn raw_chdir(path: &CStr) -> c_int {
    // SAFETY: the path is NUL-terminated.
    -unsafe { call!(libc::SYS_chdir, path.as_ptr()) } as c_int
}

/// A working directory in the store that was left for the origin's.
pub(crate) struct Left {
    session: &'static Session,
}

impl Left {
    /// Goes back to where [`leave_store`] came from.
    #[cold]
    #[inline(never)]
    pub(crate) fn back(self) {
        let mut room = [0u8; PATH_MAX + 1];
        let mut stored = [0u8; PATH_MAX + 1];
        let Some(length) = working_directory(&mut room) else {
            return;
        };
        let mirror = self.session.mirror;
        if copper_core::store::mirror_path(mirror, &room[..length], &mut stored).is_some()
            && let Ok(path) = CStr::from_bytes_until_nul(&stored)
        {
            raw_chdir(path);
        }
    }
}

/// The origin's name of the working directory, if that lies in the store, in `room`.
fn origin_of_cwd<'r>(session: &Session, room: &'r mut [u8; PATH_MAX + 1]) -> Option<&'r [u8]> {
    let length = working_directory(room)?;
    path::below(&room[..length], session.mirror)
}

/// Whether the working directory lies in the store.
#[cold]
#[inline(never)]
pub(crate) fn is_in_store(session: &Session) -> bool {
    origin_of_cwd(session, &mut [0u8; PATH_MAX + 1]).is_some()
}

/// Moves a working directory in the store to the origin's directory, for those who see only what
/// the kernel shows. errno is as before.
#[cold]
#[inline(never)]
pub(crate) fn leave_store() -> Option<Left> {
    let session = session::known()?;
    let mut room = [0u8; PATH_MAX + 1];
    let origin = origin_of_cwd(session, &mut room)?;
    let path = if origin == b"/" {
        c"/".as_ptr()
    } else {
        origin.as_ptr().cast()
    };
    // SAFETY: the kernel's answer ends in NUL, and so does its part that is the origin's name.
    let result = unsafe { call!(libc::SYS_chdir, path) };
    (result == 0).then_some(Left { session })
}

/// What a caller of `getcwd` gave: where to put the answer and how long it may be with its NUL.
#[derive(Clone, Copy)]
struct Answer {
    given: *mut c_char,
    room: size_t,
    /// errno before the call.
    errno: c_int,
}

impl Answer {
    fn new(given: *mut c_char, room: size_t) -> Answer {
        let errno = errno();
        Answer { given, room, errno }
    }
}

/// Translates libc's answer, where it is a directory in the store.
fn translate(answer: Answer, kernel: *mut c_char) -> *mut c_char {
    let Some(session) = session::known() else {
        return kernel;
    };
    if kernel.is_null() {
        return if errno() == libc::ERANGE && answer.room > 0 {
            put_translated(session, answer, kernel)
        } else {
            kernel
        };
    }
    // SAFETY: libc's answer is NUL-terminated.
    let bytes = unsafe { CStr::from_ptr(kernel) }.to_bytes();
    if path::below(bytes, session.mirror).is_none() {
        return kernel;
    }
    put_translated(session, answer, kernel)
}

/// Puts the view's name of the working directory where libc's answer is, or fails as libc does
/// where it does not fit; `kernel` is null where the store's own name did not fit.
#[cold]
#[inline(never)]
fn put_translated(session: &'static Session, answer: Answer, kernel: *mut c_char) -> *mut c_char {
    let null = core::ptr::null_mut();
    let mut stored = [0u8; PATH_MAX + 1];
    let mut named = [0u8; PATH_MAX + 1];
    // Only a change of directory within the view leads into the store.
    let name = working_directory(&mut stored)
        .and_then(|length| path::below(&stored[..length], session.mirror))
        .and_then(|origin| put_name(session, Scope::View, origin, &mut named));
    let Some(length) = name else {
        return kernel;
    };
    let allocated = answer.given.is_null();
    if answer.room != 0 && length >= answer.room {
        if allocated {
            // SAFETY: libc's answer in a buffer that libc allocated, or null.
            unsafe { libc::free(kernel.cast()) };
        }
        set_errno(libc::ERANGE);
        return null;
    }
    let out = if allocated {
        let size = if answer.room == 0 {
            length + 1
        } else {
            answer.room
        };
        // SAFETY: as above; the old buffer is not used again where this succeeds.
        unsafe { libc::realloc(kernel.cast::<c_void>(), size).cast::<c_char>() }
    } else {
        answer.given
    };
    if out.is_null() {
        // SAFETY: as above.
        unsafe { libc::free(kernel.cast()) };
        return null;
    }
    // SAFETY: `out` has room for the name and its NUL, as was checked.
    unsafe { core::ptr::copy_nonoverlapping(named.as_ptr().cast(), out, length + 1) };
    set_errno(answer.errno);
    out
}

hooks! {
    fn getcwd(out: *mut c_char, room: size_t) -> *mut c_char {
        let answer = Answer::new(out, room);
        translate(answer, original!(
            fn getcwd(out: *mut c_char, room: size_t) -> *mut c_char;
            or core::ptr::null_mut()
        ))
    }

    fn __getcwd_chk(out: *mut c_char, room: size_t, length: size_t) -> *mut c_char {
        let answer = Answer::new(out, room);
        translate(answer, original!(
            fn __getcwd_chk(out: *mut c_char, room: size_t, length: size_t) -> *mut c_char;
            or core::ptr::null_mut()
        ))
    }

    fn getwd(out: *mut c_char) -> *mut c_char {
        let answer = Answer::new(out, PATH_MAX + 1);
        translate(answer, original!(
            fn getwd(out: *mut c_char) -> *mut c_char;
            or core::ptr::null_mut()
        ))
    }

    fn __getwd_chk(out: *mut c_char, length: size_t) -> *mut c_char {
        let answer = Answer::new(out, length);
        translate(answer, original!(
            fn __getwd_chk(out: *mut c_char, length: size_t) -> *mut c_char;
            or core::ptr::null_mut()
        ))
    }

    fn get_current_dir_name() -> *mut c_char {
        if session::known().is_none() {
            return original!(
                fn get_current_dir_name() -> *mut c_char;
                or core::ptr::null_mut()
            );
        }
        match named_by_environment() {
            // SAFETY: a NUL-terminated string of the environment.
            Some(name) => unsafe { libc::strdup(name) },
            // SAFETY: asks for an allocated answer.
            None => unsafe { getcwd(core::ptr::null_mut(), 0) },
        }
    }
}

/// `$PWD`, where it names the working directory.
fn named_by_environment() -> Option<*const c_char> {
    let name = session::variable("PWD").filter(|name| !name.is_empty())?;
    let before = errno();
    let here = identity(c".".as_ptr());
    let there = identity(name.as_ptr().cast());
    set_errno(before);
    (here.is_some() && here == there).then_some(name.as_ptr().cast())
}

fn identity(path: *const c_char) -> Option<(u64, u64)> {
    let mut status = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is NUL-terminated; `status` is filled where the call succeeds.
    unsafe {
        (stat(path, status.as_mut_ptr()) == 0).then(|| {
            let status = status.assume_init();
            (status.st_dev, status.st_ino)
        })
    }
}
