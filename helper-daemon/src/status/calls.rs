//! What programs asked of the shim and what helpers did for it, as `copper status` says it.
#![forbid(unsafe_code)]

use super::{Cached, Memory, OriginCounts};
use crate::size::show;
use copper_core::counters::{Family, Outcome, QUESTIONS, Totals};
use copper_core::tree::{Counters, Slow, Stock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What programs asked of the shim, the gone ones included.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Calls {
    /// Programs that were counted.
    pub(crate) processes: u64,
    /// Of these, those that run.
    pub(crate) running: u64,
    /// Calls by family.
    pub(crate) families: BTreeMap<String, FamilyCalls>,
    /// Sizes of the files that were opened in the store.
    pub(crate) bytes_served: u64,
    /// Waits for the helper: bucket i counts those of 2^i up to 2^(i+1) microseconds, the first also
    /// shorter and the last also longer ones.
    pub(crate) waits: Vec<u64>,
    /// Microseconds waited, by what was asked.
    pub(crate) waited_microseconds: BTreeMap<String, u64>,
}

/// The sum of counts that any process could have written.
fn total(counts: impl IntoIterator<Item = u64>) -> u64 {
    counts.into_iter().fold(0, u64::saturating_add)
}

/// Calls of one family, by how they were answered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct FamilyCalls {
    /// At once.
    pub(crate) hit: u64,
    /// At once: there is no such file.
    pub(crate) absent: u64,
    /// After a question to the helper.
    pub(crate) asked: u64,
    /// By the origin, by the reason why.
    pub(crate) passed: BTreeMap<String, u64>,
}

impl Calls {
    /// The same with names.
    pub(crate) fn of(totals: &Totals) -> Calls {
        let family = |family: Family| {
            let passed = Outcome::ALL
                .into_iter()
                .filter(|outcome| outcome.is_passed());
            let calls = FamilyCalls {
                hit: totals.of(family, Outcome::Hit),
                absent: totals.of(family, Outcome::Absent),
                asked: totals.of(family, Outcome::Asked),
                passed: passed
                    .map(|why| (why.name().to_owned(), totals.of(family, why)))
                    .collect(),
            };
            (family.name().to_owned(), calls)
        };
        let waited = QUESTIONS.into_iter().map(str::to_owned).zip(totals.waited);
        Calls {
            processes: totals.processes,
            running: totals.running,
            families: Family::ALL.into_iter().map(family).collect(),
            bytes_served: totals.bytes_served,
            waits: totals.waits.to_vec(),
            waited_microseconds: waited.collect(),
        }
    }

    fn sum(&self, what: impl Fn(&FamilyCalls) -> u64) -> u64 {
        total(self.families.values().map(what))
    }

    /// How often programs have waited for the helper.
    pub(crate) fn waits(&self) -> u64 {
        total(self.waits.iter().copied())
    }

    /// How long, in microseconds.
    pub(crate) fn waited(&self) -> u64 {
        total(self.waited_microseconds.values().copied())
    }

    /// Calls that were answered so, of all families.
    fn ended(&self) -> (u64, u64, u64) {
        (
            self.sum(|family| family.hit),
            self.sum(|family| family.absent),
            self.sum(|family| family.asked),
        )
    }

    /// Calls passed to the origin for a reason, of all families.
    fn passed(&self, why: Outcome) -> u64 {
        self.sum(|family| family.passed.get(why.name()).copied().unwrap_or(0))
    }

    /// How long a program waits for the helper in the mean, in microseconds.
    fn mean_wait(&self) -> u64 {
        self.waited() / self.waits().max(1)
    }

    /// For people.
    pub(crate) fn describe(&self, saved: &Saved) -> String {
        let (hit, absent, asked) = self.ended();
        let why = Outcome::ALL.into_iter().filter(|why| why.is_passed());
        let passed: Vec<String> = why
            .map(|why| (why, self.passed(why)))
            .filter(|(_, calls)| *calls > 0)
            .map(|(why, calls)| format!("{calls} {}", why.name().replace('_', " ")))
            .collect();
        let passed = match passed.is_empty() {
            true => "none".to_owned(),
            false => passed.join(", "),
        };
        format!(
            "programs  {} ({} running); {} read\n\
             calls     {hit} hits, {absent} absent, {asked} misses: {:.1} % hit; passed on: {passed}\n\
             waits     {} of {} us in the mean\n\
             saved     {} of {} operations of programs did not reach the origin",
            self.processes,
            self.running,
            show(self.bytes_served),
            saved.hit_rate * 100.0,
            self.waits(),
            self.mean_wait(),
            saved.operations,
            saved.asked,
        )
    }
}

/// What Copper saves the origin.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Saved {
    /// Operations that programs asked for on covered paths.
    pub(crate) asked: u64,
    /// Operations on the origin, by helpers and by calls that were passed on.
    pub(crate) made: u64,
    /// The difference.
    pub(crate) operations: u64,
    /// The part of the answers from catalog and store that took no question to the helper, 0 to 1.
    pub(crate) hit_rate: f64,
}

