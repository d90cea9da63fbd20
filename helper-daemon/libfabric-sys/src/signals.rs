//! Undoes what libraries do to signals while they are loaded.
//!
//! Some providers' libraries take over SIGINT, SIGTERM, SIGSEGV and others in a constructor, turn
//! crashes into exits and write files of their own. A process's signals are its own business.

use std::mem::MaybeUninit;

const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// Remembers every signal's disposition; on drop, gives back those that changed meanwhile.
pub(crate) struct SignalGuard {
    before: Vec<(i32, libc::sigaction)>,
}

fn disposition(signal: i32) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: a null new action only asks; the old one is written to `action` on success.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: sigaction succeeded, so it has written the structure.
    (result == 0).then(|| unsafe { action.assume_init() })
}

impl SignalGuard {
    pub(crate) fn new() -> Self {
        Self {
            before: SIGNALS
                .filter_map(|s| disposition(s).map(|d| (s, d)))
                .collect(),
        }
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            let changed = disposition(*signal).is_some_and(|now| {
                now.sa_sigaction != before.sa_sigaction || now.sa_flags != before.sa_flags
            });
            if changed {
                // SAFETY: `before` is a disposition that the kernel itself reported.
                unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
            }
        }
    }
}
