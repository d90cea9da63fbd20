//! How much came when, in a fixed number of steps that grow with the helper's age.
#![forbid(unsafe_code)]

use super::Source;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most steps that are kept.
const STEPS: usize = 512;
/// How long a step is at first, in milliseconds.
const FIRST_STEP_MS: u64 = 10;

/// What came within one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Step {
    /// Objects from the origin.
    pub(crate) origin: u64,
    /// Their bytes.
    pub(crate) origin_bytes: u64,
    /// Objects from other helpers.
    pub(crate) tree: u64,
    /// Their bytes.
    pub(crate) tree_bytes: u64,
    /// Questions answered from what was known.
    pub(crate) local: u64,
}

impl Step {
    /// Adds what came within another step.
    pub(crate) fn add(&mut self, other: &Step) {
        self.origin += other.origin;
        self.origin_bytes += other.origin_bytes;
        self.tree += other.tree;
        self.tree_bytes += other.tree_bytes;
        self.local += other.local;
    }
}

/// Steps of equal length since the helper's start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Timeline {
    /// Length of a step, in milliseconds.
    pub(crate) step_ms: u64,
    /// The steps; nothing came after the last.
    pub(crate) steps: Vec<Step>,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline {
            step_ms: FIRST_STEP_MS,
            steps: Vec::new(),
        }
    }
}

impl Timeline {
    fn step(&mut self, at: Duration) -> &mut Step {
        let at = at.as_millis() as u64;
        while at / self.step_ms >= STEPS as u64 {
            self.double();
        }
        let position = (at / self.step_ms) as usize;
        if position >= self.steps.len() {
            self.steps.resize(position + 1, Step::default());
        }
        &mut self.steps[position]
    }

    fn double(&mut self) {
        let pairs = self.steps.chunks(2).map(|pair| {
            let mut sum = pair[0];
            pair[1..].iter().for_each(|step| sum.add(step));
            sum
        });
        self.steps = pairs.collect();
        self.step_ms *= 2;
    }

    /// Notes an object that came `at` a time after the start.
    pub(super) fn note(&mut self, at: Duration, from: Source, bytes: u64) {
        let step = self.step(at);
        match from {
            Source::Origin => {
                step.origin += 1;
                step.origin_bytes += bytes;
            }
            Source::Tree => {
                step.tree += 1;
                step.tree_bytes += bytes;
            }
        }
    }

    /// Notes a question that was answered from what was known.
    pub(super) fn note_local(&mut self, at: Duration) {
        self.step(at).local += 1;
    }

    /// Objects from the origin and from the tree, and questions answered from what was known.
    #[cfg(test)]
    pub(super) fn totals(&self) -> [u64; 3] {
        let mut sum = Step::default();
        self.steps.iter().for_each(|step| sum.add(step));
        [sum.origin, sum.tree, sum.local]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_takes_no_more_steps() {
        let mut timeline = Timeline::default();
        for second in 0..10_000 {
            timeline.note(Duration::from_secs(second), Source::Origin, 3);
            timeline.note_local(Duration::from_secs(second));
        }
        assert!(timeline.steps.len() <= STEPS, "{}", timeline.steps.len());
        assert_eq!(timeline.totals(), [10_000, 0, 10_000]);
        let bytes: u64 = timeline.steps.iter().map(|step| step.origin_bytes).sum();
        assert_eq!(bytes, 30_000);
        let covered = timeline.step_ms * timeline.steps.len() as u64;
        assert!(covered >= 9_999_000, "{covered} ms");
    }
}
