//! Locks and leases: they are between all who have the file open, on other nodes and without the
//! shim too, so a descriptor on the store is turned into one on the origin's file first.

use crate::descriptor::{origin_of, replace};
use crate::original::{hooks, original};
use crate::sys::{call, finish};
use core::ffi::{c_int, c_void};
use libc::off_t;

/// Puts the origin's file in the place of the store's, at the same position and with the same flags.
/// Does nothing with any other descriptor, or where another file has the name by now.
#[cold]
fn leave_store(descriptor: c_int) {
    const KEPT: isize = (libc::O_APPEND | libc::O_NONBLOCK) as isize;
    let Some(origin) = origin_of(descriptor) else {
        return;
    };
    // SAFETY: plain arguments; reads position and flags of the caller's descriptor and sets those of
    // our own.
    unsafe {
        let position = call!(libc::SYS_lseek, descriptor, 0, libc::SEEK_CUR);
        call!(libc::SYS_lseek, origin.number(), position, libc::SEEK_SET);
        let flags = call!(libc::SYS_fcntl, descriptor, libc::F_GETFL);
        let kept = if flags > 0 { flags & KEPT } else { 0 };
        call!(libc::SYS_fcntl, origin.number(), libc::F_SETFL, kept);
    }
    replace(descriptor, &origin);
}

/// Whether a command of `fcntl` is about locks or leases.
fn is_about_locks(command: c_int) -> bool {
    matches!(
        command,
        libc::F_GETLK
            | libc::F_SETLK
            | libc::F_SETLKW
            | libc::F_OFD_GETLK
            | libc::F_OFD_SETLK
            | libc::F_OFD_SETLKW
            | libc::F_SETLEASE
            | libc::F_GETLEASE
    )
}

/// Defines the names of `fcntl`. A variadic third argument comes in the same register.
macro_rules! control_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
            if is_about_locks(command) {
                leave_store(descriptor);
            }
            original!(
                fn $name(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int;
                else {
                    // SAFETY: the caller's own arguments.
                    let result = unsafe { call!(libc::SYS_fcntl, descriptor, command, argument) };
                    finish(result) as c_int
                }
            )
        } }
    )*};
}

control_hooks! { fcntl fcntl64 }

/// Defines the names of `lockf`.
macro_rules! lock_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(descriptor: c_int, command: c_int, length: off_t) -> c_int {
            leave_store(descriptor);
            original!(fn $name(descriptor: c_int, command: c_int, length: off_t) -> c_int; or -1)
        } }
    )*};
}

lock_hooks! { lockf lockf64 }

hooks! {
    fn flock(descriptor: c_int, operation: c_int) -> c_int {
        leave_store(descriptor);
        original!(fn flock(descriptor: c_int, operation: c_int) -> c_int; or -1)
    }
}
