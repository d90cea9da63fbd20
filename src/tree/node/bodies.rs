//! Bringing in a body chunk by chunk, each from its own tree, and passing chunks on as they come.

use super::super::interface::TransferError;
use super::open::{Body, Lane, Pull};
use super::{
    Action, Arc, Asker, Epoch, Message, Node, Outcome, Part, Rank, Reason, Record, RequestId,
    Stage, Turn,
};

/// Failed transfers of one chunk from one peer after which the peer is taken for lost.
const MOST_FAILURES: u8 = 2;

impl Node {
    /// If somebody on this node waits for this object, all of its body is to come.
    pub(super) fn want_whole(&mut self, turn: &mut Turn<'_>, slot: u32) {
        let trees = self.plan.topology.trees();
        let Some(open) = self.opens.get_mut(slot) else {
            return;
        };
        let object = open.object.clone();
        let wanted = !open.waiters.is_empty();
        let Some(body) = &mut open.body else { return };
        if !wanted || body.whole {
            return;
        }
        body.whole = true;
        body.lanes = (0..trees)
            .map(|_| Lane {
                next: u32::MAX,
                flying: 0,
            })
            .collect();
        for chunk in 0..body.chunks.min(u32::from(trees)) {
            let tree = object.chunk_tree(&self.plan.topology, chunk);
            if let Some(lane) = body.lane(tree) {
                lane.next = lane.next.min(chunk);
            }
        }
        for &id in &body.flights {
            if let Some(flight) = self.flights.get_mut(id)
                && let Some(lane) = body.lanes.get_mut(usize::from(flight.tree))
            {
                lane.flying += 1;
            }
        }
        self.pump(turn, slot);
    }

    /// Asks for more chunks, as many as the window of each tree allows.
    pub(super) fn pump(&mut self, turn: &mut Turn<'_>, slot: u32) {
        while let Some(chunk) = self.next_chunk(slot) {
            self.launch(turn, slot, Part::Chunk(chunk), false);
        }
    }

    fn next_chunk(&mut self, slot: u32) -> Option<u32> {
        let topology = self.plan.topology;
        let window = self.plan.settings.window;
        let open = self.opens.get_mut(slot)?;
        let object = open.object.clone();
        let body = open.body.as_mut().filter(|body| body.whole)?;
        // A file's chunks go round all trees; those of any other body are all in one.
        let step = if object.kind() == super::super::object::Kind::Content {
            topology.trees()
        } else {
            1
        };
        while let Some(chunk) = body.again.pop() {
            if !body.has(chunk) && !body.is_asked(chunk) {
                return Some(chunk);
            }
        }
        for tree in 0..body.lanes.len() {
            if body.lanes[tree].flying >= window {
                continue;
            }
            loop {
                let chunk = body.lanes[tree].next;
                if chunk >= body.chunks {
                    break;
                }
                body.lanes[tree].next = chunk.saturating_add(u32::from(step));
                if !body.has(chunk) && !body.is_asked(chunk) {
                    return Some(chunk);
                }
            }
        }
        None
    }

    pub(super) fn on_pull(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        record: Arc<Record>,
        chunk: u32,
        (stand_in, epoch): (bool, Epoch),
    ) {
        let tree = record.object.chunk_tree(&self.plan.topology, chunk);
        let chunks = self.plan.settings.chunks(record.length());
        if !self.may_ask(tree, asker.rank, stand_in)
            || chunk >= chunks
            || self.rides_inline(&record)
            || record.length() > self.plan.settings.largest
        {
            self.counters.dropped += 1;
            return;
        }
        if self.is_granted(turn, asker, chunk) {
            return;
        }
        // What the peer knows may be from before a change that this node knows.
        if self.is_outdated(epoch, &record.object) && !self.agrees(&record) {
            self.refuse(turn, asker, Reason::Busy);
            return;
        }
        let pull = Pull {
            rank: asker.rank,
            request: asker.request,
            chunk,
        };
        if let Some(known) = self.lookup(&record.object).map(Arc::clone) {
            if is_newer(&record, &known) {
                self.forget(&record.object);
                self.drop_grants_of(turn, &record.object, Reason::Changed);
                turn.actions.push(Action::Forget(known));
            } else {
                self.serve_known(turn, pull, &record, known);
                return;
            }
        }
        let Some(slot) = self.body_for_pull(turn, asker, &record) else {
            return;
        };
        self.add_pull(turn, slot, pull, stand_in);
    }

    fn serve_known(
        &mut self,
        turn: &mut Turn<'_>,
        pull: Pull,
        wanted: &Record,
        known: Arc<Record>,
    ) {
        let asker = Asker {
            rank: pull.rank,
            request: pull.request,
        };
        if known.stamp() != wanted.stamp() {
            self.refuse(turn, asker, Reason::Changed);
        } else if self.peers.take_on(pull.rank, self.plan.most_per_peer()) {
            self.offer(turn, pull, known);
        } else {
            self.counters.refused += 1;
            self.refuse(turn, asker, Reason::Busy);
        }
    }

