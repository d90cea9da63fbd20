//! When the event loop looks for the next question instead of sleeping.
//!
//! A program that starts asks hundreds of questions, one after the other. A core that went idle
//! between two of them takes longer to wake than the answer takes to find, so while questions come
//! in quick succession the loop only lets other threads run, and does not sleep.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// Questions that come no farther apart are a burst; so long the loop looks for the next one.
const GAP: Duration = Duration::from_millis(2);
/// So many questions in quick succession are none yet.
const FIRST: u32 = 3;

/// What is known of the succession of questions.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    last: Option<Instant>,
    length: u32,
}

impl Bursts {
    /// Notes a question or an answer that was sent.
    pub(super) fn note(&mut self, now: Instant) {
        self.length = match self.is_recent(now) {
            true => self.length.saturating_add(1),
            false => 0,
        };
        self.last = Some(now);
    }

    /// Whether the next question is to be expected at once.
    pub(super) fn goes_on(&mut self) -> bool {
        if self.length < FIRST {
            return false;
        }
        let goes_on = self.is_recent(Instant::now());
        if !goes_on {
            self.length = 0;
        }
        goes_on
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) < GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_begins_after_some_questions_and_ends_with_a_pause() {
        let mut bursts = Bursts::default();
        let begin = Instant::now() + Duration::from_secs(1);
        assert!(!bursts.goes_on());
        for question in 0..=FIRST {
            assert!(!bursts.goes_on());
            bursts.note(begin + question * GAP / 2);
        }
        assert!(bursts.goes_on());
        bursts.note(begin + Duration::from_secs(1));
        assert!(!bursts.goes_on());
    }
}
