//! What happens when something takes too long, and when a peer is lost.

use alloc::vec::Vec;

use super::{Action, Answer, Message, Node, Rank, RequestId, Stage, Time, Turn};

impl Node {
    pub(super) fn on_timer(&mut self, turn: &mut Turn<'_>) {
        if turn.now < self.due {
            return;
        }
        self.expire_waiters(turn);
        self.expire_flights(turn);
        self.expire_opens(turn);
        self.expire_grants(turn);
        self.expire_waves(turn);
        self.due = self.earliest_due();
    }

    fn earliest_due(&self) -> Time {
        let waiters = self
            .opens
            .iter()
            .flat_map(|(_, open)| open.waiters.iter().map(|&(_, deadline)| deadline));
        let moving = self.opens.iter().filter(|(_, open)| !open.is_idle());
        let opens = moving.map(|(_, open)| open.moved.after(self.plan.settings.patience));
        let flights = self.flights.iter().map(|(_, flight)| flight.due);
        let others = [self.grants.due(), self.waves.due()];
        waiters
            .chain(opens)
            .chain(flights)
            .chain(others)
            .min()
            .unwrap_or(Time::NEVER)
    }

    fn expire_waiters(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let slots: Vec<u32> = self
            .opens
            .iter()
            .filter(|(_, open)| open.waiters.iter().any(|&(_, deadline)| deadline <= now))
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            let Some(open) = self.opens.get_mut(slot) else {
                continue;
            };
            let (waiting, counters, object) = (&mut self.waiting, &mut self.counters, &open.object);
            open.waiters.retain(|&mut (waiter, deadline)| {
                let expired = deadline <= now;
                if expired {
                    *waiting -= 1;
                    counters.timeouts += 1;
                    turn.actions.push(Action::Answer {
                        waiter,
                        object: object.clone(),
                        answer: Answer::TimedOut,
                    });
                }
                !expired
            });
        }
    }

    fn expire_flights(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let due: Vec<RequestId> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.due <= now)
            .map(|(id, _)| id)
            .collect();
        for id in due {
            let Some(flight) = self.flights.get_mut(id).filter(|flight| flight.due <= now) else {
                continue;
            };
            let (stage, slot, heard) = (flight.stage, flight.open, flight.heard);
            match stage {
                Stage::Peer { rank, .. } if now >= heard.after(self.plan.settings.silence) => {
                    self.lose(turn, rank);
                }
                Stage::Peer { .. } => {
                    flight.due = now.after(self.plan.settings.resend);
                    self.counters.retries += 1;
                    self.send_flight(turn, id);
                }
                Stage::Parked => self.dispatch(turn, id),
                Stage::Transfer { from } => self.transfer_failed(turn, id, from),
                Stage::Origin => self.abandon(turn, slot),
            }
        }
    }

    fn expire_opens(&mut self, turn: &mut Turn<'_>) {
        let (now, patience) = (turn.now, self.plan.settings.patience);
        let stuck: Vec<u32> = self
            .opens
            .iter()
            .filter(|(_, open)| !open.is_idle() && open.moved.after(patience) <= now)
            .map(|(slot, _)| slot)
            .collect();
        stuck.into_iter().for_each(|slot| self.abandon(turn, slot));
    }

    /// Takes a peer for lost: what it was asked for is asked of others.
    pub(super) fn lose(&mut self, turn: &mut Turn<'_>, rank: Rank) {
        let trees = 0..self.plan.topology.trees();
        let first =
            |tree: &u16| self.best_rung(*tree, turn.now).map(|rung| rung.rank) == Some(rank);
        let asked_first = trees.filter(first).count() as u64;
        if self.peers.shun(rank, self.plan.settings.shun, turn.now) {
            self.counters.losses += 1;
            self.counters.reparentings += asked_first;
        }
        let stranded: Vec<(RequestId, bool)> = self
            .flights
            .iter()
            .filter_map(|(id, flight)| match flight.stage {
                Stage::Peer { rank: other, .. } if other == rank => Some((id, false)),
                Stage::Transfer { from } if from == rank => Some((id, true)),
                _ => None,
            })
            .collect();
        for (id, transferring) in stranded {
            if transferring {
                self.transfer_failed(turn, id, rank);
            } else {
                self.dispatch(turn, id);
            }
        }
        self.reroute_waves(turn, rank);
    }

    /// What this node and the peer missed of each other's changes is told both ways.
    pub(super) fn on_peer_back(&mut self, turn: &mut Turn<'_>, rank: Rank) {
        self.peers.heard(rank);
        turn.send(
            rank,
            Message::CatchUp {
                since: self.epochs.now(),
            },
        );
    }

    pub(super) fn on_peer_lost(&mut self, turn: &mut Turn<'_>, rank: Rank) {
        self.lose(turn, rank);
        self.drop_grants_to(turn, rank);
        let slots: Vec<u32> = self.opens.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(open) = self.opens.get_mut(slot) else {
                continue;
            };
            let askers = open.askers.len();
            open.askers.retain(|asker| asker.rank != rank);
            let askers = askers - open.askers.len();
            let pulls = open.body.as_mut().map_or(0, |body| {
                body.pulls.extract_if(.., |pull| pull.rank == rank).count()
            });
            (0..askers + pulls).for_each(|_| self.peers.let_go(rank));
        }
    }
}
