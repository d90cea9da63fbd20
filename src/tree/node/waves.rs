//! What goes to all nodes and comes back as one report: invalidations and surveys.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::interface::Waiter;
use super::super::message::{Change, Order, Report, WaveId};
use super::{Action, Epoch, Message, Node, Object, Rank, Record, Time, Turn};

/// How many past changes a node can tell a peer that missed them.
const MOST_LOGGED: usize = super::super::message::MAX_MISSED;

/// A wave that this node wanted.
struct Wanted {
    wave: WaveId,
    waiter: Waiter,
    order: Arc<Order>,
}

/// What a node holds of waves.
pub(super) struct Waves {
    epoch: Epoch,
    log: VecDeque<(Epoch, Change)>,
    next: u64,
    ready: bool,
    wanted: Vec<Wanted>,
}

impl Waves {
    pub(super) fn new(incarnation: u32) -> Self {
        Self {
            epoch: Epoch::default(),
            log: VecDeque::new(),
            next: u64::from(incarnation) << 32,
            ready: false,
            wanted: Vec::new(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether what a peer in `epoch` says of `object` may have been invalidated since.
    pub(super) fn outdated(&self, epoch: Epoch, object: &Object) -> bool {
        epoch < self.epoch
            && (self
                .log
                .front()
                .is_none_or(|&(first, _)| epoch < first && self.log.len() == MOST_LOGGED)
                || self
                    .log
                    .iter()
                    .any(|(at, change)| *at > epoch && change.touches(object)))
    }

    pub(super) fn due(&self) -> Time {
        Time::NEVER
    }
}

impl Node {
    pub(super) fn on_invalidate(&mut self, turn: &mut Turn<'_>, waiter: Waiter, change: Change) {
        self.submit(turn, waiter, Order::Invalidate(change));
    }

    pub(super) fn on_survey(
        &mut self,
        turn: &mut Turn<'_>,
        waiter: Waiter,
        until_ready: bool,
        deadline: Time,
    ) {
        let patience = deadline.0.saturating_sub(turn.now.0);
        self.submit(
            turn,
            waiter,
            Order::Survey {
                until_ready,
                patience,
            },
        );
    }

    pub(super) fn on_ready(&mut self, turn: &mut Turn<'_>) {
        self.waves.ready = true;
        for wanted in core::mem::take(&mut self.waves.wanted) {
            self.perform(turn, wanted);
        }
    }

    fn submit(&mut self, turn: &mut Turn<'_>, waiter: Waiter, order: Order) {
        let wave = WaveId {
            origin: self.rank,
            number: self.waves.next,
        };
        self.waves.next += 1;
        self.perform(
            turn,
            Wanted {
                wave,
                waiter,
                order: Arc::new(order),
            },
        );
    }

    fn perform(&mut self, turn: &mut Turn<'_>, wanted: Wanted) {
        match &*wanted.order {
            Order::Invalidate(change) => {
                let epoch = Epoch {
                    number: self.waves.epoch.number + 1,
                    ..self.waves.epoch
                };
                self.apply(turn, epoch, change.clone());
            }
            Order::Survey {
                until_ready: true, ..
            } if !self.waves.ready => {
                self.waves.wanted.push(wanted);
                return;
            }
            Order::Survey { .. } => {}
        }
        let report = Report {
            reached: 1,
            ready: u32::from(self.waves.ready),
            counters: self.counters,
            ..Report::default()
        };
        turn.actions.push(Action::Settled {
            waiter: wanted.waiter,
            report,
        });
    }

    /// Drops what a change says is no longer true, and begins anew what is under way.
    fn apply(&mut self, turn: &mut Turn<'_>, epoch: Epoch, change: Change) {
        self.waves.epoch = epoch;
        let gone: Vec<Arc<Record>> = self
            .known
            .extract_if(|record| change.touches(&record.object))
            .collect();
        for record in gone {
            self.drop_grants_of(turn, &record.object);
            turn.actions.push(Action::Forget(record));
        }
        let touched: Vec<u32> = self
            .opens
            .iter()
            .filter(|(_, open)| change.touches(&open.object))
            .map(|(slot, _)| slot)
            .collect();
        touched
            .into_iter()
            .for_each(|slot| self.restart(turn, slot, 0));
        if self.waves.log.len() == MOST_LOGGED {
            self.waves.log.pop_front();
        }
        self.waves.log.push_back((epoch, change));
    }

    pub(super) fn note_epoch(&mut self, _turn: &mut Turn<'_>, _from: Rank, _epoch: Epoch) {}

    pub(super) fn on_wave_message(&mut self, _turn: &mut Turn<'_>, _from: Rank, _message: Message) {
    }

    pub(super) fn expire_waves(&mut self, _turn: &mut Turn<'_>) {}
}
