//! The counts of programs' calls in a status, read from its JSON: for the profile, the report and
//! `copper top`, which take whatever families and outcomes a helper counts.
#![forbid(unsafe_code)]

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How the calls of one family ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Outcomes {
    /// Answered from the catalog or the store.
    pub(crate) hit: u64,
    /// Answered that there is no such name.
    pub(crate) absent: u64,
    /// Answered after the helper had been asked.
    pub(crate) asked: u64,
    /// Left to the origin, by reason.
    pub(crate) passed: BTreeMap<String, u64>,
}

/// The reason of calls that Copper was never to answer.
const UNCOVERED: &str = "uncovered";

impl Outcomes {
    /// Calls on covered paths that were left to the origin.
    pub(crate) fn escaped(&self) -> u64 {
        let all = self.passed.iter();
        all.filter(|(why, _)| *why != UNCOVERED)
            .map(|(_, count)| count)
            .sum()
    }

    /// Calls on paths that are not covered, where they are counted.
    pub(crate) fn uncovered(&self) -> u64 {
        self.passed.get(UNCOVERED).copied().unwrap_or(0)
    }

    /// Calls on covered paths.
    pub(crate) fn covered(&self) -> u64 {
        self.hit + self.absent + self.asked + self.escaped()
    }

    /// Adds other counts.
    pub(crate) fn add(&mut self, other: &Outcomes) {
        self.hit += other.hit;
        self.absent += other.absent;
        self.asked += other.asked;
        for (why, count) in &other.passed {
            *self.passed.entry(why.clone()).or_default() += count;
        }
    }
}

/// The calls of all programs of a node, or of all nodes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Calls {
    /// Processes that have used Copper.
    pub(crate) processes: u64,
    /// Of these, those that run.
    pub(crate) running: u64,
    /// By family of calls.
    pub(crate) families: BTreeMap<String, Outcomes>,
    /// Sizes of the files that were opened from the store.
    pub(crate) bytes_served: u64,
    /// Waits for the helper: `waits[i]` took from 2^i to 2^(i+1) microseconds.
    pub(crate) waits: Vec<u64>,
}

impl Calls {
    /// The counts in a status or a survey; none where there are none.
    pub(crate) fn of(status: &Value) -> Option<Calls> {
        let calls = status.get("calls")?;
        Calls::deserialize(calls).ok()
    }

    /// All families together.
    pub(crate) fn total(&self) -> Outcomes {
        let mut total = Outcomes::default();
        self.families.values().for_each(|one| total.add(one));
        total
    }

    /// The part of calls on covered paths that programs were answered without asking anybody, in
    /// percent; none where nothing was called.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        let total = self.total();
        let covered = total.covered();
        (covered > 0).then(|| 100.0 * (total.hit + total.absent) as f64 / covered as f64)
    }
}

/// A number in a status; 0 where there is none.
pub(crate) fn number(status: &Value, pointer: &str) -> u64 {
    let found = status.pointer(pointer);
    found.and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_leave_out_what_is_not_covered() {
        let status = json!({"calls": {"processes": 2, "families": {
            "stat": {"hit": 70, "absent": 20, "asked": 5, "passed": {"uncovered": 900, "unknown": 5}},
            "new": {"hit": 0}}}});
        let calls = Calls::of(&status).unwrap();
        assert_eq!(calls.hit_rate(), Some(90.0));
        assert_eq!(
            (calls.total().escaped(), calls.total().uncovered()),
            (5, 900)
        );
        assert!(Calls::of(&json!({})).is_none());
        assert_eq!(Calls::default().hit_rate(), None);
    }
}
