//! `posix_spawn` and the file actions that name paths. The child runs libc's code, which no hook
//! sees, so whatever it will need is translated here, before.

use crate::access::faccessat;
use crate::change::{Meaning, Target, settle};
use crate::cwd::leave_store;
use crate::environment::{List, with_environment};
use crate::exec::{Candidate, leave_store_for, search_goes_on, search_path};
use crate::links::put_place;
use crate::open::{may_write, told};
use crate::original::{hooks, original};
use crate::program::with_program;
use crate::session;
use crate::stat::stat;
use crate::stored_program::start_stored;
use crate::sys::{errno, set_errno};
use crate::target::{text, with_place};
use copper_core::path::PATH_MAX;
use copper_core::request::Operation;
use core::ffi::{c_char, c_int, c_void};
use libc::{AT_FDCWD, mode_t, pid_t};

/// Calls `posix_spawn` or `posix_spawnp` with a path, arguments and an environment; returns an error
/// number.
type Native<'n> = &'n dyn Fn(*const c_char, List, List) -> c_int;

/// Spawns with an environment that brings the shim along, from a directory that fits.
fn spawn(
    path: *const c_char,
    acts: bool,
    arguments: List,
    environment: List,
    native: Native<'_>,
) -> c_int {
    with_environment(environment, &mut |environment| {
        // The child may change its directory first; only it knows what a relative path means.
        if acts && text(path).is_some_and(|path| path[0] != b'/') {
            let left = leave_store();
            let result = native(path, arguments, environment);
            if let Some(left) = left {
                left.back();
            }
            return result;
        }
        if from_store(path, arguments, environment, native) {
            return 0;
        }
        with_program(AT_FDCWD, path, &mut |program| {
            let path = program.map_or(path, |(_, path)| path);
            from_fitting_directory(path, arguments, environment, native)
        })
    })
}

/// Whether the search for programs leads through covered directories.
fn search_is_covered() -> bool {
    let mut candidate = Candidate::new();
    search_path().any(|directory| {
        directory.first() == Some(&b'/')
            && candidate
                .put(directory, b"")
                .is_some_and(|path| with_place(AT_FDCWD, path, |place| place.is_some()))
    })
}

/// Spawns the first program of this name that can be started; `None` where the search is better
/// left to libc.
#[cold]
#[inline(never)]
fn search(name: &[u8], arguments: List, environment: List, native: Native<'_>) -> Option<c_int> {
    let mut candidate = Candidate::new();
    let before = errno();
    let (mut last, mut denied) = (libc::ENOENT, false);
    for directory in search_path() {
        if directory.first() != Some(&b'/') {
            return None;
        }
        let Some(path) = candidate.put(directory, name) else {
            continue;
        };
        last = why_not(path);
        set_errno(before);
        if last == 0 && from_store(path, arguments, environment, native) {
            return Some(0);
        }
        if last == 0 {
            last = from_fitting_directory(path, arguments, environment, native);
        }
        if !search_goes_on(last) {
            return Some(last);
        }
        denied |= last == libc::EACCES;
    }
    Some(if denied { libc::EACCES } else { last })
}

/// Spawns a program, from the origin's directory where the shim will not be in it.
fn from_fitting_directory(
    path: *const c_char,
    arguments: List,
    environment: List,
    native: Native<'_>,
) -> c_int {
    let left = leave_store_for(AT_FDCWD, path, environment);
    let result = native(path, arguments, environment);
    if let Some(left) = left {
        left.back();
    }
    result
}

/// Spawns a covered program from the store; says whether that was done.
fn from_store(path: *const c_char, arguments: List, environment: List, native: Native<'_>) -> bool {
    let before = errno();
    let spawned = start_stored(
        path,
        arguments,
        environment,
        &mut |path, arguments, environment| {
            from_fitting_directory(path, arguments, environment, native)
        },
    );
    set_errno(before);
    spawned == Some(0)
}

