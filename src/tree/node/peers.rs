//! What a node holds of its peers: which it takes for lost, and how much each has asked of it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::interface::Time;
use super::super::topology::Rank;

/// How many peers are remembered as lost; a node has only so many ancestors.
const MOST_SHUNNED: usize = 256;

/// How many times the shortest time a peer is left alone that keeps being lost.
const LONGEST_SHUN: u32 = 16;

/// A peer that was lost and has not been heard since.
struct Shunned {
    rank: Rank,
    until: Time,
    times: u32,
}

#[derive(Default)]
pub(super) struct Peers {
    shunned: Vec<Shunned>,
    load: BTreeMap<Rank, u32>,
}

impl Peers {
    /// Whether the peer is not to be asked now.
    pub(super) fn is_shunned(&self, rank: Rank, now: Time) -> bool {
        self.shunned
            .iter()
            .any(|shunned| shunned.rank == rank && now < shunned.until)
    }

    /// Leaves a peer alone for `shun`, and twice as long each time it is lost again without having
    /// been heard; false if it was shunned already.
    pub(super) fn shun(&mut self, rank: Rank, shun: Duration, now: Time) -> bool {
        if let Some(shunned) = self.shunned.iter_mut().find(|shunned| shunned.rank == rank) {
            let already = now < shunned.until;
            if !already {
                shunned.times = (shunned.times * 2).min(LONGEST_SHUN);
                shunned.until = now.after(shun * shunned.times);
            }
            return !already;
        }
        if self.shunned.len() == MOST_SHUNNED {
            self.shunned.swap_remove(0);
        }
        self.shunned.push(Shunned {
            rank,
            until: now.after(shun),
            times: 1,
        });
        true
    }

    /// The peer lives.
    pub(super) fn heard(&mut self, rank: Rank) {
        if !self.shunned.is_empty() {
            self.shunned.retain(|shunned| shunned.rank != rank);
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
