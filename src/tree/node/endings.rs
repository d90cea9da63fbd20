//! How what is under way ends: known and published, given up, begun anew, or gone on in chunks.

use super::{
    Action, Answer, Arc, Asker, Delivery, ESTALE, ETIMEDOUT, MOST_RESTARTS, Message, Node, Open,
    Part, Reason, Record, Turn,
};

impl Node {
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

    pub(super) fn body_came_with_look(&self, record: &Record) -> bool {
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
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, slot: u32) -> Option<Open> {
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
