//! What the process was given at its start, and the clock; by system calls, since there is no libc
//! here to keep it.

use crate::session;
use crate::sys::call;
use copper_core::location::{AUDIT_VARIABLE, DISABLE_VARIABLE};
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicPtr, Ordering};

static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(core::ptr::null_mut());
static ENVIRONMENT: AtomicPtr<*const c_char> = AtomicPtr::new(core::ptr::null_mut());

/// The loader gives constructors what it gives `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) = at_load;

unsafe extern "C" fn at_load(
    _: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    ARGUMENTS.store(arguments.cast_mut(), Ordering::Relaxed);
    ENVIRONMENT.store(environment.cast_mut(), Ordering::Relaxed);
}

/// The environment that the process was started with.
pub(crate) fn environment() -> *const *const c_char {
    ENVIRONMENT.load(Ordering::Relaxed)
}

/// Whether the program runs on glibc: only its loader knows audit libraries.
pub(crate) fn is_on_glibc() -> bool {
    true
}

/// Whether the user has switched Copper off for this process.
pub(crate) fn is_disabled() -> bool {
    session::variable(DISABLE_VARIABLE).is_some_and(|value| value == b"1")
}

/// Starts this very program again without the variable `name`; returns where that is not possible.
/// None of the program's own code may have run.
pub(crate) fn start_anew_without(name: &str) {
    let environment = ENVIRONMENT.load(Ordering::Relaxed);
    if environment.is_null() {
        return;
    }
    let is_named = |entry: &CStr| {
        let rest = entry.to_bytes().strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&b'='))
    };
    // SAFETY: the list ends with NULL, its strings with NUL, and what the kernel told the program
    // follows it. It is this process's own, and nobody else looks at it yet.
    unsafe {
        let (mut from, mut to) = (environment, environment);
        while !(*from).is_null() {
            if !is_named(CStr::from_ptr(*from)) {
                *to = *from;
                to = to.add(1);
            }
            from = from.add(1);
        }
        *to = core::ptr::null();
        if let Some(path) = path_of_program(from.add(1).cast()) {
            let arguments = ARGUMENTS.load(Ordering::Relaxed);
            call!(libc::SYS_execve, path, arguments, environment);
        }
    }
}

/// The path by which the kernel was told to start the program, out of what it tells each program.
///
/// # Safety
/// `told` must be the list of pairs behind the environment.
unsafe fn path_of_program(told: *const [usize; 2]) -> Option<*const c_char> {
    let mut at = told;
    // SAFETY: the list ends with a pair that says so.
    unsafe {
        while (*at)[0] != libc::AT_NULL as usize {
            if (*at)[0] == libc::AT_EXECFN as usize {
                return Some((*at)[1] as *const c_char);
            }
            at = at.add(1);
        }
    }
    None
}

/// Whether the user wants this library in any case.
pub(crate) fn is_wanted_at_any_cost() -> bool {
    session::variable(AUDIT_VARIABLE).is_some_and(|value| value == b"on")
}

/// There is no errno here to be kept: system calls are made without libc.
pub(crate) fn errno() -> c_int {
    0
}

/// See [`errno`].
pub(crate) fn set_errno(_: c_int) {}

/// Nanoseconds since some moment in the past.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills `time`.
    unsafe {
        call!(
            libc::SYS_clock_gettime,
            libc::CLOCK_MONOTONIC,
            &raw mut time
        )
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Ends the process as `abort` would, after a broken invariant.
pub(crate) fn end() -> ! {
    loop {
        // SAFETY: a signal to this very thread, and an exit where that is blocked.
        unsafe {
            let (process, thread) = (call!(libc::SYS_getpid), call!(libc::SYS_gettid));
            call!(libc::SYS_tgkill, process, thread, libc::SIGABRT);
            call!(libc::SYS_exit_group, 127);
        }
    }
}

/// Whether this process is still the user that the session was made for.
pub(crate) fn is_user(uid: u32) -> bool {
    // SAFETY: takes no argument and cannot fail.
    unsafe { call!(libc::SYS_geteuid) as u32 == uid }
}
