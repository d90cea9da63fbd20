//! What helpers said at one time, and what became of it since the time before.
#![forbid(unsafe_code)]

use crate::calls::Ends;
use crate::commands;
use crate::job::Job;
use crate::runtime::Runtime;
use crate::status::{Calls, OriginCounts, Served, SlowNode, Status, Survey};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::VecDeque;
use std::time::Instant;

/// Rates that are kept: as many as the widest terminal has columns.
const KEPT: usize = 400;

/// What was said at one time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Of whom.
    pub(super) title: String,
    pub(super) nodes: u32,
    pub(super) ready: u32,
    /// Names of nodes that did not answer.
    pub(super) missing: Vec<String>,
    pub(super) calls: Calls,
    pub(super) origin: OriginCounts,
    pub(super) served: Served,
    pub(super) questions: u64,
    pub(super) passed_through: u64,
    pub(super) files: u64,
    pub(super) store_bytes: u64,
    pub(super) budget_bytes: u64,
    pub(super) slowest: Vec<SlowNode>,
}

impl Sample {
    /// Asks this node's helper or, in a job of several nodes, all of them.
    pub(super) fn ask(runtime: &Runtime, job: Option<&Job>) -> Result<Sample> {
        let Some(job) = job else {
            let (status, _) = commands::ask_status(runtime)?.context(commands::NO_HELPER)?;
            return Ok(Sample::of_node(status));
        };
        let value = commands::survey_of_all(runtime, job)?;
        let survey = Survey::deserialize(&value)?;
        let missing = value["missing_hosts"].as_array().map(Vec::as_slice);
        let missing = missing.unwrap_or_default().iter();
        let missing = missing.filter_map(|host| host.as_str().map(str::to_owned));
        Ok(Sample::of_all(survey, missing.collect()))
    }

    /// Of one node.
    pub(super) fn of_node(status: Status) -> Sample {
        Sample {
            at: Instant::now(),
            title: format!("copper {} pid {}", status.version, status.pid),
            nodes: 1,
            ready: 1,
            missing: Vec::new(),
            calls: status.calls,
            origin: status.origin,
            served: status.served,
            questions: status.asked.total,
            passed_through: status.asked.passed_through,
            files: status.cached.files,
            store_bytes: status.memory.store_bytes,
            budget_bytes: status.memory.budget_bytes,
            slowest: Vec::new(),
        }
    }

    /// Of all nodes.
    pub(super) fn of_all(survey: Survey, missing: Vec<String>) -> Sample {
        Sample {
            at: Instant::now(),
            title: format!("copper on {} nodes", survey.nodes),
            nodes: survey.nodes,
            ready: survey.ready,
            missing,
            calls: survey.calls,
            origin: survey.origin,
            served: survey.served,
            questions: survey.questions,
            passed_through: survey.passed_through,
            files: survey.cached.files,
            store_bytes: survey.memory.store_bytes,
            budget_bytes: survey.memory.budget_bytes,
            slowest: survey.slowest,
        }
    }

    fn origin_operations(&self) -> u64 {
        let origin = &self.origin;
        origin.stats + origin.listings + origin.opens + origin.readlinks
    }
}

/// What was done per second between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Calls of programs on covered paths.
    pub(super) calls: f64,
    /// Questions to helpers.
    pub(super) questions: f64,
    /// Operations on the origin.
    pub(super) origin: f64,
    /// Bytes read from the origin.
    pub(super) origin_bytes: f64,
    /// Bytes sent from node to node.
    pub(super) tree_bytes: f64,
}

/// The last sample, and the rates before it.
#[derive(Debug)]
pub(super) struct History {
    pub(super) last: Sample,
    /// The oldest first.
    pub(super) rates: VecDeque<Rates>,
    /// Why there is nothing new.
    pub(super) trouble: Option<String>,
    pub(super) paused: bool,
}

impl History {
    /// With the first sample.
    pub(super) fn new(first: Sample) -> History {
        History {
            last: first,
            rates: VecDeque::new(),
            trouble: None,
            paused: false,
        }
    }

    /// Takes a sample, or why there is none; says whether there is something new to show.
    pub(super) fn take(&mut self, sample: Result<Sample>) -> bool {
        if self.paused {
            return false;
        }
        match sample {
            Ok(sample) => {
                if self.rates.len() == KEPT {
                    self.rates.pop_front();
                }
                self.rates.push_back(rates(&self.last, &sample));
                self.last = sample;
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
        true
    }

    /// Stops to show what is new, or goes on.
    pub(super) fn toggle_pause(&mut self) {
        self.paused = !self.paused;
    }
}

fn rates(before: &Sample, now: &Sample) -> Rates {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    let rate = |of: &dyn Fn(&Sample) -> u64| {
        let more = of(now).saturating_sub(of(before));
        more as f64 / seconds.max(0.001)
    };
    Rates {
        calls: rate(&|sample| Ends::of_all(&sample.calls).covered()),
        questions: rate(&|sample| sample.questions),
        origin: rate(&Sample::origin_operations),
        origin_bytes: rate(&|sample| sample.origin.bytes_read),
        tree_bytes: rate(&|sample| sample.served.bytes_from_tree),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_differences_over_time() {
        let first = Sample::of_node(Status::default());
        let mut second = first.clone();
        second.at = first.at + Duration::from_secs(2);
        second.questions = 10;
        second.origin.bytes_read = 4096;
        let mut third = second.clone();
        third.at = second.at + Duration::from_secs(1);
        // A helper that was started anew counts from 0.
        third.questions = 0;
        let mut history = History::new(first);
        assert!(history.take(Ok(second)));
        assert!(history.take(Ok(third)));
        let questions: Vec<f64> = history.rates.iter().map(|rates| rates.questions).collect();
        assert_eq!(questions, [5.0, 0.0]);
        assert_eq!(history.rates[0].origin_bytes, 2048.0);
    }

    #[test]
    fn a_pause_keeps_what_is_shown() {
        let mut history = History::new(Sample::of_node(Status::default()));
        history.toggle_pause();
        let mut later = history.last.clone();
        later.questions = 7;
        assert!(!history.take(Ok(later)));
        assert_eq!(history.last.questions, 0);
    }
}
