//! Asking those above, or the origin: whom, when again, and whom next.

use super::super::topology::{Rung, TreeIndex};
use super::{
    Action, Answer, Arc, Flight, Message, Node, OriginRequest, Part, Rank, Reason, RequestId,
    Stage, Time, Turn,
};

impl Node {
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
    pub(super) fn unpark(&mut self, turn: &mut Turn<'_>, tree: TreeIndex) {
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
        self.counters.requests_up += 1;
        turn.send(rank, message);
    }

    pub(super) fn ask_origin(&mut self, turn: &mut Turn<'_>, id: RequestId) {
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
    pub(super) fn avoid_peer(&mut self, turn: &mut Turn<'_>, id: RequestId, from: Rank) {
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
}
