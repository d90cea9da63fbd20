//! When a thread that waits for another may lend its core in place of sleeping; decided alike by programs
//! that wait for the helper and by the helper that waits for the next question.
//!
//! A thread that is about to be needed again does better to stay awake. But where others want the core
//! for themselves (a program computes on it), the scheduler gives them whole turns of milliseconds, while
//! it would let a thread that has slept go first. So a core that keeps coming back late is not lent again
//! for some time.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Whoever gives the core back later wanted it for itself, in nanoseconds: programs and helpers need less
/// for their parts of an answer, and the scheduler's turns are longer.
const SOON: u64 = 1_500_000;
/// So often in succession it must have come back late: once may be a file that is being copied.
const OFTEN: u32 = 2;
/// How long the core is not lent then, in nanoseconds.
const PAUSE: u64 = 50_000_000;

/// How lending the core has gone. Times are nanoseconds on any clock that only rises; threads may share it.
#[derive(Debug, Default)]
pub struct Lending {
    late: AtomicU32,
    paused_until: AtomicU64,
}

impl Lending {
    /// Nothing was lent yet.
    pub const fn new() -> Lending {
        Lending {
            late: AtomicU32::new(0),
            paused_until: AtomicU64::new(0),
        }
    }

    /// Whether the core is likely to come back soon.
    pub fn may_lend(&self, now: u64) -> bool {
        now >= self.paused_until.load(Ordering::Relaxed)
    }

    /// Notes when the core was lent and when it came back.
    pub fn note(&self, lent: u64, back: u64) {
        if back.saturating_sub(lent) <= SOON {
            self.late.store(0, Ordering::Relaxed);
            self.paused_until.store(0, Ordering::Relaxed);
        } else if self.late.load(Ordering::Relaxed) + 1 < OFTEN {
            self.late.fetch_add(1, Ordering::Relaxed);
        } else {
            self.paused_until.store(back + PAUSE, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_keeps_coming_back_late_is_not_lent_again_at_once() {
        let lending = Lending::new();
        let late = |lent: u64| lent + 3_000_000_000;
        for _ in 1..OFTEN {
            lending.note(0, late(0));
            assert!(lending.may_lend(late(0)));
        }
        lending.note(0, SOON);
        for _ in 1..OFTEN {
            lending.note(0, late(0));
            assert!(lending.may_lend(late(0)));
        }
        lending.note(0, late(0));
        assert!(!lending.may_lend(late(0)));
        let over = late(0) + PAUSE;
        assert!(!lending.may_lend(over - 1));
        assert!(lending.may_lend(over));
        // Tried once more after the pause, it may be late again.
        lending.note(over, late(over));
        assert!(!lending.may_lend(late(over)));
        lending.note(late(over) + PAUSE, late(over) + PAUSE + SOON);
        assert!(lending.may_lend(late(over) + PAUSE + SOON));
    }
}
