//! Lending the core to other threads in place of sleeping, as long as they give it back soon.
//!
//! A thread that is about to be needed again does better to stay awake. But where others want the core
//! for themselves (a program computes on it), the scheduler gives them whole turns of milliseconds, while
//! it would let a thread that has slept go first. So a core that came back late is not lent again for
//! some time.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Whoever gives the core back later wanted it for itself: a helper on the same core needs less for its
/// part of an answer, and the scheduler's turns are longer.
const SOON: Duration = Duration::from_micros(400);
/// How long the core is not lent then.
const PAUSE: Duration = Duration::from_millis(100);

/// Lends the core of the thread that it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Lender {
    paused_until: Option<Instant>,
}

impl Lender {
    /// Whether the core is likely to come back soon.
    pub(crate) fn may_lend(&self) -> bool {
        self.paused_until
            .is_none_or(|until| Instant::now() >= until)
    }

    /// Lends the core to whoever wants it.
    pub(crate) fn lend(&mut self) {
        let lent = Instant::now();
        std::thread::yield_now();
        self.note(lent, Instant::now());
    }

    fn note(&mut self, lent: Instant, back: Instant) {
        let late = back.saturating_duration_since(lent) > SOON;
        self.paused_until = late.then(|| back + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_came_back_late_is_not_lent_again_at_once() {
        let mut lender = Lender::default();
        assert!(lender.may_lend());
        let lent = Instant::now();
        lender.note(lent, lent + SOON);
        assert!(lender.may_lend());
        lender.note(lent, lent + Duration::from_secs(3));
        assert!(!lender.may_lend());
        lender.note(lent, lent + SOON);
        assert!(lender.may_lend());
    }
}
