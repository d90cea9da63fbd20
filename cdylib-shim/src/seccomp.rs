//! Filters of system calls that a process gives itself (seccomp). One that ends the process at a call
//! which it would not make without us, as a socket, must not meet such a call of ours: from then on
//! the process goes to the origin and asks nobody. Filters that only refuse calls change nothing.

use crate::ask;
use crate::original::{hooks, original};
use crate::session;
use crate::sys::{call, finish};
use core::ffi::{c_int, c_long, c_ulong};

/// The classes and forms of a filter's instructions that say what becomes of a call.
const RETURN: u16 = 0x06;
const CLASS: u16 = 0x07;
const RETURNED: u16 = 0x18;
const CONSTANT: u16 = 0x00;

/// What a filter may say that leaves the process as it is.
const HARMLESS: [u32; 3] = [
    libc::SECCOMP_RET_ALLOW,
    libc::SECCOMP_RET_LOG,
    libc::SECCOMP_RET_ERRNO,
];

/// Whether an instruction of a filter may end the process, or hand the call to somebody else.
fn may_harm(instruction: &libc::sock_filter) -> bool {
    if instruction.code & CLASS != RETURN {
        return false;
    }
    let is_constant = instruction.code & RETURNED == CONSTANT;
    !is_constant || !HARMLESS.contains(&(instruction.k & libc::SECCOMP_RET_ACTION_FULL))
}

/// After the process has taken a filter.
fn filtered(instructions: &[libc::sock_filter]) {
    if instructions.iter().any(may_harm) {
        stay_away();
    }
}

/// Makes no call any more that the program does not make.
fn stay_away() {
    session::switch_off();
    ask::give_up();
}

/// The instructions of a filter that the kernel has accepted.
///
/// # Safety
/// `program` is what the kernel was given.
unsafe fn instructions<'p>(program: usize) -> &'p [libc::sock_filter] {
    let program = program as *const libc::sock_fprog;
    // SAFETY: the kernel has just read all of it.
    unsafe { core::slice::from_raw_parts((*program).filter, usize::from((*program).len)) }
}

/// `seccomp`, which libc has no function for.
///
/// # Safety
/// As the system call.
pub(crate) unsafe fn seccomp(operation: usize, flags: usize, arguments: usize) -> c_long {
    // SAFETY: the caller's own arguments.
    let result = finish(unsafe { call!(libc::SYS_seccomp, operation, flags, arguments) });
    if result >= 0 {
        match operation as u32 {
            libc::SECCOMP_SET_MODE_STRICT => stay_away(),
            // SAFETY: the kernel has accepted the filter.
            libc::SECCOMP_SET_MODE_FILTER => filtered(unsafe { instructions(arguments) }),
            _ => {}
        }
    }
    result as c_long
}

hooks! {
    // The variadic arguments come in the same registers.
    fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
        let result = original!(
            fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
            else {
                // SAFETY: the caller's own arguments.
                finish(unsafe { call!(libc::SYS_prctl, option, a, b, c, d) }) as c_int
            }
        );
        if result == 0 && option == libc::PR_SET_SECCOMP {
            match a as u32 {
                libc::SECCOMP_MODE_STRICT => stay_away(),
                // SAFETY: the kernel has accepted the filter.
                libc::SECCOMP_MODE_FILTER => filtered(unsafe { instructions(b as usize) }),
                _ => {}
            }
        }
        result
    }
}
