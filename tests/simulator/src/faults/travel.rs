//! What travels in a fault run: messages, chunks, and what the origin is asked, each with what goes
//! wrong on its way.

use copper_core::tree::{
    Event, Kind, Message, Object, OriginReply, OriginRequest, Rank, Record, RequestId,
    TransferError,
};
use fastrand::Rng;
use std::sync::Arc;

use super::schedule::{Fault, MS};
use super::world::{Happening, World};

impl World {
    pub(super) fn deliver(&mut self, to: Rank, from: Rank, wire: &[u8]) {
        if !self.is_alive(to) || self.is_cut(from, to) {
            return;
        }
        let (message, attachment) = match Message::decode(wire) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.judge
                    .fail(format!("a message of node {from} does not decode: {error}"));
                return;
            }
        };
        if let Some(defect) = self.defect
            && !defect.lets_message_in(&message)
        {
            return;
        }
        debug_assert_eq!(
            message.body().map_or(0, |record| record.length()),
            attachment.len() as u64
        );
        let body = message.body().map(Arc::clone);
        self.handle(to, Event::Message { from, message }, body);
    }

    pub(super) fn origin_done(
        &mut self,
        rank: Rank,
        incarnation: u32,
        id: RequestId,
        request: &OriginRequest,
        began: u64,
    ) {
        if self.seats[rank as usize].incarnation != incarnation || !self.is_alive(rank) {
            return;
        }
        let mut reply = self
            .origin
            .reply(request, began, self.now, &self.schedule.faults);
        let full = self.is_store_full(rank);
        let chunks = |record: &Record| self.plan.settings.chunks(record.length());
        let seat = &mut self.seats[rank as usize];
        match (&reply, request) {
            (OriginReply::Known(outcome), OriginRequest::Look { object }) => {
                let record = Record {
                    object: object.clone(),
                    outcome: *outcome,
                };
                let inline = record.length() <= u64::from(self.plan.settings.inline_limit);
                if record.is_present() && (inline || object.kind() != Kind::Content) {
                    if full {
                        reply = OriginReply::NoSpace;
                    } else {
                        seat.store.put_whole(object, record.stamp());
                    }
                }
            }
            (OriginReply::Stored, OriginRequest::Read { record, chunk }) => {
                if full {
                    reply = OriginReply::NoSpace;
                } else {
                    seat.store
                        .put_chunk(&record.object, record.stamp(), *chunk, chunks(record));
                }
            }
            _ => {}
        }
        self.handle(rank, Event::Origin { id, reply }, None);
    }

    pub(super) fn transfer_done(
        &mut self,
        rank: Rank,
        incarnation: u32,
        id: RequestId,
        from: Rank,
        record: &Arc<Record>,
        chunk: u32,
    ) {
        if self.seats[rank as usize].incarnation != incarnation || !self.is_alive(rank) {
            return;
        }
        let store = &self.seats[from as usize].store;
        let there = store.has_chunk(&record.object, record.stamp(), chunk);
        let reachable =
            self.is_alive(from) && !self.is_cut(from, rank) && !self.are_transfers_broken(rank);
        let result = if !reachable || !there {
            Err(TransferError::Peer)
        } else if self.is_store_full(rank) {
            Err(TransferError::NoSpace)
        } else {
            if self
                .defect
                .is_none_or(|defect| defect.lets_chunk_in(&mut self.random))
            {
                let of = self.plan.settings.chunks(record.length());
                let store = &mut self.seats[rank as usize].store;
                store.put_chunk(&record.object, record.stamp(), chunk, of);
            }
            Ok(())
        };
        self.handle(rank, Event::Transferred { id, result }, None);
    }

    pub(super) fn ask_origin(&mut self, rank: Rank, id: RequestId, request: OriginRequest) {
        self.origin.count(&request);
        let object = match &request {
            OriginRequest::Look { object } => object,
            OriginRequest::Read { record, .. } => &record.object,
        };
        let file = self.origin.file(object);
        let mut ends = self.now + self.random.u64(1..=self.schedule.origin_delay);
        for fault in &self.schedule.faults {
            match *fault {
                Fault::OriginHang { file: f, at, until }
                    if f == file && (at..until).contains(&self.now) =>
                {
                    ends = ends.max(until);
                }
                Fault::OriginSilence { file: f, at, until }
                    if f == file && (at..until).contains(&self.now) =>
                {
                    return;
                }
                _ => {}
            }
        }
        let incarnation = self.seats[rank as usize].incarnation;
        let began = self.now;
        self.queue.push(
            ends,
            Happening::OriginDone {
                rank,
                incarnation,
                id,
                request,
                began,
            },
        );
    }

    pub(super) fn send(&mut self, from: Rank, to: Rank, message: &Message, failed: &[Object]) {
        let mut wire = Vec::new();
        message.encode(&mut wire);
        if let Some(record) = message.body() {
            if failed.contains(&record.object) {
                return;
            }
            if !self.seats[from as usize].store.is_whole(record) {
                self.judge.fail(format!(
                    "node {from} sends {record:?} inline without having it"
                ));
            }
            wire.resize(wire.len() + record.length() as usize, 0);
        }
        let mut delay = self.random.u64(2_000..50_000);
        for i in 0..self.schedule.faults.len() {
            match self.schedule.faults[i] {
                Fault::Loss {
                    at,
                    until,
                    per_mille,
                } if (at..until).contains(&self.now) && strikes(&mut self.random, per_mille) => {
                    return;
                }
                Fault::Delay { at, until, up_to } if (at..until).contains(&self.now) => {
                    delay += self.random.u64(0..up_to);
                }
                Fault::Duplication {
                    at,
                    until,
                    per_mille,
                } if (at..until).contains(&self.now) && strikes(&mut self.random, per_mille) => {
                    let later = self.now + self.random.u64(0..10_000 * MS);
                    self.queue.push(
                        later,
                        Happening::Deliver {
                            to,
                            from,
                            wire: wire.clone(),
                        },
                    );
                }
                _ => {}
            }
        }
        let arrives = self.slowed(to, self.now + delay);
        self.queue
            .push(arrives, Happening::Deliver { to, from, wire });
    }

    /// When a node gets round to what arrives at `at`.
    pub(super) fn slowed(&mut self, rank: Rank, at: u64) -> u64 {
        let cost = self.schedule.faults.iter().find_map(|fault| match *fault {
            Fault::Slow {
                rank: r,
                at: from,
                until,
                per_event,
            } if r == rank && (from..until).contains(&at) => Some(per_event),
            _ => None,
        });
        let Some(cost) = cost else { return at };
        let seat = &mut self.seats[rank as usize];
        seat.busy = seat.busy.max(at) + cost;
        seat.busy
    }

    pub(super) fn is_cut(&self, a: Rank, b: Rank) -> bool {
        self.schedule.faults.iter().any(|fault| match fault {
            Fault::Partition { side, at, heals } => {
                (*at..*heals).contains(&self.now) && side.get(a as usize) != side.get(b as usize)
            }
            _ => false,
        })
    }

    pub(super) fn is_store_full(&self, rank: Rank) -> bool {
        self.schedule.faults.iter().any(|fault| match *fault {
            Fault::StoreFull { rank: r, at, until } => r == rank && (at..until).contains(&self.now),
            _ => false,
        })
    }

    pub(super) fn are_transfers_broken(&self, rank: Rank) -> bool {
        self.schedule.faults.iter().any(|fault| match *fault {
            Fault::BrokenTransfers { rank: r, at, until } => {
                r == rank && (at..until).contains(&self.now)
            }
            _ => false,
        })
    }
}

fn strikes(random: &mut Rng, per_mille: u32) -> bool {
    random.u32(0..1_000) < per_mille
}
