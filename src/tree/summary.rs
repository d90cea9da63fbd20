//! What drivers say of their nodes in a survey, and how the words of many become those of one.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::paths::Paths;
use super::topology::Rank;
use crate::counters::{Totals, WAIT_BUCKETS};

/// The most nodes that a summary names as slow.
pub const MAX_SLOWEST: usize = 8;

/// One node, or the sum of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What programs have asked.
    pub calls: Totals,
    /// What was asked of the origin.
    pub origin: Origin,
    /// What is held, and what it takes.
    pub stock: Stock,
    /// Questions of programs and commands.
    pub questions: u64,
    /// Of these, those that were left to the origin.
    pub passed_through: u64,
    /// Files that had to go for others.
    pub evictions: u64,
    /// Commands that drivers have not done yet.
    pub commands_pending: u64,
    /// Commands that drivers could not do.
    pub commands_failed: u64,
    /// The nodes whose programs wait longest, longest first; at most [`MAX_SLOWEST`].
    pub slowest: Vec<Slow>,
    /// Paths that stand out.
    pub paths: Paths,
}

/// Operations on the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Attributes read.
    pub stats: u64,
    /// Directories listed.
    pub listings: u64,
    /// Files opened.
    pub opens: u64,
    /// Links read.
    pub readlinks: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

/// What nodes hold; sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Files in the store.
    pub files: u64,
    /// Their lengths.
    pub bytes: u64,
    /// Directories known whole.
    pub directories: u64,
    /// Paths known.
    pub entries: u64,
    /// Memory of the store's files.
    pub store_bytes: u64,
    /// Memory of the catalog.
    pub catalog_bytes: u64,
    /// Memory of the helper's process.
    pub resident_bytes: u64,
    /// What the store's files may take.
    pub budget_bytes: u64,
}

/// A node whose programs wait for its helper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// The node.
    pub rank: Rank,
    /// How often its programs have waited.
    pub waits: u64,
    /// How long in all, in microseconds.
    pub waited: u64,
    /// The [bucket](crate::counters::wait_bucket) of the longest wait.
    pub longest: u8,
}

impl Slow {
    /// The node `rank`, if any of its programs has waited.
    pub fn of(rank: Rank, calls: &Totals) -> Option<Slow> {
        let longest = calls.waits.iter().rposition(|&waits| waits > 0)?;
        Some(Slow {
            rank,
            waits: calls.waits(),
            waited: calls.waited(),
            longest: longest as u8,
        })
    }

    /// The mean wait in microseconds.
    pub fn mean(&self) -> u64 {
        self.waited / self.waits.max(1)
    }
}

impl Summary {
    /// Whether all is within its bounds.
    pub fn is_valid(&self) -> bool {
        let in_bounds = |slow: &Slow| usize::from(slow.longest) < WAIT_BUCKETS;
        self.slowest.len() <= MAX_SLOWEST
            && self.slowest.iter().all(in_bounds)
            && self.paths.is_valid()
    }

    /// Adds other nodes.
    pub fn add(&mut self, other: &Summary) {
        self.calls.add(&other.calls);
        let pairs = [
            (&mut self.origin.stats, other.origin.stats),
            (&mut self.origin.listings, other.origin.listings),
            (&mut self.origin.opens, other.origin.opens),
            (&mut self.origin.readlinks, other.origin.readlinks),
            (&mut self.origin.bytes_read, other.origin.bytes_read),
            (&mut self.stock.files, other.stock.files),
            (&mut self.stock.bytes, other.stock.bytes),
            (&mut self.stock.directories, other.stock.directories),
            (&mut self.stock.entries, other.stock.entries),
            (&mut self.stock.store_bytes, other.stock.store_bytes),
            (&mut self.stock.catalog_bytes, other.stock.catalog_bytes),
            (&mut self.stock.resident_bytes, other.stock.resident_bytes),
            (&mut self.stock.budget_bytes, other.stock.budget_bytes),
            (&mut self.questions, other.questions),
            (&mut self.passed_through, other.passed_through),
            (&mut self.evictions, other.evictions),
            (&mut self.commands_pending, other.commands_pending),
            (&mut self.commands_failed, other.commands_failed),
        ];
        for (mine, theirs) in pairs {
            *mine = mine.saturating_add(theirs);
        }
        self.slowest.extend(&other.slowest);
        self.slowest
            .sort_by_key(|slow| (core::cmp::Reverse(slow.mean()), slow.rank));
        self.slowest.truncate(MAX_SLOWEST);
        self.paths.add(&other.paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(rank: Rank, waits: u64, waited: u64) -> Slow {
        Slow {
            rank,
            waits,
            waited,
            longest: 3,
        }
    }

    #[test]
    fn the_slowest_of_all_are_named_in_order() {
        let node = |rank: Rank| Summary {
            evictions: 1,
            slowest: [slow(rank, 2, u64::from(rank) * 10)].into(),
            ..Summary::default()
        };
        let mut sum = Summary::default();
        for rank in [3, 20, 7, 0, 9, 1, 2, 4, 5, 6, 8] {
            sum.add(&node(rank));
        }
        let ranks: Vec<Rank> = sum.slowest.iter().map(|slow| slow.rank).collect();
        assert_eq!(ranks, [20, 9, 8, 7, 6, 5, 4, 3]);
        assert_eq!(sum.evictions, 11);
        assert!(sum.is_valid());
    }

    #[test]
    fn whoever_never_waited_is_not_slow() {
        let mut calls = Totals::default();
        assert_eq!(Slow::of(1, &calls), None);
        calls.waits[4] = 2;
        calls.waited[0] = 50;
        let slow = Slow::of(1, &calls).unwrap();
        assert_eq!((slow.waits, slow.longest, slow.mean()), (2, 4, 25));
    }

    #[test]
    fn more_than_the_bound_is_not_believed() {
        let mut summary = Summary {
            slowest: [slow(1, 1, 1); MAX_SLOWEST + 1].into(),
            ..Summary::default()
        };
        assert!(!summary.is_valid());
        summary.slowest.truncate(1);
        assert!(summary.is_valid());
        summary.slowest[0].longest = WAIT_BUCKETS as u8;
        assert!(!summary.is_valid());
    }
}