/// Why a program cannot be started, as an error number; 0 where it can.
fn why_not(path: *const c_char) -> c_int {
    let mut status = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is NUL-terminated; `status` is filled where the call succeeds.
    let status = unsafe {
        if stat(path, status.as_mut_ptr()) != 0 {
            return errno();
        }
        status.assume_init()
    };
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return libc::EACCES;
    }
    // SAFETY: the path is NUL-terminated.
    if unsafe { faccessat(AT_FDCWD, path, libc::X_OK, libc::AT_EACCESS) } != 0 {
        return errno();
    }
    0
}

hooks! {
    fn posix_spawn(
        child: *mut pid_t,
        path: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: List,
        environment: List,
    ) -> c_int {
        let acts = !actions.is_null();
        spawn(path, acts, arguments, environment, &|path, arguments, environment| original!(
            fn posix_spawn(
                child: *mut pid_t, path: *const c_char, actions: *const c_void,
                attributes: *const c_void, arguments: List, environment: List,
            ) -> c_int;
            or libc::ENOSYS
        ))
    }

    fn posix_spawnp(
        child: *mut pid_t,
        name: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: List,
        environment: List,
    ) -> c_int {
        let searching = |name: *const c_char, arguments: List, environment: List| original!(
            fn posix_spawnp(
                child: *mut pid_t, name: *const c_char, actions: *const c_void,
                attributes: *const c_void, arguments: List, environment: List,
            ) -> c_int;
            or libc::ENOSYS
        );
        let bytes = text(name).unwrap_or(b"");
        if session::known().is_none() {
            return searching(name, arguments, environment);
        }
        if bytes.contains(&b'/') {
            return spawn(name, !actions.is_null(), arguments, environment, &searching);
        }
        if bytes.is_empty() || !search_is_covered() {
            return with_environment(environment, &mut |environment| {
                searching(name, arguments, environment)
            });
        }
        with_environment(environment, &mut |environment| {
            search(bytes, arguments, environment, &searching)
                .unwrap_or_else(|| searching(name, arguments, environment))
        })
    }
}

/// Hands a path to `then` as the child will understand it, whatever its directory is.
fn with_child_path(path: *const c_char, then: &mut dyn FnMut(*const c_char) -> c_int) -> c_int {
    with_place(AT_FDCWD, path, |place| {
        let (Some(place), Some(session)) = (place, session::known()) else {
            return then(path);
        };
        let by_kernel = place.route().path(path);
        let mut name = [0u8; PATH_MAX + 1];
        if core::ptr::eq(by_kernel, path) {
            return then(path);
        }
        match put_place(session, place, &mut name) {
            Some(_) => then(name.as_ptr().cast()),
            None => then(by_kernel),
        }
    })
}

hooks! {
    fn posix_spawn_file_actions_addopen(
        actions: *mut c_void,
        descriptor: c_int,
        path: *const c_char,
        flags: c_int,
        mode: mode_t,
    ) -> c_int {
        let native = |path: *const c_char| original!(
            fn posix_spawn_file_actions_addopen(
                actions: *mut c_void, descriptor: c_int, path: *const c_char, flags: c_int,
                mode: mode_t,
            ) -> c_int;
            or libc::ENOSYS
        );
        if !may_write(flags) && flags & libc::O_CREAT == 0 {
            return with_child_path(path, &mut |path| native(path));
        }
        settle(AT_FDCWD, path, Meaning::Followed, &mut |target| match target {
            Target::View(_) => libc::EROFS,
            Target::Writable { path: child_path, told: covered, .. } => {
                let result = native(child_path);
                if result == 0 && covered.is_some() {
                    told(AT_FDCWD, path, Operation::Writing);
                }
                result
            }
        })
    }

    fn posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char) -> c_int {
        with_child_path(path, &mut |path| original!(
            fn posix_spawn_file_actions_addchdir_np(
                actions: *mut c_void, path: *const c_char,
            ) -> c_int;
            or libc::ENOSYS
        ))
    }
}
