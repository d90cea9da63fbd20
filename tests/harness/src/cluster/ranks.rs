//! The ranks of a job: programs that run at once on the nodes.

use crate::compare::Outcome;
use std::process::Command;
use std::time::{Duration, Instant};

/// How one rank ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it said.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// Longer than any rank may take.
const LIMIT: Duration = Duration::from_secs(100);

/// Runs all commands at once, to their ends; the results are in the commands' order.
///
/// # Panics
/// When one cannot be started or does not end.
pub fn run(commands: Vec<Command>) -> Vec<Ended> {
    run_during(commands, || ())
}

/// As [`run`], while `meanwhile` is done.
///
/// # Panics
/// When one cannot be started or does not end, or `meanwhile` panics.
pub fn run_during(commands: Vec<Command>, meanwhile: impl FnOnce()) -> Vec<Ended> {
    std::thread::scope(|scope| {
        let running: Vec<_> = commands
            .into_iter()
            .map(|mut command| {
                scope.spawn(move || {
                    let start = Instant::now();
                    let outcome = Outcome::within(&mut command, LIMIT);
                    outcome.map(|outcome| Ended {
                        outcome,
                        took: start.elapsed(),
                    })
                })
            })
            .collect();
        meanwhile();
        running
            .into_iter()
            .map(|rank| match rank.join() {
                Ok(ended) => ended.unwrap_or_else(|error| panic!("{error:#}")),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// The longest that one took.
pub fn longest(ended: &[Ended]) -> Duration {
    ended.iter().map(|rank| rank.took).max().unwrap_or_default()
}

/// Fails the test when one rank said something else than `plain`.
///
/// # Panics
/// When one did.
pub fn must_equal(ended: &[Ended], plain: &Outcome, what: &str) {
    for (number, rank) in ended.iter().enumerate() {
        rank.outcome
            .must_equal(plain, &format!("rank {number} of {} {what}", ended.len()));
    }
}