    /// Whether this node has, or is bringing, just this version.
    fn agrees(&self, record: &Record) -> bool {
        let under_way = self
            .opens
            .find(&record.object)
            .and_then(|slot| self.opens.get(slot));
        let body = under_way
            .and_then(|open| open.body.as_ref())
            .map(|body| &body.record);
        let ours = self.lookup(&record.object).or(body);
        ours.is_some_and(|ours| ours.stamp() == record.stamp())
    }

    /// The body under way that a pull is for, begun if there is none.
    fn body_for_pull(
        &mut self,
        turn: &mut Turn<'_>,
        asker: Asker,
        record: &Arc<Record>,
    ) -> Option<u32> {
        if self.is_unstorable(&record.object, turn.now) {
            self.refuse(turn, asker, Reason::Unavailable);
            return None;
        }
        let Some((slot, _)) = self.open_slot(turn, &record.object) else {
            self.counters.refused += 1;
            self.refuse(turn, asker, Reason::Busy);
            return None;
        };
        let open = self.opens.get(slot)?;
        match &open.body {
            Some(body) if body.record.stamp() == record.stamp() => return Some(slot),
            Some(body) if !is_newer(record, &body.record) => {
                self.refuse(turn, asker, Reason::Changed);
                return None;
            }
            None if open.avoid == record.stamp() => {
                self.refuse(turn, asker, Reason::Changed);
                return None;
            }
            _ => {}
        }
        self.adopt(turn, slot, record);
        Some(slot)
    }

    /// Takes what an object is from a peer's pull, in place of what is under way here.
    fn adopt(&mut self, turn: &mut Turn<'_>, slot: u32, record: &Arc<Record>) {
        let Some(open) = self.opens.get_mut(slot) else {
            return;
        };
        let header = open.header.take();
        let old = open.body.take();
        if let Some(id) = header {
            self.land(turn, id);
        }
        if let Some(old) = old {
            self.drop_body(turn, &old, Reason::Changed);
        }
        self.begin_body(turn, slot, Arc::clone(record));
    }

