//! What an object is: who asks for it here, in single flight, and what is heard of it from above.

use smallvec::SmallVec;

use super::super::interface::Waiter;
use super::super::topology::TreeIndex;
use super::{
    Action, Answer, Arc, Asker, Delivery, Epoch, Node, Object, Open, OriginReply, Outcome, Part,
    Rank, Reason, Record, RequestId, Stage, Time, Turn,
};

impl Node {
    pub(super) fn on_ask(
        &mut self,
        turn: &mut Turn<'_>,
        waiter: Waiter,
        object: Object,
        deadline: Time,
    ) {
        self.counters.asks += 1;
        let refusal = if let Some(record) = self.lookup(&object) {
            Some(Answer::Known(Arc::clone(record)))
        } else if self.is_unstorable(&object, turn.now) {
            Some(Answer::NoSpace)
        } else if self.waiting >= self.plan.settings.waiters {
            self.counters.refused += 1;
            Some(Answer::Busy)
        } else {
            None
        };
        if let Some(answer) = refusal {
            turn.actions.push(Action::Answer {
                waiter,
                object,
                answer,
            });
            return;
        }
        let Some((slot, new)) = self.open_slot(turn, &object) else {
            self.counters.refused += 1;
            turn.actions.push(Action::Answer {
                waiter,
                object,
                answer: Answer::Busy,
            });
            return;
        };
        self.waiting += 1;
        self.arm(deadline);
        if let Some(open) = self.opens.get_mut(slot) {
            open.waiters.push((waiter, deadline));
        }
        if new {
            self.launch(turn, slot, Part::Header, false);
        } else {
            self.counters.coalesced += 1;
            self.want_whole(turn, slot);
        }
    }

    pub(super) fn on_request(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        object: Object,
        avoid: u64,
        stand_in: bool,
    ) {
        let tree = object.tree(&self.plan.topology);
        if !self.may_ask(tree, asker.rank, stand_in) {
            self.counters.dropped += 1;
            return;
        }
        if let Some(record) = self.lookup(&object) {
            if avoid == 0 || record.stamp() != avoid {
                let record = Arc::clone(record);
                self.answer_peer(turn, asker, &record);
                return;
            }
            if let Some(record) = self.forget(&object) {
                turn.actions.push(Action::Forget(record));
            }
        }
        if self.is_unstorable(&object, turn.now) {
            self.refuse(turn, asker, Reason::Unavailable);
            return;
        }
        let Some((slot, new)) = self.open_slot(turn, &object) else {
            self.counters.refused += 1;
            self.refuse(turn, asker, Reason::Busy);
            return;
        };
        if !self.join(turn, slot, asker, avoid) {
            if new {
                self.opens.remove(slot);
            }
            return;
        }
        if new {
            if let Some(open) = self.opens.get_mut(slot) {
                open.avoid = avoid;
            }
            self.launch(turn, slot, Part::Header, stand_in);
        } else if stand_in {
            self.take_over(turn, slot, Part::Header);
        }
    }

    /// Adds a peer to those who wait for what an object is, or answers it at once.
    fn join(&mut self, turn: &mut Turn<'_>, slot: u32, asker: Asker, avoid: u64) -> bool {
        let Some(open) = self.opens.get_mut(slot) else {
            return false;
        };
        let body = open.body.as_ref().map(|body| Arc::clone(&body.record));
        if let Some(record) = body
            .as_ref()
            .filter(|record| avoid == 0 || record.stamp() != avoid)
        {
            self.answer_peer(turn, asker, record);
            return false;
        }
        if let Some(other) = open
            .askers
            .iter_mut()
            .find(|other| other.rank == asker.rank)
        {
            other.request = asker.request;
            self.refuse(turn, asker, Reason::Pending);
            return true;
        }
        if !self.peers.take_on(asker.rank, self.plan.most_per_peer()) {
            self.counters.refused += 1;
            self.refuse(turn, asker, Reason::Busy);
            return false;
        }
        if !open.is_idle() {
            self.counters.coalesced += 1;
        }
        open.askers.push(asker);
        if body.is_some() {
            self.restart(turn, slot, avoid);
        }
        true
    }

    /// Whether `rank` may ask this node for what `tree` carries.
    pub(super) fn may_ask(&self, tree: TreeIndex, rank: Rank, stand_in: bool) -> bool {
        let topology = &self.plan.topology;
        if stand_in {
            topology.turn_as_root(tree, self.rank).is_some()
        } else {
            topology.is_ancestor(tree, self.rank, rank)
        }
    }

