//! Signals, taken synchronously: as a descriptor by the helper, one by one by `copper run`.

use anyhow::{Context, Result};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The set of these signals.
    pub(crate) fn of(signals: &[i32]) -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set, which sigaddset then changes.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            SignalSet(set.assume_init())
        }
    }

    /// Blocks these signals in this thread; returns those that were blocked before.
    pub(crate) fn block(&self) -> io::Result<SignalSet> {
        let mut before = SignalSet::of(&[]);
        // SAFETY: both sets are initialised and live for the call.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &self.0, &mut before.0) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(before)
    }

    /// Makes these the blocked signals of this thread. May be called between fork and exec.
    pub(crate) fn set_blocked(&self) -> io::Result<()> {
        // SAFETY: the set is initialised; pthread_sigmask is async-signal-safe.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(())
    }

    /// Waits for one of these signals, which must be blocked.
    pub(crate) fn wait(&self) -> io::Result<Received> {
        let mut information = MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: the set is initialised and the information has room for one signal.
        let signal = unsafe { libc::sigwaitinfo(&self.0, information.as_mut_ptr()) };
        if signal < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: sigwaitinfo has filled it.
        let information = unsafe { information.assume_init() };
        Ok(Received {
            signal,
            by_kernel: information.si_code > 0,
        })
    }
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Its number.
    pub(crate) signal: i32,
    /// It was sent by the kernel (a terminal sends to the whole foreground group) and not by a
    /// process.
    pub(crate) by_kernel: bool,
}

/// Lets the helper take the signals that end it from a descriptor, and ignore those that must
/// not: the end of its terminal, and a writer that waits for the helper's lease.
pub(crate) fn block_for_helper() -> Result<OwnedFd> {
    for ignored in [libc::SIGHUP, libc::SIGIO, libc::SIGXFSZ] {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(ignored, libc::SIG_IGN) };
    }
    let ending = SignalSet::of(&[libc::SIGTERM, libc::SIGINT]);
    ending.block().context("cannot block signals")?;
    // SAFETY: the set is initialised; a new descriptor is asked for.
    let descriptor =
        unsafe { libc::signalfd(-1, &ending.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error()).context("cannot watch signals");
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Stops this process, as a terminal's stop signal would have.
pub(crate) fn stop_self() {
    // SAFETY: raise takes a number.
    unsafe { libc::raise(libc::SIGSTOP) };
}
