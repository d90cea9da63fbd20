//! What a node holds of its peers: which it takes for lost, and how much each has asked of it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::super::interface::Time;
use super::super::topology::Rank;

/// How many peers are remembered as lost; a node has only so many ancestors.
const MOST_SHUNNED: usize = 256;

#[derive(Default)]
pub(super) struct Peers {
    shunned: Vec<(Rank, Time)>,
    load: BTreeMap<Rank, u32>,
}

impl Peers {
    /// Whether the peer is not to be asked now.
    pub(super) fn is_shunned(&self, rank: Rank, now: Time) -> bool {
        self.shunned
            .iter()
            .any(|&(other, until)| other == rank && now < until)
    }

    /// Leaves a peer alone until `until`; false if it already was.
    pub(super) fn shun(&mut self, rank: Rank, until: Time, now: Time) -> bool {
        self.shunned.retain(|&(_, until)| now < until);
        if let Some(entry) = self.shunned.iter_mut().find(|(other, _)| *other == rank) {
            entry.1 = entry.1.max(until);
            return false;
        }
        if self.shunned.len() < MOST_SHUNNED {
            self.shunned.push((rank, until));
        }
        true
    }

    /// The peer lives.
    pub(super) fn heard(&mut self, rank: Rank) {
        if !self.shunned.is_empty() {
            self.shunned.retain(|&(other, _)| other != rank);
        }
    }

    /// Notes a request of a peer; false if it has `limit` already.
    pub(super) fn take_on(&mut self, rank: Rank, limit: u32) -> bool {
        let load = self.load.entry(rank).or_insert(0);
        let allowed = *load < limit;
        *load += u32::from(allowed);
        allowed
    }

    /// A request of a peer is done with.
    pub(super) fn let_go(&mut self, rank: Rank) {
        if let Some(load) = self.load.get_mut(&rank) {
            *load = load.saturating_sub(1);
            if *load == 0 {
                self.load.remove(&rank);
            }
        }
    }

    /// Requests of all peers at hand.
    pub(super) fn total_load(&self) -> u64 {
        self.load.values().map(|&load| u64::from(load)).sum()
    }
}
