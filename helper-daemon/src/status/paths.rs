//! The paths that a status or a survey names, as JSON and in words.
#![forbid(unsafe_code)]

use crate::journal::{Passed, Reason, Source, What, show_path};
use copper_core::counters::Family;
use copper_core::counters::paths::{End, PERIOD};
use copper_core::tree::Rank;
use copper_core::tree::paths::{Escaped, Hot, Outside, Paths, SlowObject};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Paths that stand out; each list is bounded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct NamedPaths {
    /// Calls are noted with their paths once in so many, so that calls by path are estimates.
    pub(crate) noted_one_in: u64,
    /// Covered paths that programs ask for most.
    pub(crate) hot: Vec<HotCalls>,
    /// Directories that programs look into and that are not covered.
    pub(crate) uncovered: Vec<Directory>,
    /// Objects that took longest to come.
    pub(crate) slowest: Vec<SlowPath>,
    /// What was left to the origin.
    pub(crate) left: Vec<Left>,
}

/// A covered path, with estimates of how calls on it were answered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct HotCalls {
    /// It, on the origin.
    pub(crate) path: String,
    /// At once.
    pub(crate) hit: u64,
    /// At once: there is no such name.
    pub(crate) absent: u64,
    /// After a question to the helper.
    pub(crate) asked: u64,
    /// By the origin.
    pub(crate) passed: u64,
}

/// A directory that is not covered, with estimates of the calls in it and below it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Directory {
    /// It.
    pub(crate) path: String,
    /// Calls, by family; those that were made.
    pub(crate) families: BTreeMap<String, u64>,
}

/// An object that programs waited for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SlowPath {
    /// It, on the origin.
    pub(crate) path: String,
    /// What it is.
    pub(crate) what: What,
    /// Where it came from.
    pub(crate) from: Source,
    /// The node where it took so long, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// When it was first asked for, in milliseconds since 1970.
    pub(crate) asked_at_unix_ms: f64,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: f64,
    /// Its length, in bytes.
    pub(crate) bytes: u64,
}

/// A path that was left to the origin.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Left {
    /// It.
    pub(crate) path: String,
    /// Why; nothing where helpers of another version know a reason more.
    pub(crate) why: Option<Reason>,
    /// How often a helper said so.
    pub(crate) times: u64,
    /// Its length, in bytes, where it is a file.
    pub(crate) bytes: u64,
}

impl NamedPaths {
    /// The same with names; `host` gives that of a node.
    pub(crate) fn of(paths: &Paths, host: impl Fn(Rank) -> Option<String>) -> NamedPaths {
        NamedPaths {
            noted_one_in: PERIOD,
            hot: paths.hot.iter().map(HotCalls::of).collect(),
            uncovered: paths.outside.iter().map(Directory::of).collect(),
            slowest: paths
                .slow
                .iter()
                .map(|slow| SlowPath::of(slow, host(slow.rank)))
                .collect(),
            left: paths.escaped.iter().map(Left::of).collect(),
        }
    }

    /// Adds another node's.
    pub(crate) fn add(&mut self, other: &NamedPaths) {
        self.noted_one_in = self.noted_one_in.max(other.noted_one_in);
        for one in &other.hot {
            match self.hot.iter_mut().find(|known| known.path == one.path) {
                Some(known) => known.add(one),
                None => self.hot.push(one.clone()),
            }
        }
        self.hot.sort_by_key(|one| Reverse(one.calls()));
        for one in &other.uncovered {
            let mut known = self.uncovered.iter_mut();
            match known.find(|known| known.path == one.path) {
                Some(known) => known.add(one),
                None => self.uncovered.push(one.clone()),
            }
        }
        self.uncovered.sort_by_key(|one| Reverse(one.calls()));
        self.slowest.extend_from_slice(&other.slowest);
        self.left.extend_from_slice(&other.left);
    }

