//! One hook that passes straight through, in two ways: as the shim's macro defines it, and with
//! `redhook`. It stands before `sched_getcpu`, which makes no system call, so that what is measured is
//! the hook.
use std::ffi::c_int;

#[cfg(feature = "redhook")]
redhook::hook! {
    unsafe fn sched_getcpu() -> c_int => through {
        unsafe { redhook::real!(sched_getcpu)() }
    }
}

#[cfg(not(feature = "redhook"))]
mod plain {
    use super::c_int;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static NEXT: AtomicUsize = AtomicUsize::new(0);

    /// # Safety
    /// As libc's function of this name.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn sched_getcpu() -> c_int {
        let mut next = NEXT.load(Ordering::Acquire);
        if next == 0 {
            // SAFETY: the name is NUL-terminated.
            next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"sched_getcpu".as_ptr()) } as usize;
            NEXT.store(next, Ordering::Release);
        }
        // SAFETY: libc's function of this name has this signature.
        let function: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(next) };
        // SAFETY: takes no argument.
        unsafe { function() }
    }
}
