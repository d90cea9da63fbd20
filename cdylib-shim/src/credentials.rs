//! Changes of user and group: another user may be allowed other things than the catalog's facts
//! were learned with, so a process that becomes one goes to the origin from then on.

use crate::original::{hooks, original};
use crate::session;
use crate::sys::call;
use core::ffi::c_int;
use libc::{gid_t, uid_t};

fn effective_group() -> isize {
    // SAFETY: takes no argument and cannot fail.
    unsafe { call!(libc::SYS_getegid) }
}

/// After a change of the user.
pub(crate) fn user_changed(result: c_int) -> c_int {
    if result == 0
        && let Some(session) = session::known()
    {
        // SAFETY: takes no argument and cannot fail.
        let now = unsafe { call!(libc::SYS_geteuid) };
        if now != session.uid as isize {
            session::switch_off();
        }
    }
    result
}

pub(crate) fn group_changing(change: impl FnOnce() -> c_int) -> c_int {
    if session::known().is_none() {
        return change();
    }
    let before = effective_group();
    let result = change();
    if effective_group() != before {
        session::switch_off();
    }
    result
}

/// Defines the calls that change the user.
macro_rules! user_hooks {
    ($($name:ident($($argument:ident),*);)*) => {$(
        hooks! { fn $name($($argument: uid_t),*) -> c_int {
            user_changed(original!(fn $name($($argument: uid_t),*) -> c_int; or -1))
        } }
    )*};
}

user_hooks! {
    setuid(user);
    seteuid(user);
    setreuid(real, effective);
    setresuid(real, effective, saved);
}

/// Defines the calls that change the group.
macro_rules! group_hooks {
    ($($name:ident($($argument:ident),*);)*) => {$(
        hooks! { fn $name($($argument: gid_t),*) -> c_int {
            group_changing(|| original!(fn $name($($argument: gid_t),*) -> c_int; or -1))
        } }
    )*};
}

group_hooks! {
    setgid(group);
    setegid(group);
    setregid(real, effective);
    setresgid(real, effective, saved);
}
