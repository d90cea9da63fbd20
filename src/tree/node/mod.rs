//! One helper's part in the tree: events in, actions out.

mod bodies;
mod endings;
mod epochs;
mod flights;
mod grants;
mod headers;
mod open;
mod peers;
mod submissions;
mod timers;
mod upstream;
mod waves;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use hashbrown::HashTable;
use smallvec::SmallVec;

use self::epochs::Epochs;
use self::flights::{Flight, Flights, Part, Stage};
use self::grants::Grants;
use self::open::{Asker, Open, Opens};
use self::peers::Peers;
use self::waves::Waves;
use super::interface::{
    Action, Actions, Answer, Counters, Event, OriginReply, OriginRequest, RequestId, Settings, Time,
};
use super::message::{Delivery, Epoch, Message, Order, Reason};
use super::object::{Object, Outcome, Record};
use super::summary::Summary;
use super::topology::{Rank, Topology, TopologyError, TreeIndex};

/// How often one request may begin anew because its file changed meanwhile.
const MOST_RESTARTS: u8 = 3;

/// The errno of a file that changes faster than it can be read.
const ESTALE: i32 = 116;

/// The errno of an origin that does not answer.
const ETIMEDOUT: i32 = 110;

/// How many bodies are remembered as not fitting into the store.
const MOST_UNSTORABLE: usize = 64;

/// What all nodes of a job have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who is whose parent.
    pub topology: Topology,
    /// Bounds and delays.
    pub settings: Settings,
}

impl Plan {
    /// The most requests and pulls that one peer may have at a node: its credits of all trees.
    pub fn most_per_peer(&self) -> u32 {
        self.settings
            .credits
            .saturating_mul(u32::from(self.topology.trees()))
    }
}

/// How much a node holds at a moment. Every field has a bound that [`Settings`] gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Objects under way.
    pub open: usize,
    /// Parts of bodies that nobody waits for, kept for peers.
    pub partial: usize,
    /// Requests, pulls, origin reads and transfers under way.
    pub flights: usize,
    /// Local waiters.
    pub waiters: usize,
    /// Requests and pulls of peers.
    pub peers: u64,
    /// Waves and submissions.
    pub waves: usize,
    /// Records known.
    pub known: usize,
}

/// The state machine. See the [module](super) for the contract.
pub struct Node {
    plan: Arc<Plan>,
    rank: Rank,
    incarnation: u32,
    due: Time,
    /// Per tree, what is under way to peers. Counted by tree because what one tree waits for never
    /// waits for the same tree below it, while two trees can wait for each other in a circle.
    outstanding: SmallVec<[u32; 8]>,
    waiting: u32,
    known: HashTable<Arc<Record>>,
    opens: Opens,
    flights: Flights,
    parked: Vec<(TreeIndex, RequestId)>,
    peers: Peers,
    grants: Grants,
    waves: Waves,
    epochs: Epochs,
    unstorable: Vec<(Object, Time)>,
    counters: Counters,
    /// What the driver says of this node, for surveys.
    summary: Option<Box<Summary>>,
}

/// The moment of an event, and where its actions go.
struct Turn<'a> {
    now: Time,
    actions: &'a mut Actions,
}

impl Turn<'_> {
    fn send(&mut self, to: Rank, message: Message) {
        self.actions.push(Action::Send { to, message });
    }
}

impl Node {
    /// The node of `rank`. `incarnation` must differ from that of an earlier helper of this rank in
    /// this job, so that answers to the dead are not taken for answers to the living.
    ///
    /// # Errors
    /// The rank does not belong to the plan's topology.
    pub fn new(plan: Arc<Plan>, rank: Rank, incarnation: u32) -> Result<Self, TopologyError> {
        plan.topology.check(rank)?;
        let outstanding = (0..plan.topology.trees()).map(|_| 0).collect();
        Ok(Self {
            plan,
            rank,
            incarnation,
            due: Time::NEVER,
            outstanding,
            waiting: 0,
            known: HashTable::new(),
            opens: Opens::default(),
            flights: Flights::new(incarnation),
            parked: Vec::new(),
            peers: Peers::default(),
            grants: Grants::default(),
            waves: Waves::new(incarnation),
            epochs: Epochs::new(),
            unstorable: Vec::new(),
            counters: Counters::default(),
            summary: None,
        })
    }

    /// This node's rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// What this node has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sets what the next survey is told of this node beside what it counts itself.
    pub fn set_summary(&mut self, summary: Summary) {
        self.summary = Some(Box::new(summary));
    }

    /// What this node holds.
    pub fn load(&self) -> Load {
        let partial = self.opens.iter().filter(|(_, open)| open.is_idle()).count();
        Load {
            open: self.opens.len() - partial,
            partial,
            flights: self.flights.len(),
            waiters: self.waiting as usize,
            peers: self.peers.total_load(),
            waves: self.waves.len(),
            known: self.known.len(),
        }
    }

    /// What is known of `object`.
    pub fn lookup(&self, object: &Object) -> Option<&Arc<Record>> {
        self.known
            .find(object.hash(), |record| record.object == *object)
    }

