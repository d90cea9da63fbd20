//! How much was asked of the helper, and what is cached.
#![forbid(unsafe_code)]

use super::Engine;
use crate::status::{AskedCounts, Cached, Memory, OriginCounts, Status};
use copper_core::request::Operation;
use std::sync::atomic::Ordering;

/// Counts of questions and of what was done about them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) asked: AskedCounts,
    /// Files that had to go for others.
    pub(super) evictions: u64,
    /// Alarms acted upon.
    pub(super) alarms_seen: u64,
}

impl Tally {
    pub(super) fn note(&mut self, operation: Operation) {
        self.asked.total += 1;
        let counter = match operation {
            Operation::Resolve => &mut self.asked.entries,
            Operation::Listing => &mut self.asked.directories,
            Operation::Content => &mut self.asked.contents,
            Operation::Closure => &mut self.asked.closures,
            Operation::Changed | Operation::Writing | Operation::Refresh => {
                &mut self.asked.invalidations
            }
            Operation::Status
            | Operation::Stop
            | Operation::StopAll
            | Operation::Survey
            | Operation::Attach => return,
        };
        *counter += 1;
    }
}

impl Engine {
    /// Fills in what the engine knows of the helper's status.
    pub(crate) fn fill_status(&self, status: &mut Status) {
        let usage = self.store.usage();
        let counters = &self.origin.counters;
        status.store = self.store.root().display().to_string();
        status.cached = Cached {
            files: usage.files,
            bytes: usage.bytes,
            directories: self.complete.len() as u64,
            entries: self.writer.paths(),
        };
        status.memory = Memory {
            store_bytes: usage.memory,
            catalog_bytes: self.writer.in_use(),
            budget_bytes: usage.budget,
            ..status.memory
        };
        status.asked = self.tally.asked.clone();
        status.origin = OriginCounts {
            stats: counters.stats.load(Ordering::Relaxed),
            listings: counters.listings.load(Ordering::Relaxed),
            opens: counters.opens.load(Ordering::Relaxed),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            readlinks: counters.readlinks.load(Ordering::Relaxed),
        };
        status.evictions = self.tally.evictions;
        status.read_ahead = self.ahead.begun();
        status.peers = self.peers.as_ref().map(|peers| peers.status());
    }
}