    /// For people; nothing where nothing was noted.
    pub(crate) fn describe(&self) -> String {
        const SHOWN: usize = 3;
        let mut lines = Vec::new();
        let list = |named: Vec<String>| named.join(", ");
        if !self.hot.is_empty() {
            let hot = self.hot.iter().take(SHOWN);
            let hot = hot.map(|hot| format!("{} (about {})", hot.path, about(hot.calls())));
            lines.push(format!("hot       {}", list(hot.collect())));
        }
        if !self.uncovered.is_empty() {
            let outside = self.uncovered.iter().take(SHOWN);
            let outside = outside.map(|one| format!("{} (about {})", one.path, about(one.calls())));
            lines.push(format!("uncovered {}", list(outside.collect())));
        }
        lines.join("\n")
    }
}

impl HotCalls {
    fn of(hot: &Hot) -> HotCalls {
        let of = |end: End| hot.ends[end as usize];
        HotCalls {
            path: show_path(&hot.path),
            hit: of(End::Hit),
            absent: of(End::Absent),
            asked: of(End::Asked),
            passed: of(End::TooLarge).saturating_add(of(End::Passed)),
        }
    }

    fn add(&mut self, other: &HotCalls) {
        let pairs = [
            (&mut self.hit, other.hit),
            (&mut self.absent, other.absent),
            (&mut self.asked, other.asked),
            (&mut self.passed, other.passed),
        ];
        for (mine, theirs) in pairs {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// All calls.
    pub(crate) fn calls(&self) -> u64 {
        let counts = [self.hit, self.absent, self.asked, self.passed];
        counts.into_iter().fold(0, u64::saturating_add)
    }
}

impl Directory {
    fn of(outside: &Outside) -> Directory {
        let families = Family::ALL.into_iter();
        let made = families.map(|family| (family.name().to_owned(), outside.of(family)));
        Directory {
            path: show_path(&outside.path),
            families: made.filter(|(_, calls)| *calls > 0).collect(),
        }
    }

    /// Adds the calls of another.
    pub(crate) fn add(&mut self, other: &Directory) {
        for (family, calls) in &other.families {
            let sum = self.families.entry(family.clone()).or_default();
            *sum = sum.saturating_add(*calls);
        }
    }

    /// All calls.
    pub(crate) fn calls(&self) -> u64 {
        self.families.values().copied().fold(0, u64::saturating_add)
    }
}

impl SlowPath {
    fn of(slow: &SlowObject, host: Option<String>) -> SlowPath {
        SlowPath {
            path: show_path(&slow.path),
            what: slow.kind.into(),
            from: match slow.from_origin {
                true => Source::Origin,
                false => Source::Tree,
            },
            host,
            asked_at_unix_ms: slow.asked_at as f64 / 1e3,
            took_ms: slow.took as f64 / 1e3,
            bytes: slow.bytes,
        }
    }
}

impl Left {
    fn of(escaped: &Escaped) -> Left {
        Left {
            path: show_path(&escaped.path),
            why: Reason::from_number(escaped.why),
            times: escaped.times,
            bytes: escaped.bytes,
        }
    }

    /// The same as a journal has it; nothing where the reason is not known.
    pub(crate) fn passed(&self) -> Option<Passed> {
        Some(Passed {
            path: self.path.clone(),
            why: self.why?,
            times: self.times,
            bytes: self.bytes,
        })
    }
}

/// An estimate, rounded to two digits.
pub(crate) fn about(estimate: u64) -> u64 {
    let digits = estimate.max(1).ilog10();
    let unit = 10_u64.pow(digits.saturating_sub(1));
    estimate.saturating_add(unit / 2) / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_have_two_digits() {
        assert_eq!(
            [0, 7, 64, 1216, 1250, 99_999].map(about),
            [0, 7, 64, 1200, 1300, 100_000]
        );
        assert!(about(u64::MAX) > u64::MAX / 2);
    }

    #[test]
    fn nothing_noted_is_not_spoken_of() {
        assert_eq!(NamedPaths::default().describe(), "");
    }
}
