//! How much was asked of the helper, and what is cached.
#![forbid(unsafe_code)]

use super::Engine;
use crate::peers::Peers;
use crate::status::{AskedCounts, Calls, NamedPaths, Saved, Served, Status};
use copper_core::control::Control;
use copper_core::counters::Totals;
use copper_core::counters::memory::Memory as Counters;
use copper_core::counters::paths::Noted;
use copper_core::request::Operation;
use copper_core::tree::{Origin, Slow, Stock, Summary};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::sync::atomic::Ordering;

/// Counts of questions and of what was done about them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) asked: AskedCounts,
    /// Files that had to go for others.
    pub(super) evictions: u64,
    /// Alarms acted upon.
    pub(super) alarms_seen: u64,
    /// What programs count.
    counters: Option<Counters>,
    /// What they had counted when that was set back.
    since: Totals,
}

impl Tally {
    /// What programs have asked of the shim.
    pub(super) fn calls(&self) -> Totals {
        let mut calls = self.counted();
        calls.subtract(&self.since);
        calls
    }

    fn counted(&self) -> Totals {
        let Some(counters) = &self.counters else {
            return Totals::default();
        };
        counters.release_gone(&is_gone);
        counters.totals()
    }

    /// The calls that were noted with their paths.
    pub(super) fn noted(&self) -> Vec<Noted> {
        self.counters
            .map_or_else(Vec::new, |counters| counters.noted())
    }

    /// Begins counts anew.
    pub(super) fn set_back(&mut self, control: Control) {
        let now = self.counted();
        control.set_back(&mut self.since, &now);
        if let Some(counters) = &self.counters {
            counters.set_noted_back(control);
        }
    }

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
            | Operation::Journal
            | Operation::Control
            | Operation::ControlAll
            | Operation::Attach
            | Operation::Memory => return,
        };
        *counter += 1;
    }
}

fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

impl Engine {
    /// Counts what programs ask in this memory.
    pub(crate) fn set_counters(&mut self, counters: Counters) {
        self.tally.counters = Some(counters);
    }

    /// Fills in what the engine knows of the helper's status.
    pub(crate) fn fill_status(&self, status: &mut Status) {
        let summary = self.summary();
        let counters = self.tree.counters();
        status.store = self.store.root().display().to_string();
        status.cached = summary.stock.into();
        status.memory = summary.stock.into();
        status.asked = self.tally.asked.clone();
        status.origin = summary.origin.into();
        status.calls = Calls::of(&summary.calls);
        status.saved = Saved::of(&status.calls, &status.origin);
        let bytes_read = summary.origin.bytes_read;
        status.served = Served::of(counters, bytes_read, &summary.calls, summary.evictions);
        status.evictions = summary.evictions;
        status.read_ahead = self.ahead.begun();
        status.peers = self.peers.as_ref().map(|peers| peers.status());
        status.paths = NamedPaths::of(&summary.paths, |_| None);
    }

    /// What there is to say of this node.
    pub(super) fn summary(&self) -> Summary {
        let usage = self.store.usage();
        let counters = &self.origin.counters;
        let calls = self.tally.calls();
        let rank = self.peers.as_ref().map_or(0, Peers::rank);
        Summary {
            origin: Origin {
                stats: counters.stats.load(Ordering::Relaxed),
                listings: counters.listings.load(Ordering::Relaxed),
                opens: counters.opens.load(Ordering::Relaxed),
                readlinks: counters.readlinks.load(Ordering::Relaxed),
                bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            },
            stock: Stock {
                files: usage.files,
                bytes: usage.bytes,
                directories: self.complete.len() as u64,
                entries: self.writer.paths(),
                store_bytes: usage.memory,
                catalog_bytes: self.writer.in_use(),
                resident_bytes: resident_bytes(),
                budget_bytes: usage.budget,
            },
            questions: self.tally.asked.total,
            passed_through: self.tally.asked.passed_through,
            evictions: self.tally.evictions,
            commands_pending: self.controls.pending(),
            commands_failed: self.controls.failed(),
            slowest: Slow::of(rank, &calls).into_iter().collect(),
            paths: self.paths(rank),
            calls,
        }
    }
}

/// Memory of this process.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
