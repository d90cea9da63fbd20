//! Letting peers take chunks: a bounded number at a time, in turn, so that bulk neither starves
//! small messages nor a peer its siblings.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::open::Pull;
use super::{Arc, Asker, Message, Node, Object, Rank, Reason, Record, RequestId, Time, Turn};

struct Active {
    rank: Rank,
    request: RequestId,
    chunk: u32,
    object: Object,
    until: Time,
}

/// Chunks offered to peers: those granted, and those that wait for a place.
#[derive(Default)]
pub(super) struct Grants {
    active: Vec<Active>,
    queue: VecDeque<(Pull, Arc<Record>)>,
}

impl Grants {
    /// When the first grant runs out.
    pub(super) fn due(&self) -> Time {
        self.active
            .iter()
            .map(|grant| grant.until)
            .min()
            .unwrap_or(Time::NEVER)
    }
}

impl Node {
    /// The object and chunk that a peer was granted and has not released; for the driver, which must
    /// say how to read it when it sends the grant.
    pub fn granted(&self, rank: Rank, request: RequestId) -> Option<(&Object, u32)> {
        let mut active = self.grants.active.iter();
        let grant = active.find(|grant| grant.rank == rank && grant.request == request)?;
        Some((&grant.object, grant.chunk))
    }

    /// Grants a pull whose chunk is here, now or when it is its turn.
    pub(super) fn offer(&mut self, turn: &mut Turn<'_>, pull: Pull, record: Arc<Record>) {
        self.grants.queue.push_back((pull, record));
        self.grant_next(turn);
    }

    fn grant_next(&mut self, turn: &mut Turn<'_>) {
        while self.grants.active.len() < usize::from(self.plan.settings.grants) {
            let Some((pull, record)) = self.grants.queue.pop_front() else {
                return;
            };
            let until = turn.now.after(self.plan.settings.transfer);
            self.grants.active.push(Active {
                rank: pull.rank,
                request: pull.request,
                chunk: pull.chunk,
                object: record.object.clone(),
                until,
            });
            turn.send(
                pull.rank,
                Message::Grant {
                    request: pull.request,
                    chunk: pull.chunk,
                },
            );
            self.arm(until);
        }
    }

    /// Whether this pull is a repetition of one that is granted or about to be.
    pub(super) fn is_granted(&mut self, turn: &mut Turn<'_>, asker: Asker, chunk: u32) -> bool {
        let Asker { rank, request } = asker;
        if self
            .grants
            .active
            .iter()
            .any(|grant| grant.rank == rank && grant.request == request && grant.chunk == chunk)
        {
            turn.send(rank, Message::Grant { request, chunk });
            return true;
        }
        let queued = self
            .grants
            .queue
            .iter()
            .any(|(pull, _)| pull.rank == rank && pull.request == request);
        if queued {
            self.refuse(turn, asker, Reason::Pending);
        }
        queued
    }

    pub(super) fn on_release(&mut self, turn: &mut Turn<'_>, from: Rank, request: RequestId) {
        let active = self
            .grants
            .active
            .iter()
            .position(|grant| grant.rank == from && grant.request == request);
        if let Some(index) = active {
            self.grants.active.swap_remove(index);
        } else {
            let queue = &mut self.grants.queue;
            let queued = queue
                .iter()
                .position(|(pull, _)| pull.rank == from && pull.request == request);
            let Some(index) = queued else {
                self.unpull(from, request);
                return;
            };
            queue.remove(index);
        }
        self.peers.let_go(from);
        self.grant_next(turn);
    }

    /// Takes back a pull that still waits for its chunk.
    fn unpull(&mut self, from: Rank, request: RequestId) {
        let slots: Vec<u32> = self
            .opens
            .iter()
            .filter(|(_, open)| open.body.is_some())
            .map(|(s, _)| s)
            .collect();
        for slot in slots {
            let Some(body) = self.opens.get_mut(slot).and_then(|open| open.body.as_mut()) else {
                continue;
            };
            if let Some(index) = body
                .pulls
                .iter()
                .position(|p| p.rank == from && p.request == request)
            {
                body.pulls.swap_remove(index);
                self.peers.let_go(from);
                return;
            }
        }
        self.counters.dropped += 1;
    }

    /// Ends the grants of an object that is gone. Transfers under way may fail.
    pub(super) fn drop_grants_of(&mut self, turn: &mut Turn<'_>, object: &Object, reason: Reason) {
        self.drop_grants(turn, reason, |other, _| other == object);
    }

    /// Ends the grants of a peer that is lost.
    pub(super) fn drop_grants_to(&mut self, turn: &mut Turn<'_>, rank: Rank) {
        self.drop_grants(turn, Reason::Busy, |_, other| other == rank);
    }

    fn drop_grants(
        &mut self,
        turn: &mut Turn<'_>,
        reason: Reason,
        mut which: impl FnMut(&Object, Rank) -> bool,
    ) {
        let mut gone = Vec::new();
        for grant in self
            .grants
            .active
            .extract_if(.., |grant| which(&grant.object, grant.rank))
        {
            gone.push((grant.rank, None));
        }
        self.grants.queue.retain(|(pull, record)| {
            let drop = which(&record.object, pull.rank);
            if drop {
                gone.push((pull.rank, Some(pull.request)));
            }
            !drop
        });
        for (rank, request) in gone {
            self.peers.let_go(rank);
            if let Some(request) = request {
                self.refuse(turn, Asker { rank, request }, reason);
            }
        }
        self.grant_next(turn);
    }

    /// Takes back grants that were never released.
    pub(super) fn expire_grants(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let expired: Vec<Rank> = self
            .grants
            .active
            .extract_if(.., |grant| grant.until <= now)
            .map(|grant| grant.rank)
            .collect();
        expired.into_iter().for_each(|rank| self.peers.let_go(rank));
        self.grant_next(turn);
    }
}
