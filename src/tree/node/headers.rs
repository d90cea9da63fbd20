//! Finding out what an object is: single flight, up the ladder, and the answer back down.

use alloc::vec::Vec;

use super::super::interface::Waiter;
use super::super::topology::{Rung, TreeIndex};
use super::{
    Action, Answer, Arc, Asker, Delivery, ESTALE, ETIMEDOUT, Epoch, Flight, MOST_RESTARTS, Message,
    Node, Object, Open, OriginReply, OriginRequest, Outcome, Part, Rank, Reason, Record, RequestId,
    Stage, Time, Turn,
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
            waiters: Vec::new(),
            askers: Vec::new(),
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

    /// Begins to bring one part of an object.
    pub(super) fn launch(&mut self, turn: &mut Turn<'_>, slot: u32, part: Part, at_origin: bool) {
        let topology = self.plan.topology;
        let Some(open) = self.opens.get_mut(slot) else {
            return;
        };
        let tree = match part {
            Part::Header => open.object.tree(&topology),
            Part::Chunk(chunk) => open.object.chunk_tree(&topology, chunk),
        };
        let id = self.flights.insert(Flight {
            open: slot,
            part,
            tree,
            stage: Stage::Parked,
            at_origin,
            failures: 0,
            heard: turn.now,
            due: turn.now,
        });
        match part {
            Part::Header => open.header = Some(id),
            Part::Chunk(chunk) => {
                if let Some(body) = &mut open.body {
                    body.set_asked(chunk, true);
                    body.flights.push(id);
                    if let Some(lane) = body.lane(tree) {
                        lane.flying += 1;
                    }
                }
            }
        }
        self.dispatch(turn, id);
    }

    /// Whom to ask in `tree` now; none when it is the origin's turn.
    pub(super) fn best_rung(&self, tree: TreeIndex, now: Time) -> Option<Rung> {
        self.plan
            .topology
            .ladder(tree, self.rank)
            .find(|rung| !self.peers.is_shunned(rung.rank, now))
    }

    /// Asks the best peer that there is, or the origin.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>, id: RequestId) {
        let Some(flight) = self.flights.get_mut(id) else {
            return;
        };
        let (tree, at_origin) = (flight.tree, flight.at_origin);
        self.unseat(id);
        let rung = if at_origin {
            None
        } else {
            self.best_rung(tree, turn.now)
        };
        let Some(rung) = rung else {
            self.ask_origin(turn, id);
            return;
        };
        let resend = turn.now.after(self.plan.settings.resend);
        let free = self.outstanding[usize::from(tree)] < self.plan.settings.credits;
        let Some(flight) = self.flights.get_mut(id) else {
            return;
        };
        flight.due = resend;
        flight.heard = turn.now;
        if free {
            flight.stage = Stage::Peer {
                rank: rung.rank,
                stand_in: rung.stand_in,
            };
            self.outstanding[usize::from(tree)] += 1;
            self.send_flight(turn, id);
        } else {
            flight.stage = Stage::Parked;
            self.parked.push((tree, id));
        }
        self.arm(resend);
    }

    /// Takes a flight away from where it is, so that it can be sent elsewhere or end.
    pub(super) fn unseat(&mut self, id: RequestId) {
        let Some(flight) = self.flights.get_mut(id) else {
            return;
        };
        let tree = flight.tree;
        let stage = core::mem::replace(&mut flight.stage, Stage::Parked);
        match stage {
            Stage::Peer { .. } | Stage::Transfer { .. } => self.outstanding[usize::from(tree)] -= 1,
            Stage::Parked => self.parked.retain(|&(_, other)| other != id),
            Stage::Origin => {}
        }
    }

    /// Sends flights that waited for a credit.
    fn unpark(&mut self, turn: &mut Turn<'_>, tree: TreeIndex) {
        while self.outstanding[usize::from(tree)] < self.plan.settings.credits {
            let next = self.parked.iter().position(|&(other, _)| other == tree);
            let Some(next) = next else { return };
            let (_, id) = self.parked.remove(next);
            self.dispatch(turn, id);
        }
    }

    /// Sends the message of a flight that is at a peer.
    pub(super) fn send_flight(&mut self, turn: &mut Turn<'_>, id: RequestId) {
        let epoch = self.epochs.now();
        let Some(flight) = self.flights.get_mut(id) else {
            return;
        };
        let Stage::Peer { rank, stand_in } = flight.stage else {
            return;
        };
        let Some(open) = self.opens.get(flight.open) else {
            return;
        };
        let message = match (flight.part, &open.body) {
            (Part::Header, _) => Message::Request {
                request: id,
                object: open.object.clone(),
                avoid: open.avoid,
                stand_in,
                epoch,
            },
            (Part::Chunk(chunk), Some(body)) => Message::Pull {
                request: id,
                record: Arc::clone(&body.record),
                chunk,
                stand_in,
                epoch,
            },
            (Part::Chunk(_), None) => return,
        };
        turn.send(rank, message);
    }

    fn ask_origin(&mut self, turn: &mut Turn<'_>, id: RequestId) {
        let due = turn.now.after(self.plan.settings.patience);
        let Some(flight) = self.flights.get_mut(id) else {
            return;
        };
        flight.stage = Stage::Origin;
        flight.due = due;
        let Some(open) = self.opens.get(flight.open) else {
            return;
        };
        let request = match (flight.part, &open.body) {
            (Part::Header, _) => {
                self.counters.origin_looks += 1;
                OriginRequest::Look {
                    object: open.object.clone(),
                }
            }
            (Part::Chunk(chunk), Some(body)) => {
                self.counters.origin_reads += 1;
                OriginRequest::Read {
                    record: Arc::clone(&body.record),
                    chunk,
                }
            }
            (Part::Chunk(_), None) => return,
        };
        turn.actions.push(Action::AskOrigin { id, request });
        self.arm(due);
    }

    /// A peer that takes the root for lost asks this root in its place: if this node still waits for
    /// somebody below the lost root, both would wait for each other, so it asks the origin now.
    pub(super) fn take_over(&mut self, turn: &mut Turn<'_>, slot: u32, part: Part) {
        let Some(open) = self.opens.get(slot) else {
            return;
        };
        let id = match part {
            Part::Header => open.header,
            Part::Chunk(_) => open.body.as_ref().and_then(|body| {
                body.flights
                    .iter()
                    .copied()
                    .find(|&id| self.flights.part(id) == Some(part))
            }),
        };
        let Some(id) = id else { return };
        if let Some(flight) = self.flights.get_mut(id)
            && !flight.at_origin
            && matches!(flight.stage, Stage::Peer { .. } | Stage::Parked)
        {
            flight.at_origin = true;
            self.dispatch(turn, id);
        }
    }

    /// Ends a flight and gives its credit to the next.
    pub(super) fn land(&mut self, turn: &mut Turn<'_>, id: RequestId) -> Option<Flight> {
        self.unseat(id);
        let flight = self.flights.remove(id)?;
        self.unpark(turn, flight.tree);
        Some(flight)
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
        if !well_delivered || asked != Some(&record.object) {
            self.counters.dropped += 1;
            return;
        }
        if self.is_outdated(epoch, &record.object) {
            self.postpone(turn, request);
            return;
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

    /// Asks the same peer again a little later.
    pub(super) fn postpone(&mut self, turn: &mut Turn<'_>, id: RequestId) {
        let due = turn.now.after(self.plan.settings.resend / 4);
        if let Some(flight) = self.flights.get_mut(id) {
            flight.heard = turn.now;
            flight.due = due;
        }
        self.arm(due);
    }

    pub(super) fn on_refusal(
        &mut self,
        turn: &mut Turn<'_>,
        from: Rank,
        request: RequestId,
        reason: Reason,
    ) {
        let found = self
            .flights
            .get_mut(request)
            .and_then(|flight| match flight.stage {
                Stage::Peer { rank, .. } if rank == from => Some((flight.open, flight.part)),
                _ => None,
            });
        let Some((slot, part)) = found else {
            self.counters.dropped += 1;
            return;
        };
        match (reason, part) {
            (Reason::Pending, _) => {
                if let Some(flight) = self.flights.get_mut(request) {
                    flight.heard = turn.now;
                }
            }
            (Reason::Busy, _) => self.postpone(turn, request),
            (Reason::Unavailable, _) => self.avoid_peer(turn, request, from),
            (Reason::Changed, Part::Chunk(_)) => {
                let stamp = self.opens.get(slot).and_then(|open| open.body.as_ref());
                let stamp = stamp.map_or(0, |body| body.record.stamp());
                self.restart(turn, slot, stamp);
            }
            (Reason::Changed, Part::Header) => self.postpone(turn, request),
            (Reason::Failed { errno }, _) => {
                self.give_up(turn, slot, &Answer::Failed { errno }, reason)
            }
        }
    }

    /// Asks the next rung after `from` for this one flight.
    fn avoid_peer(&mut self, turn: &mut Turn<'_>, id: RequestId, from: Rank) {
        let Some(tree) = self.flights.get_mut(id).map(|flight| flight.tree) else {
            return;
        };
        let next = self
            .plan
            .topology
            .ladder(tree, self.rank)
            .skip_while(|rung| rung.rank != from)
            .find(|rung| rung.rank != from && !self.peers.is_shunned(rung.rank, turn.now));
        let Some(rung) = next else {
            self.unseat(id);
            self.ask_origin(turn, id);
            return;
        };
        let due = turn.now.after(self.plan.settings.resend);
        if let Some(flight) = self.flights.get_mut(id) {
            flight.stage = Stage::Peer {
                rank: rung.rank,
                stand_in: rung.stand_in,
            };
            flight.heard = turn.now;
            flight.due = due;
        }
        self.send_flight(turn, id);
        self.arm(due);
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

    /// Our store cannot hold this object: local waiters go without, peers go elsewhere.
    pub(super) fn no_space(&mut self, turn: &mut Turn<'_>, slot: u32) {
        if let Some(object) = self.opens.get(slot).map(|open| open.object.clone()) {
            self.mark_unstorable(&object, turn.now);
        }
        self.give_up(turn, slot, &Answer::NoSpace, Reason::Unavailable);
    }

    /// Whether the record's body, if any, travels in the answer.
    pub(super) fn rides_inline(&self, record: &Record) -> bool {
        record.length() <= u64::from(self.plan.settings.inline_limit)
    }

    fn body_came_with_look(&self, record: &Record) -> bool {
        record.object.kind() != super::super::object::Kind::Content || self.rides_inline(record)
    }

    /// The object is known and its body, if any, is in the store: tell everybody.
    pub(super) fn conclude(&mut self, turn: &mut Turn<'_>, slot: u32, record: Arc<Record>) {
        let Some(open) = self.close(turn, slot) else {
            return;
        };
        self.counters.published += 1;
        turn.actions.push(Action::Publish(Arc::clone(&record)));
        self.known
            .insert_unique(record.object.hash(), Arc::clone(&record), |other| {
                other.object.hash()
            });
        for (waiter, _) in open.waiters {
            let answer = Answer::Known(Arc::clone(&record));
            turn.actions.push(Action::Answer {
                waiter,
                object: record.object.clone(),
                answer,
            });
        }
        for asker in open.askers {
            self.peers.let_go(asker.rank);
            self.answer_peer(turn, asker, &record);
        }
        if let Some(body) = open.body {
            for pull in body.pulls {
                self.offer(turn, pull, Arc::clone(&record));
            }
        }
    }

    pub(super) fn answer_peer(&mut self, turn: &mut Turn<'_>, asker: Asker, record: &Arc<Record>) {
        let delivery = match record.length() {
            0 => Delivery::Bare,
            _ if self.rides_inline(record) => Delivery::Inline,
            _ => Delivery::Chunked,
        };
        let epoch = self.epochs.now();
        let record = Arc::clone(record);
        turn.send(
            asker.rank,
            Message::Answer {
                request: asker.request,
                record,
                delivery,
                epoch,
            },
        );
    }

    pub(super) fn refuse(&mut self, turn: &mut Turn<'_>, asker: Asker, reason: Reason) {
        let epoch = self.epochs.now();
        turn.send(
            asker.rank,
            Message::Refusal {
                request: asker.request,
                reason,
                epoch,
            },
        );
    }

    /// Takes an object out of what is under way, and ends its flights.
    fn close(&mut self, turn: &mut Turn<'_>, slot: u32) -> Option<Open> {
        let open = self.opens.remove(slot)?;
        self.waiting -= open.waiters.len() as u32;
        if let Some(id) = open.header {
            self.land(turn, id);
        }
        if let Some(body) = &open.body {
            body.flights.iter().for_each(|&id| self.cancel(turn, id));
        }
        Some(open)
    }

    /// Tells everybody who waits for an object that it will not come.
    pub(super) fn give_up(
        &mut self,
        turn: &mut Turn<'_>,
        slot: u32,
        answer: &Answer,
        reason: Reason,
    ) {
        let Some(open) = self.close(turn, slot) else {
            return;
        };
        for (waiter, _) in open.waiters {
            self.counters.timeouts += u64::from(*answer == Answer::TimedOut);
            let object = open.object.clone();
            turn.actions.push(Action::Answer {
                waiter,
                object,
                answer: answer.clone(),
            });
        }
        for asker in open.askers {
            self.peers.let_go(asker.rank);
            self.refuse(turn, asker, reason);
        }
        if let Some(body) = open.body {
            for pull in body.pulls {
                self.peers.let_go(pull.rank);
                self.refuse(
                    turn,
                    Asker {
                        rank: pull.rank,
                        request: pull.request,
                    },
                    reason,
                );
            }
            self.drop_grants_of(turn, &open.object, reason);
            turn.actions.push(Action::Discard(body.record));
        }
    }

    /// Gives up an object because it makes no progress.
    pub(super) fn abandon(&mut self, turn: &mut Turn<'_>, slot: u32) {
        self.give_up(
            turn,
            slot,
            &Answer::TimedOut,
            Reason::Failed { errno: ETIMEDOUT },
        );
    }

    /// Begins anew, because the version with this stamp is gone, or (0) because of an invalidation.
    pub(super) fn restart(&mut self, turn: &mut Turn<'_>, slot: u32, gone: u64) {
        let Some(open) = self.opens.get_mut(slot) else {
            return;
        };
        open.restarts += u8::from(gone != 0);
        open.moved = turn.now;
        open.avoid = gone;
        if open.restarts > MOST_RESTARTS {
            self.give_up(
                turn,
                slot,
                &Answer::Failed { errno: ESTALE },
                Reason::Failed { errno: ESTALE },
            );
            return;
        }
        let header = open.header.take();
        let body = open.body.take();
        if let Some(id) = header {
            self.land(turn, id);
        }
        if let Some(body) = body {
            // What only this node gave up its peers may ask for again.
            let reason = if gone == 0 {
                Reason::Busy
            } else {
                Reason::Changed
            };
            self.drop_body(turn, &body, reason);
        }
        let wanted = self
            .opens
            .get(slot)
            .is_some_and(|open| !open.waiters.is_empty() || !open.askers.is_empty());
        if wanted {
            self.launch(turn, slot, Part::Header, false);
        } else {
            self.opens.remove(slot);
        }
    }

    /// The object is present and its body is to come in chunks: pass that on, and begin to pull.
    pub(super) fn begin_body(&mut self, turn: &mut Turn<'_>, slot: u32, record: Arc<Record>) {
        let chunks = self.plan.settings.chunks(record.length());
        if let Outcome::Present { .. } = record.outcome
            && chunks == u32::MAX
        {
            self.no_space(turn, slot);
            return;
        }
        let Some(open) = self.opens.get_mut(slot) else {
            return;
        };
        open.moved = turn.now;
        open.avoid = 0;
        open.header = None;
        open.body = Some(alloc::boxed::Box::new(super::open::Body::new(
            Arc::clone(&record),
            chunks,
        )));
        for asker in core::mem::take(&mut open.askers) {
            self.peers.let_go(asker.rank);
            self.answer_peer(turn, asker, &record);
        }
        self.want_whole(turn, slot);
    }
}
