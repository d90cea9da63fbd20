//! What the profile, the report and `copper top` make of the counts of programs' calls.
#![forbid(unsafe_code)]

use crate::status::{Calls, FamilyCalls};
use serde::Deserialize;
use serde_json::Value;

/// The reason of calls that Copper was never to answer.
const UNCOVERED: &str = "uncovered";

/// How calls ended, of one family or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Answered at once.
    pub(crate) hit: u64,
    /// Answered at once that there is no such name.
    pub(crate) absent: u64,
    /// Answered after a question to the helper.
    pub(crate) asked: u64,
    /// On covered paths, but left to the origin.
    pub(crate) escaped: u64,
    /// On paths that are not covered.
    pub(crate) uncovered: u64,
}

impl Ends {
    /// Of one family.
    pub(crate) fn of(family: &FamilyCalls) -> Ends {
        let escaped = family.passed.iter();
        let escaped = escaped.filter(|(why, _)| *why != UNCOVERED);
        Ends {
            hit: family.hit,
            absent: family.absent,
            asked: family.asked,
            escaped: escaped.map(|(_, count)| count).sum(),
            uncovered: family.passed.get(UNCOVERED).copied().unwrap_or(0),
        }
    }

    /// Of all families.
    pub(crate) fn of_all(calls: &Calls) -> Ends {
        let mut sum = Ends::default();
        for one in calls.families.values().map(Ends::of) {
            sum.hit += one.hit;
            sum.absent += one.absent;
            sum.asked += one.asked;
            sum.escaped += one.escaped;
            sum.uncovered += one.uncovered;
        }
        sum
    }

    /// Calls on covered paths.
    pub(crate) fn covered(&self) -> u64 {
        self.hit + self.absent + self.asked + self.escaped
    }

    /// The part of Copper's answers that took no question to the helper, in percent, as the status
    /// has it; none where there were no answers.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        let at_once = self.hit + self.absent;
        let answered = at_once + self.asked;
        (answered > 0).then(|| 100.0 * at_once as f64 / answered as f64)
    }
}

/// The calls in the JSON of a status or a survey; none where no program was counted.
pub(crate) fn counted(status: &Value) -> Option<Calls> {
    let calls = Calls::deserialize(status.get("calls")?).ok()?;
    (calls.processes > 0 || Ends::of_all(&calls) != Ends::default()).then_some(calls)
}

/// Adds the calls of another node.
pub(crate) fn add(sum: &mut Calls, other: &Calls) {
    sum.processes += other.processes;
    sum.running += other.running;
    sum.bytes_served += other.bytes_served;
    for (name, family) in &other.families {
        let into = sum.families.entry(name.clone()).or_default();
        into.hit += family.hit;
        into.absent += family.absent;
        into.asked += family.asked;
        for (why, count) in &family.passed {
            *into.passed.entry(why.clone()).or_default() += count;
        }
    }
    let buckets = sum.waits.len().max(other.waits.len());
    sum.waits.resize(buckets, 0);
    for (into, count) in sum.waits.iter_mut().zip(&other.waits) {
        *into += count;
    }
    for (what, time) in &other.waited_microseconds {
        *sum.waited_microseconds.entry(what.clone()).or_default() += time;
    }
}

/// A number in the JSON of a status; 0 where there is none.
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
        let status = json!({"calls": {"processes": 2, "waits": [1, 2], "families": {
            "stat": {"hit": 70, "absent": 20, "asked": 10, "passed": {"uncovered": 900, "unknown": 5}},
            "open": {"hit": 0}}}});
        let mut calls = counted(&status).unwrap();
        let ends = Ends::of_all(&calls);
        assert_eq!(ends.hit_rate(), Some(90.0));
        assert_eq!((ends.escaped, ends.uncovered), (5, 900));
        let other = calls.clone();
        add(&mut calls, &other);
        assert_eq!(Ends::of_all(&calls).covered(), 210);
        assert_eq!(calls.waits, [2, 4]);
    }

    #[test]
    fn where_nothing_was_counted_nothing_is_said() {
        assert!(counted(&json!({})).is_none());
        assert!(counted(&json!({"calls": {"processes": 0, "families": {}}})).is_none());
        assert_eq!(Ends::default().hit_rate(), None);
    }
}