    /// The object under way, made if there was none; none at the bound.
    pub(super) fn open_slot(
        &mut self,
        turn: &mut Turn<'_>,
        object: &Object,
    ) -> Option<(u32, bool)> {
        if let Some(slot) = self.opens.find(object) {
            self.waken(turn, slot);
            return Some((slot, false));
        }
        if self.opens.len() >= self.plan.settings.open as usize && !self.reclaim(turn) {
            return None;
        }
        let open = Open {
            object: object.clone(),
            moved: turn.now,
            avoid: 0,
            restarts: 0,
            header: None,
            waiters: SmallVec::new(),
            askers: SmallVec::new(),
            body: None,
        };
        self.arm(turn.now.after(self.plan.settings.patience));
        Some((self.opens.insert(open), true))
    }

    /// Somebody wants more of a part of a body that was kept: its patience begins anew.
    fn waken(&mut self, turn: &mut Turn<'_>, slot: u32) {
        if let Some(open) = self.opens.get_mut(slot)
            && open.is_idle()
        {
            open.moved = turn.now;
            self.arm(turn.now.after(self.plan.settings.patience));
        }
    }

    /// Gives up a part of a body that nobody waits for.
    fn reclaim(&mut self, turn: &mut Turn<'_>) -> bool {
        let idle = self
            .opens
            .iter()
            .find(|(_, open)| open.is_idle())
            .map(|(slot, _)| slot);
        if let Some(slot) = idle {
            self.give_up(turn, slot, &Answer::Busy, Reason::Busy);
        }
        idle.is_some()
    }

    pub(super) fn on_answer(
        &mut self,
        turn: &mut Turn<'_>,
        from: Rank,
        request: RequestId,
        record: Arc<Record>,
        delivery: Delivery,
        epoch: Epoch,
    ) {
        let expected = self.flights.get_mut(request).is_some_and(|flight| {
            flight.part == Part::Header
                && matches!(flight.stage, Stage::Peer { rank, .. } if rank == from)
        });
        let Some(slot) = self
            .flights
            .get_mut(request)
            .filter(|_| expected)
            .map(|flight| flight.open)
        else {
            self.counters.dropped += 1;
            return;
        };
        let inline = self.rides_inline(&record);
        let asked = self.opens.get(slot).map(|open| &open.object);
        let well_delivered = match delivery {
            Delivery::Bare => record.length() == 0,
            Delivery::Inline => inline && record.length() > 0,
            Delivery::Chunked => !inline,
        };
        let bounded = record.length() <= self.plan.settings.largest;
        if !well_delivered || !bounded || asked != Some(&record.object) {
            self.counters.dropped += 1;
            return;
        }
        if self.is_outdated(epoch, &record.object) {
            self.postpone(turn, request);
            return;
        }
        if delivery == Delivery::Inline {
            self.counters.bytes_from_peers += record.length();
        }
        self.land(turn, request);
        if inline {
            self.conclude(turn, slot, record);
        } else {
            self.begin_body(turn, slot, record);
        }
    }

    /// Whether what a peer in `epoch` says of `object` may be from before a change known here.
    pub(super) fn is_outdated(&self, epoch: Epoch, object: &Object) -> bool {
        self.epochs.outdated(epoch, object) || self.waves.awaits(object, self.epochs.now())
    }

    pub(super) fn on_origin(&mut self, turn: &mut Turn<'_>, id: RequestId, reply: OriginReply) {
        let found = self
            .flights
            .get_mut(id)
            .filter(|flight| flight.stage == Stage::Origin);
        let Some((slot, part)) = found.map(|flight| (flight.open, flight.part)) else {
            self.counters.dropped += 1;
            return;
        };
        match (reply, part) {
            (OriginReply::Known(outcome), Part::Header) => {
                self.land(turn, id);
                let Some(open) = self.opens.get_mut(slot) else {
                    return;
                };
                let outcome = match outcome {
                    Outcome::Present { length, .. } if length > self.plan.settings.largest => {
                        Outcome::TooLarge
                    }
                    outcome => outcome,
                };
                let record = Arc::new(Record {
                    object: open.object.clone(),
                    outcome,
                });
                if self.body_came_with_look(&record) {
                    self.conclude(turn, slot, record);
                } else {
                    self.begin_body(turn, slot, record);
                }
            }
            (OriginReply::Stored, Part::Chunk(chunk)) => self.chunk_here(turn, id, chunk),
            (OriginReply::Changed, Part::Chunk(_)) => {
                let body = self.opens.get(slot).and_then(|open| open.body.as_ref());
                let stamp = body.map_or(0, |body| body.record.stamp());
                self.restart(turn, slot, stamp);
            }
            (OriginReply::NoSpace, _) => {
                self.no_space(turn, slot);
            }
            (OriginReply::Failed { errno }, _) => {
                self.counters.errors += 1;
                self.give_up(
                    turn,
                    slot,
                    &Answer::Failed { errno },
                    Reason::Failed { errno },
                );
            }
            (OriginReply::Known(_) | OriginReply::Stored | OriginReply::Changed, _) => {
                self.counters.dropped += 1;
            }
        }
    }
}
