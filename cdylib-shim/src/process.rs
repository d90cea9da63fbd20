//! What libc keeps of this process: its environment, errno, the clock without a system call.
//!
//! The audit library, which has no libc, has a module of this name with the same functions.

pub(crate) use crate::sys::{errno, set_errno};
use core::ffi::{c_char, c_int};

/// The environment, as the process was given it or has changed it since; null before libc has it.
pub(crate) fn environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: reading the pointer that libc keeps.
    unsafe { environ }
}

/// Whether the program runs on glibc. musl's loader preloads too, and takes its own library for what
/// we need of glibc's, but its structures are others.
pub(crate) fn is_on_glibc() -> bool {
    unsafe extern "C" {
        fn confstr(name: c_int, out: *mut c_char, room: usize) -> usize;
    }
    // SAFETY: asks for the length only.
    unsafe { confstr(libc::_CS_GNU_LIBC_VERSION, core::ptr::null_mut(), 0) != 0 }
}

/// Nanoseconds since some moment in the past.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the vDSO fills `time`; libc's clock_gettime is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
