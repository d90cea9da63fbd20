//! What a node holds of its peers: which it takes for lost, and how much each has asked of it.

use alloc::vec::Vec;
use core::time::Duration;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::interface::Time;
use super::super::object::mix;
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
    /// Requests at hand of the peers that have any.
    load: HashTable<Load>,
}

struct Load {
    rank: Rank,
    requests: u32,
}

/// Peers cannot choose ranks that fall together: each has one, below N.
fn hash(load: &Load) -> u64 {
    mix(u64::from(load.rank))
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
        let load = self.entry(rank).or_insert(Load { rank, requests: 0 });
        let load = load.into_mut();
        let allowed = load.requests < limit;
        load.requests += u32::from(allowed);
        allowed
    }

    /// A request of a peer is done with.
    pub(super) fn let_go(&mut self, rank: Rank) {
        if let Entry::Occupied(mut load) = self.entry(rank) {
            load.get_mut().requests = load.get().requests.saturating_sub(1);
            if load.get().requests == 0 {
                load.remove();
            }
        }
    }

    fn entry(&mut self, rank: Rank) -> Entry<'_, Load> {
        let same = |load: &Load| load.rank == rank;
        self.load.entry(mix(u64::from(rank)), same, hash)
    }

    /// Requests of all peers at hand.
    pub(super) fn total_load(&self) -> u64 {
        self.load.iter().map(|load| u64::from(load.requests)).sum()
    }
}