impl Saved {
    /// What comes of these counts.
    pub(crate) fn of(calls: &Calls, origin: &OriginCounts) -> Saved {
        let (hit, absent, asked) = calls.ended();
        let known = Outcome::ALL.into_iter();
        let passed = known
            .filter(|why| why.is_passed() && *why != Outcome::Uncovered)
            .map(|why| calls.passed(why));
        let passed = total(passed);
        let answered = total([hit, absent, asked]);
        let helpers = origin.stats + origin.listings + origin.opens + origin.readlinks;
        let asked_in_all = answered.saturating_add(passed);
        let made = helpers.saturating_add(passed);
        Saved {
            asked: asked_in_all,
            made,
            operations: asked_in_all.saturating_sub(made),
            hit_rate: hit.saturating_add(absent) as f64 / answered.max(1) as f64,
        }
    }
}

/// What helpers did.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Served {
    /// Bytes read from the origin.
    pub(crate) bytes_from_origin: u64,
    /// Bytes brought from other helpers.
    pub(crate) bytes_from_tree: u64,
    /// Sizes of the files that programs opened in the store.
    pub(crate) bytes_local: u64,
    /// Requests that joined one under way.
    pub(crate) coalesced: u64,
    /// Requests to helpers above, repeated ones included.
    pub(crate) requests_up: u64,
    /// Requests of helpers below.
    pub(crate) requests_down: u64,
    /// Requests that were sent again for want of an answer.
    pub(crate) retries: u64,
    /// How often another helper took the place of a lost one.
    pub(crate) reparentings: u64,
    /// Files that had to go for others.
    pub(crate) evictions: u64,
    /// Passing errors of the origin.
    pub(crate) errors: u64,
}

impl Served {
    /// What comes of these counts.
    pub(crate) fn of(
        counters: &Counters,
        bytes_from_origin: u64,
        calls: &Totals,
        evictions: u64,
    ) -> Served {
        Served {
            bytes_from_origin,
            bytes_from_tree: counters.bytes_from_peers,
            bytes_local: calls.bytes_served,
            coalesced: counters.coalesced,
            requests_up: counters.requests_up,
            requests_down: counters.requests_down,
            retries: counters.retries,
            reparentings: counters.reparentings,
            evictions,
            errors: counters.errors,
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        format!(
            "bytes     {} from the origin, {} from other nodes, {} to programs; {} evicted\n\
             requests  {} up, {} down, {} joined others, {} repeated; {} new parents, {} errors",
            show(self.bytes_from_origin),
            show(self.bytes_from_tree),
            show(self.bytes_local),
            self.evictions,
            self.requests_up,
            self.requests_down,
            self.coalesced,
            self.retries,
            self.reparentings,
            self.errors,
        )
    }
}

/// A node whose programs wait for its helper.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct SlowNode {
    /// Its rank.
    pub(crate) rank: u32,
    /// Its name.
    pub(crate) host: String,
    /// How often its programs have waited.
    pub(crate) waits: u64,
    /// How long in the mean, in microseconds.
    pub(crate) mean_microseconds: u64,
    /// The longest wait was no longer than this, in microseconds.
    pub(crate) longest_microseconds: u64,
}

impl SlowNode {
    /// With the name of the node.
    pub(crate) fn of(slow: &Slow, host: &str) -> SlowNode {
        SlowNode {
            rank: slow.rank,
            host: host.to_owned(),
            waits: slow.waits,
            mean_microseconds: slow.mean(),
            longest_microseconds: 2 << slow.longest,
        }
    }
}

impl From<copper_core::tree::Origin> for OriginCounts {
    fn from(origin: copper_core::tree::Origin) -> OriginCounts {
        OriginCounts {
            stats: origin.stats,
            listings: origin.listings,
            opens: origin.opens,
            bytes_read: origin.bytes_read,
            readlinks: origin.readlinks,
        }
    }
}

impl From<Stock> for Cached {
    fn from(stock: Stock) -> Cached {
        Cached {
            files: stock.files,
            bytes: stock.bytes,
            directories: stock.directories,
            entries: stock.entries,
        }
    }
}

impl From<Stock> for Memory {
    fn from(stock: Stock) -> Memory {
        Memory {
            store_bytes: stock.store_bytes,
            catalog_bytes: stock.catalog_bytes,
            resident_bytes: stock.resident_bytes,
            budget_bytes: stock.budget_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_savings_follow_from_the_counts() {
        let mut totals = Totals::default();
        totals.calls[Family::Stat as usize][Outcome::Hit as usize] = 70;
        totals.calls[Family::Open as usize][Outcome::Absent as usize] = 20;
        totals.calls[Family::Open as usize][Outcome::Asked as usize] = 10;
        totals.calls[Family::Open as usize][Outcome::TooLarge as usize] = 5;
        totals.calls[Family::Stat as usize][Outcome::Uncovered as usize] = 1000;
        let calls = Calls::of(&totals);
        let origin = OriginCounts {
            stats: 4,
            opens: 2,
            ..OriginCounts::default()
        };
        let saved = Saved::of(&calls, &origin);
        assert_eq!((saved.asked, saved.made, saved.operations), (105, 11, 94));
        assert!((saved.hit_rate - 0.9).abs() < 1e-9);
        let said = calls.describe(&saved);
        assert!(
            said.contains("5 too large") && said.contains("1000 uncovered"),
            "{said}"
        );
        assert_eq!(calls.families["open"].passed["too_large"], 5);
        assert_eq!(calls.families.len(), Family::ALL.len());
    }

    #[test]
    fn nothing_asked_is_no_division_by_nothing() {
        let calls = Calls::of(&Totals::default());
        let saved = Saved::of(&calls, &OriginCounts::default());
        assert_eq!((saved.asked, saved.hit_rate), (0, 0.0));
        assert!(calls.describe(&saved).contains("0 of 0 us"));
    }
}
