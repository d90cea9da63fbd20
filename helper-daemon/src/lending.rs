//! Lending the core to other threads in place of sleeping, as long as they give it back soon.
//!
//! A thread that is about to be needed again does better to stay awake. But where others want the core
//! for themselves (a program computes on it), the scheduler gives them whole turns of milliseconds, while
//! it would let a thread that has slept go first. So a core that came back late is not lent again for
//! some time.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Whoever gives the core back later wanted it for itself: programs and other helpers need less for their
/// parts of an answer, and the scheduler's turns are longer.
const SOON: Duration = Duration::from_micros(1500);
/// So often in succession it must have come back late: once may be a file that is being copied.
const OFTEN: u32 = 2;
/// How long the core is not lent then.
const PAUSE: Duration = Duration::from_millis(50);

/// Lends the core of the thread that it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Lender {
    late: u32,
    paused_until: Option<Instant>,
}

impl Lender {
    /// Whether the core is likely to come back soon.
    pub(crate) fn may_lend(&self) -> bool {
        self.paused_until
            .is_none_or(|until| Instant::now() >= until)
    }

    /// Lends the core to whoever wants it. Those who work for this thread may take as long as they need.
    pub(crate) fn lend(&mut self, to_own_workers: bool) {
        let lent = Instant::now();
        std::thread::yield_now();
        if !to_own_workers {
            self.note(lent, Instant::now());
        }
    }

    fn note(&mut self, lent: Instant, back: Instant) {
        self.paused_until = None;
        if back.saturating_duration_since(lent) <= SOON {
            self.late = 0;
        } else if self.late + 1 < OFTEN {
            self.late += 1;
        } else {
            self.paused_until = Some(back + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_keeps_coming_back_late_is_not_lent_again_at_once() {
        let mut lender = Lender::default();
        let lent = Instant::now();
        let (soon, late) = (lent + SOON, lent + Duration::from_secs(3));
        for _ in 1..OFTEN {
            lender.note(lent, late);
            assert!(lender.may_lend());
        }
        lender.note(lent, soon);
        for _ in 1..OFTEN {
            lender.note(lent, late);
            assert!(lender.may_lend());
        }
        lender.note(lent, late);
        assert!(!lender.may_lend());
        // Tried once more after the pause, it may be late again.
        lender.note(lent, late);
        assert!(!lender.may_lend());
        lender.note(lent, soon);
        assert!(lender.may_lend());
    }
}
