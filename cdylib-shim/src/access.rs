//! The access family: answered from the mode bits where these settle the matter, by the origin
//! where they do not (access control lists, capabilities, another real than effective user).

use crate::original::{hooks, original};
use crate::scope::grants;
use crate::session::Session;
use crate::sys::{call, fail, finish, stat_at};
use crate::target::{Outcome, with_target};
use copper_core::catalog::resolve::Ending;
use copper_core::counters::{Family, Outcome as Counted};
use core::ffi::{c_char, c_int};
use libc::{AT_EACCESS, AT_FDCWD, AT_SYMLINK_NOFOLLOW, F_OK, R_OK, W_OK, X_OK};

fn common(
    directory: c_int,
    path: *const c_char,
    mode: c_int,
    flags: c_int,
    kernel: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    let sound =
        mode & !(R_OK | W_OK | X_OK) == 0 && flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW) == 0;
    let ending = Ending {
        follow: flags & AT_SYMLINK_NOFOLLOW == 0,
        directory: false,
    };
    with_target(Family::Access, directory, path, ending, |outcome| {
        let route = match outcome {
            Outcome::Kernel(route) => route,
            // What is wrong with the arguments libc or the kernel says, before the path or after it.
            Outcome::Absent { .. } if !sound => return kernel(directory, path),
            Outcome::Absent { errno, .. } => return fail(errno),
            Outcome::Found(found) if sound && mode == F_OK => {
                found.count_answered(false);
                return 0;
            }
            Outcome::Found(found) => {
                // In the view the kernel's answer is the same but for writing.
                let attributes = found.record.attributes();
                let readable = mode & W_OK == 0 && sound && !attributes.is_link();
                if readable && same_user(found.session, flags) {
                    let granted = grants(found.session, attributes, mode);
                    if let Some(granted) = granted {
                        found.count_answered(false);
                        return if granted { 0 } else { fail(libc::EACCES) };
                    }
                }
                found.count_passed(Counted::Special);
                if attributes.is_link() {
                    found.route
                } else {
                    found.canonical_route()
                }
            }
        };
        let (directory, path) = route.of(directory, path);
        let result = kernel(directory, path);
        if result == 0 && mode & W_OK != 0 && route.is_in_view() {
            return refuse_writing(directory, path, flags);
        }
        result
    })
}

/// What the origin lets be written cannot be written in the view, but for devices and pipes.
fn refuse_writing(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    let flags = flags & AT_SYMLINK_NOFOLLOW;
    let read_only = stat_at(directory, path, flags).is_ok_and(|status| {
        let kind = status.st_mode & libc::S_IFMT;
        matches!(kind, libc::S_IFREG | libc::S_IFDIR | libc::S_IFLNK)
    });
    if read_only { fail(libc::EROFS) } else { 0 }
}

/// The call asks for the rights of the user whose session this is.
fn same_user(session: &Session, flags: c_int) -> bool {
    // SAFETY: takes no argument and cannot fail.
    flags & AT_EACCESS != 0 || unsafe { call!(libc::SYS_getuid) } as u32 == session.uid
}

hooks! {
    fn access(path: *const c_char, mode: c_int) -> c_int {
        common(AT_FDCWD, path, mode, 0, |directory, path| {
            original!(fn access(path: *const c_char, mode: c_int) -> c_int; else {
                // SAFETY: the caller's own arguments.
                finish(unsafe { call!(libc::SYS_faccessat, directory, path, mode) }) as c_int
            })
        })
    }

    fn faccessat(directory: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
        common(directory, path, mode, flags, |directory, path| {
            original!(
                fn faccessat(
                    directory: c_int, path: *const c_char, mode: c_int, flags: c_int,
                ) -> c_int;
                or -1
            )
        })
    }
}

/// Defines the two names of `euidaccess`.
macro_rules! effective_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(path: *const c_char, mode: c_int) -> c_int {
            common(AT_FDCWD, path, mode, AT_EACCESS, |_, path| {
                original!(fn $name(path: *const c_char, mode: c_int) -> c_int; or -1)
            })
        } }
    )*};
}

effective_hooks! { euidaccess eaccess }