    /// Ends a body's flights, and tells those who pull it why.
    pub(super) fn drop_body(&mut self, turn: &mut Turn<'_>, body: &Body, reason: Reason) {
        body.flights.iter().for_each(|&id| self.cancel(turn, id));
        for pull in &body.pulls {
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
        self.drop_grants_of(turn, &body.record.object, reason);
        turn.actions.push(Action::Discard(Arc::clone(&body.record)));
    }

    fn add_pull(&mut self, turn: &mut Turn<'_>, slot: u32, pull: Pull, stand_in: bool) {
        let asker = Asker {
            rank: pull.rank,
            request: pull.request,
        };
        let Some(body) = self.opens.get_mut(slot).and_then(|open| open.body.as_mut()) else {
            return;
        };
        let waiting = body
            .pulls
            .iter_mut()
            .find(|other| other.rank == pull.rank && other.chunk == pull.chunk);
        if let Some(waiting) = waiting {
            waiting.request = pull.request;
            self.refuse(turn, asker, Reason::Pending);
        } else if !self.peers.take_on(pull.rank, self.plan.most_per_peer()) {
            self.counters.refused += 1;
            self.refuse(turn, asker, Reason::Busy);
            return;
        } else if body.has(pull.chunk) {
            let record = Arc::clone(&body.record);
            self.offer(turn, pull, record);
            return;
        } else {
            body.pulls.push(pull);
        }
        let asked = self.opens.get(slot).and_then(|open| open.body.as_ref());
        if !asked.is_some_and(|body| body.is_asked(pull.chunk)) {
            self.launch(turn, slot, Part::Chunk(pull.chunk), stand_in);
        } else if stand_in {
            self.take_over(turn, slot, Part::Chunk(pull.chunk));
        }
    }

    pub(super) fn on_grant(
        &mut self,
        turn: &mut Turn<'_>,
        from: Rank,
        request: RequestId,
        chunk: u32,
    ) {
        let due = turn.now.after(self.plan.settings.transfer);
        let expected = self.flights.get_mut(request).filter(|flight| {
            flight.part == Part::Chunk(chunk)
                && matches!(flight.stage, Stage::Peer { rank, .. } if rank == from)
        });
        let Some(flight) = expected else {
            self.counters.dropped += 1;
            turn.send(from, Message::Release { request });
            return;
        };
        flight.stage = Stage::Transfer { from };
        flight.due = due;
        let body = self
            .opens
            .get(flight.open)
            .and_then(|open| open.body.as_ref());
        let Some(record) = body.map(|body| Arc::clone(&body.record)) else {
            return;
        };
        turn.actions.push(Action::Transfer {
            id: request,
            from,
            record,
            chunk,
        });
        self.arm(due);
    }

    pub(super) fn on_transferred(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        result: Result<(), TransferError>,
    ) {
        let found = self
            .flights
            .get_mut(id)
            .and_then(|flight| match (flight.stage, flight.part) {
                (Stage::Transfer { from }, Part::Chunk(chunk)) => Some((flight.open, from, chunk)),
                _ => None,
            });
        let Some((slot, from, chunk)) = found else {
            self.counters.dropped += 1;
            return;
        };
        turn.send(from, Message::Release { request: id });
        match result {
            Ok(()) => {
                self.counters.chunks += 1;
                let settings = &self.plan.settings;
                let body = self.opens.get(slot).and_then(|open| open.body.as_ref());
                let bytes = body.map_or(0, |body| settings.extent(body.record.length(), chunk).1);
                self.counters.bytes_from_peers += u64::from(bytes);
                self.chunk_here(turn, id, chunk);
            }
            Err(TransferError::NoSpace) => self.no_space(turn, slot),
            Err(TransferError::Peer) => self.transfer_failed(turn, id, from),
        }
    }

    /// Asks for a chunk again under a new id, so that a transfer that reports late finds nothing.
    pub(super) fn transfer_failed(&mut self, turn: &mut Turn<'_>, id: RequestId, from: Rank) {
        let Some(flight) = self.end_chunk_flight(turn, id) else {
            return;
        };
        let Part::Chunk(chunk) = flight.part else {
            return;
        };
        let failures = flight.failures + 1;
        if failures >= MOST_FAILURES {
            self.lose(turn, from);
        }
        if self.opens.get(flight.open).is_some() {
            self.launch(turn, flight.open, Part::Chunk(chunk), flight.at_origin);
            let body = self
                .opens
                .get(flight.open)
                .and_then(|open| open.body.as_ref());
            if let Some(&id) = body.and_then(|body| body.flights.last())
                && let Some(flight) = self.flights.get_mut(id)
            {
                flight.failures = failures;
            }
        }
    }

    /// Ends the flight of a chunk and forgets that the chunk was asked for.
    fn end_chunk_flight(&mut self, turn: &mut Turn<'_>, id: RequestId) -> Option<super::Flight> {
        let flight = self.land(turn, id)?;
        if let (Part::Chunk(chunk), Some(body)) = (
            flight.part,
            self.opens
                .get_mut(flight.open)
                .and_then(|open| open.body.as_mut()),
        ) {
            body.flights.retain(|&other| other != id);
            body.set_asked(chunk, false);
            if let Some(lane) = body.lane(flight.tree) {
                lane.flying = lane.flying.saturating_sub(1);
            }
        }
        Some(flight)
    }

    /// Ends the flight of a chunk whose body is given up.
    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, id: RequestId) {
        let peer = self
            .flights
            .get_mut(id)
            .and_then(|flight| match (flight.stage, flight.part) {
                (Stage::Transfer { from } | Stage::Peer { rank: from, .. }, Part::Chunk(_)) => {
                    Some(from)
                }
                _ => None,
            });
        self.land(turn, id);
        if let Some(from) = peer {
            turn.send(from, Message::Release { request: id });
        }
    }

    /// A chunk is in the store file: pass it on, ask for the next, and see whether it was the last.
    pub(super) fn chunk_here(&mut self, turn: &mut Turn<'_>, id: RequestId, chunk: u32) {
        let Some(flight) = self.end_chunk_flight(turn, id) else {
            return;
        };
        let slot = flight.open;
        let Some(open) = self.opens.get_mut(slot) else {
            return;
        };
        open.moved = turn.now;
        let Some(body) = &mut open.body else { return };
        body.set(chunk);
        let record = Arc::clone(&body.record);
        let ready: alloc::vec::Vec<Pull> = body
            .pulls
            .extract_if(.., |pull| pull.chunk == chunk)
            .collect();
        let complete = body.missing == 0;
        for pull in ready {
            self.offer(turn, pull, Arc::clone(&record));
        }
        if complete {
            self.conclude(turn, slot, record);
        } else {
            self.pump(turn, slot);
        }
    }
}

/// Whether `record` is of a later state of the file than `other`.
fn is_newer(record: &Record, other: &Record) -> bool {
    match (record.outcome, other.outcome) {
        (Outcome::Present { version: new, .. }, Outcome::Present { version: old, .. }) => {
            new.changed > old.changed
        }
        (Outcome::Present { .. }, _) => true,
        _ => false,
    }
}
