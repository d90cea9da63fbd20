//! System calls without libc: no errno, no cancellation, no hook of ours or of others on the way.
//!
//! A result in -4095..0 is a negated error number, as the kernel gives it.

use core::ffi::c_int;
use core::ffi::c_long;

/// A raw system call with six arguments.
///
/// # Safety
/// The arguments must be what the kernel expects of the call.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn call6(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention; rcx and r11 are clobbered by `syscall`.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A raw system call with six arguments.
///
/// # Safety
/// The arguments must be what the kernel expects of the call.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(crate) unsafe fn call6(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention.
    unsafe {
        core::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// A raw system call; missing arguments are 0.
macro_rules! call {
    ($number:expr) => { $crate::sys::call6($number, 0, 0, 0, 0, 0, 0) };
    ($number:expr, $a:expr) => { $crate::sys::call6($number, $a as usize, 0, 0, 0, 0, 0) };
    ($number:expr, $a:expr, $b:expr) => {
        $crate::sys::call6($number, $a as usize, $b as usize, 0, 0, 0, 0)
    };
    ($number:expr, $a:expr, $b:expr, $c:expr) => {
        $crate::sys::call6($number, $a as usize, $b as usize, $c as usize, 0, 0, 0)
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::sys::call6($number, $a as usize, $b as usize, $c as usize, $d as usize, 0, 0)
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::sys::call6(
            $number, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, 0,
        )
    };
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::sys::call6(
            $number, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize,
        )
    };
}
pub(crate) use call;

/// An address that tells the calling thread from all others of its process.
#[inline(always)]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the first word of a thread's control block is its own address.
    unsafe {
        core::arch::asm!("mov {}, fs:0", out(reg) pointer,
            options(nostack, pure, readonly, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer,
            options(nostack, pure, nomem, preserves_flags));
    }
    pointer
}

/// A descriptor of our own, closed when it goes.
pub(crate) struct Descriptor(c_int);

impl Descriptor {
    /// Takes a system call's result as a new descriptor.
    pub(crate) fn from_result(result: isize) -> Option<Descriptor> {
        (result >= 0).then(|| Descriptor(result as c_int))
    }

    /// Its number.
    pub(crate) fn number(&self) -> c_int {
        self.0
    }

    /// Its number, now the caller's to close.
    pub(crate) fn release(self) -> c_int {
        let number = self.0;
        core::mem::forget(self);
        number
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { call!(libc::SYS_close, self.0) };
    }
}

/// `openat(2)` on a NUL-terminated path, close-on-exec.
pub(crate) fn open(path: *const u8, flags: c_int) -> Option<Descriptor> {
    // SAFETY: callers give NUL-terminated paths.
    let result = unsafe {
        call!(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path,
            flags | libc::O_CLOEXEC,
            0
        )
    };
    Descriptor::from_result(result)
}

/// `fstat(2)`; `None` where the descriptor is not open.
pub(crate) fn fstat(descriptor: c_int) -> Option<libc::stat> {
    let mut out = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills `out`, which is large enough; it is zeroed besides.
    unsafe {
        let result = call!(libc::SYS_fstat, descriptor, out.as_mut_ptr());
        (result == 0).then(|| out.assume_init())
    }
}

/// `newfstatat(2)` on a NUL-terminated path; the error's number where it fails.
pub(crate) fn stat_at(
    directory: c_int,
    path: *const core::ffi::c_char,
    flags: c_int,
) -> Result<libc::stat, c_int> {
    let mut out = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: callers give NUL-terminated paths; the kernel fills `out`, which is zeroed besides.
    unsafe {
        match call!(
            libc::SYS_newfstatat,
            directory,
            path,
            out.as_mut_ptr(),
            flags
        ) {
            0 => Ok(out.assume_init()),
            error => Err(-error as c_int),
        }
    }
}

/// New zeroed memory of the process's own.
pub(crate) fn anonymous(length: usize) -> Option<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let base = unsafe { call!(libc::SYS_mmap, 0, length, protection, flags, -1isize, 0) };
    (base > 0).then_some(base as *mut u8)
}

/// Sets the calling thread's errno and returns -1, as libc functions do.
pub(crate) fn fail(errno: c_int) -> c_int {
    // SAFETY: libc's errno is valid in every thread.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    // SAFETY: libc's errno is valid in every thread.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(errno: c_int) {
    fail(errno);
}

/// Turns a raw result into libc's convention.
pub(crate) fn finish(result: isize) -> isize {
    if (-4095..0).contains(&result) {
        fail(-result as c_int) as isize
    } else {
        result
    }
}
