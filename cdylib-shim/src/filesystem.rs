//! Questions about file systems and extended attributes. The catalog does not hold the answers,
//! so the origin gives them; only that a file is missing is answered from the catalog.

use crate::descriptor::{record_of, scope_of};
use crate::original::{hooks, original};
use crate::session;
use crate::stat::means_descriptor;
use crate::sys::fail;
use crate::target::{FOLLOW, NO_FOLLOW, Outcome, Scope, text, with_place, with_target};
use copper_core::catalog::resolve::Ending;
use copper_core::counters::{Family, Outcome as Counted};
use core::ffi::{c_char, c_int, c_long, c_void};
use libc::{AT_FDCWD, size_t, ssize_t};

/// What a failing call returns.
trait Failure {
    const FAILED: Self;
}

impl Failure for c_int {
    const FAILED: c_int = -1;
}

impl Failure for c_long {
    const FAILED: c_long = -1;
}

/// Asks the origin about a path. The path of a file in the view leads there by itself. `in_view`
/// says whether the answer is about the view. That a file is missing is for the kernel to say
/// too where it may say something else first (`sound` is false).
fn on_path<R: Failure>(
    directory: c_int,
    path: *const c_char,
    ending: Ending,
    sound: bool,
    kernel: impl FnOnce(c_int, *const c_char, bool) -> R,
) -> R {
    with_target(
        Family::Other,
        directory,
        path,
        ending,
        |outcome| match outcome {
            Outcome::Kernel(route) => {
                let (directory, path) = route.of(directory, path);
                kernel(directory, path, route.is_in_view())
            }
            // By the origin's own name: the view's links would count among those on the way.
            Outcome::Found(found) => {
                found.count_passed(Counted::Special);
                let path = found.record.path_terminated().as_ptr();
                kernel(AT_FDCWD, path, found.scope == Scope::View)
            }
            Outcome::Absent { errno, .. } if sound => {
                fail(errno);
                R::FAILED
            }
            Outcome::Absent { .. } => with_place(directory, path, |place| match place {
                Some(place) => {
                    let (directory, path) = place.route().of(directory, path);
                    kernel(directory, path, place.scope == Scope::View)
                }
                None => kernel(directory, path, false),
            }),
        },
    )
}

/// Asks the origin about the file that a descriptor on the store stands for; `None` where the
/// descriptor is not on the store.
fn on_store<R>(descriptor: c_int, by_path: impl FnOnce(*const c_char, bool) -> R) -> Option<R> {
    let session = session::known()?;
    let record = record_of(session, descriptor)?;
    let in_view = scope_of(session, descriptor, record.path()) == Scope::View;
    Some(by_path(record.path_terminated().as_ptr(), in_view))
}

/// Whether this may be the name of an extended attribute; the kernel looks at that first.
pub(crate) fn is_sound_name(name: *const c_char) -> bool {
    const NAME_MAX: usize = 255;
    text(name).is_some_and(|name| name.len() <= NAME_MAX)
}

/// Answers about file systems, which say whether they are read-only.
trait MountFlags {
    fn set_read_only(&mut self);
}

impl MountFlags for libc::statfs64 {
    fn set_read_only(&mut self) {
        self.f_flags |= libc::ST_RDONLY as libc::__fsword_t;
    }
}

impl MountFlags for libc::statvfs {
    fn set_read_only(&mut self) {
        self.f_flag |= libc::ST_RDONLY;
    }
}

fn finished<T: MountFlags>(result: c_int, in_view: bool, out: *mut T) -> c_int {
    if result == 0 && in_view {
        // SAFETY: the kernel has just filled the caller's buffer.
        unsafe { (*out).set_read_only() };
    }
    result
}

/// Defines questions about the file system of a path or a descriptor. `by` names libc's function
/// that answers for a path.
macro_rules! system_hooks {
    ($($name:ident $descriptor_name:ident($out:ty);)*) => {$(
        hooks! {
            fn $name(path: *const c_char, out: *mut $out) -> c_int {
                on_path(AT_FDCWD, path, FOLLOW, true, |_, path, in_view| {
                    let result = original!(
                        fn $name(path: *const c_char, out: *mut $out) -> c_int;
                        or -1
                    );
                    finished(result, in_view, out)
                })
            }

            fn $descriptor_name(descriptor: c_int, out: *mut $out) -> c_int {
                let answer = on_store(descriptor, |path, in_view| {
                    let result = original!(
                        fn $name(path: *const c_char, out: *mut $out) -> c_int;
                        or -1
                    );
                    finished(result, in_view, out)
                });
                answer.unwrap_or_else(|| original!(
                    fn $descriptor_name(descriptor: c_int, out: *mut $out) -> c_int;
                    or -1
                ))
            }
        }
    )*};
}