    /// The state of invalidation that this node is in.
    pub fn epoch(&self) -> Epoch {
        self.epochs.now()
    }

    /// Whom this node would ask now for `object`; none when it would ask the origin.
    pub fn upstream(&self, object: &Object, now: Time) -> Option<Rank> {
        self.best_rung(object.tree(&self.plan.topology), now)
            .map(|rung| rung.rank)
    }

    /// When [`Event::Timer`] is due at the latest; [`Time::NEVER`] if nothing is under way. It may
    /// change with every event.
    pub fn next_timeout(&self) -> Time {
        self.due
    }

    /// Takes what happened at `now`, which must not be before the `now` of an earlier event, and
    /// appends to `actions` what is to be done about it.
    pub fn handle(&mut self, now: Time, event: Event, actions: &mut Actions) {
        let turn = &mut Turn { now, actions };
        match event {
            Event::Timer => self.on_timer(turn),
            Event::Ask {
                waiter,
                object,
                deadline,
            } => self.on_ask(turn, waiter, object, deadline),
            Event::Origin { id, reply } => self.on_origin(turn, id, reply),
            Event::Message { from, message } => self.on_message(turn, from, message),
            Event::Transferred { id, result } => self.on_transferred(turn, id, result),
            Event::Evicted(object) => self.on_evicted(&object),
            Event::StoreFailed(object) => self.on_store_failed(turn, &object),
            Event::PeerLost(rank) => self.on_peer_lost(turn, rank),
            Event::PeerBack(rank) => self.on_peer_back(turn, rank),
            Event::Invalidate { waiter, change } => self.on_invalidate(turn, waiter, change),
            Event::Survey {
                waiter,
                until_ready,
                deadline,
            } => {
                let patience = deadline.0.saturating_sub(now.0);
                let order = Order::Survey {
                    until_ready,
                    patience,
                };
                self.submit(turn, Some(waiter), order, Duration::from_nanos(patience));
            }
            Event::Command {
                waiter,
                command,
                deadline,
            } => self.on_command(turn, waiter, command, deadline),
            Event::Ready => self.on_ready(turn),
        }
    }

    fn on_message(&mut self, turn: &mut Turn<'_>, from: Rank, message: Message) {
        if from == self.rank || self.plan.topology.check(from).is_err() {
            self.counters.dropped += 1;
            return;
        }
        self.peers.heard(from);
        if matches!(message, Message::Request { .. } | Message::Pull { .. }) {
            self.counters.requests_down += 1;
        }
        match message {
            Message::Request {
                request,
                object,
                avoid,
                stand_in,
                epoch,
            } => {
                self.note_epoch(turn, from, epoch);
                self.on_request(
                    turn,
                    Asker {
                        rank: from,
                        request,
                    },
                    object,
                    avoid,
                    stand_in,
                );
            }
            Message::Answer {
                request,
                record,
                delivery,
                epoch,
            } => {
                self.note_epoch(turn, from, epoch);
                self.on_answer(turn, from, request, record, delivery, epoch);
            }
            Message::Refusal {
                request,
                reason,
                epoch,
            } => {
                self.note_epoch(turn, from, epoch);
                self.on_refusal(turn, from, request, reason);
            }
            Message::Pull {
                request,
                record,
                chunk,
                stand_in,
                epoch,
            } => {
                self.note_epoch(turn, from, epoch);
                self.on_pull(
                    turn,
                    Asker {
                        rank: from,
                        request,
                    },
                    record,
                    chunk,
                    (stand_in, epoch),
                );
            }
            Message::Grant { request, chunk } => self.on_grant(turn, from, request, chunk),
            Message::Release { request } => self.on_release(turn, from, request),
            other => self.on_wave_message(turn, from, other),
        }
    }

    fn arm(&mut self, due: Time) {
        self.due = self.due.min(due);
    }

    fn forget(&mut self, object: &Object) -> Option<Arc<Record>> {
        let found = self
            .known
            .find_entry(object.hash(), |record| record.object == *object);
        found.ok().map(|entry| entry.remove().0)
    }

    fn on_evicted(&mut self, object: &Object) {
        self.forget(object);
        if let Some(slot) = self.opens.find(object)
            && self.opens.get(slot).is_some_and(Open::is_idle)
        {
            self.opens.remove(slot);
        }
    }

    fn is_unstorable(&mut self, object: &Object, now: Time) -> bool {
        if self.unstorable.is_empty() {
            return false;
        }
        self.unstorable.retain(|&(_, until)| now < until);
        self.unstorable.iter().any(|(other, _)| other == object)
    }

    fn mark_unstorable(&mut self, object: &Object, now: Time) {
        if self.unstorable.len() == MOST_UNSTORABLE {
            self.unstorable.remove(0);
        }
        self.unstorable
            .push((object.clone(), now.after(self.plan.settings.shun)));
    }

    fn on_store_failed(&mut self, turn: &mut Turn<'_>, object: &Object) {
        self.mark_unstorable(object, turn.now);
        self.forget(object);
        self.drop_grants_of(turn, object, Reason::Unavailable);
    }
}

#[cfg(test)]
mod tests;