system_hooks! {
    statfs fstatfs(libc::statfs64);
    statfs64 fstatfs64(libc::statfs64);
    __statfs __fstatfs(libc::statfs64);
    statvfs fstatvfs(libc::statvfs);
    statvfs64 fstatvfs64(libc::statvfs);
}

/// Defines questions about a path, or about the file that a descriptor is open on.
macro_rules! path_hooks {
    ($(
        fn $name:ident $(or $descriptor_name:ident)? (path $(, $argument:ident: $kind:ty)*)
            -> $result:ty, $ending:expr, $sound:expr;
    )*) => {$(
        hooks! {
            fn $name(path: *const c_char $(, $argument: $kind)*) -> $result {
                on_path(AT_FDCWD, path, $ending, $sound, |_, path, _| original!(
                    fn $name(path: *const c_char $(, $argument: $kind)*) -> $result;
                    or -1
                ))
            }
        }
        path_hooks! { @descriptor $($descriptor_name)? $name($($argument: $kind),*) -> $result }
    )*};
    (@descriptor $name:ident($($argument:ident: $kind:ty),*) -> $result:ty) => {};
    (@descriptor $descriptor_name:ident $name:ident($($argument:ident: $kind:ty),*)
        -> $result:ty) =>
    {
        hooks! {
            fn $descriptor_name(descriptor: c_int $(, $argument: $kind)*) -> $result {
                let answer = on_store(descriptor, |path, _| original!(
                    fn $name(path: *const c_char $(, $argument: $kind)*) -> $result;
                    or -1
                ));
                answer.unwrap_or_else(|| original!(
                    fn $descriptor_name(descriptor: c_int $(, $argument: $kind)*) -> $result;
                    or -1
                ))
            }
        }
    };
}

path_hooks! {
    fn pathconf or fpathconf(path, name: c_int) -> c_long, FOLLOW, false;
    fn getxattr or fgetxattr(path, name: *const c_char, out: *mut c_void, room: size_t)
        -> ssize_t, FOLLOW, is_sound_name(name);
    fn lgetxattr(path, name: *const c_char, out: *mut c_void, room: size_t)
        -> ssize_t, NO_FOLLOW, is_sound_name(name);
    fn listxattr or flistxattr(path, out: *mut c_char, room: size_t) -> ssize_t, FOLLOW, true;
    fn llistxattr(path, out: *mut c_char, room: size_t) -> ssize_t, NO_FOLLOW, true;
}

impl Failure for ssize_t {
    const FAILED: ssize_t = -1;
}

hooks! {
    fn inotify_add_watch(
        descriptor: c_int,
        path: *const c_char,
        mask: u32,
    ) -> c_int {
        let ending = Ending {
            follow: mask & libc::IN_DONT_FOLLOW == 0,
            directory: mask & libc::IN_ONLYDIR != 0,
        };
        on_path(AT_FDCWD, path, ending, false, |_, path, _| original!(
            fn inotify_add_watch(descriptor: c_int, path: *const c_char, mask: u32) -> c_int;
            or -1
        ))
    }

    fn name_to_handle_at(
        directory: c_int,
        path: *const c_char,
        handle: *mut c_void,
        mount: *mut c_int,
        flags: c_int,
    ) -> c_int {
        let kernel = |directory: c_int, path: *const c_char| original!(
            fn name_to_handle_at(
                directory: c_int, path: *const c_char, handle: *mut c_void, mount: *mut c_int,
                flags: c_int,
            ) -> c_int;
            or -1
        );
        if means_descriptor(path, flags) {
            return on_store(directory, |path, _| kernel(AT_FDCWD, path))
                .unwrap_or_else(|| kernel(directory, path));
        }
        let ending = Ending {
            follow: flags & libc::AT_SYMLINK_FOLLOW != 0,
            directory: false,
        };
        on_path(directory, path, ending, false, |directory, path, _| kernel(directory, path))
    }
}
