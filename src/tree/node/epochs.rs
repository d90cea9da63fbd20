//! Which changes a node has applied, and how it learns of those that passed it by.
//!
//! Every request and answer carries its sender's epoch. Who sees a later one than its own asks for
//! what it missed; if that is too much to tell, it drops all it knows. So a wave that did not reach a
//! node delays freshness until the node's next exchange with a peer, and no longer.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::super::message::{Change, MAX_MISSED};
use super::{Action, Epoch, Message, Node, Object, Rank, Reason, Time, Turn};

/// The most paths' bytes that one message of missed changes carries.
const MOST_MISSED_BYTES: usize = 40 << 10;

/// What a node knows of changes.
pub(super) struct Epochs {
    now: Epoch,
    /// The log holds every change after this one.
    logged_from: Epoch,
    log: VecDeque<Logged>,
    /// The reign in which this node orders changes itself, if it did.
    own_reign: Option<u64>,
    /// When it may ask a peer again for what it missed.
    ask_again: Time,
}

/// Where a node stands towards a change that a wave brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The change is part of the node's history.
    Applied,
    /// The node misses changes before this one and has asked for them.
    Gap,
    /// The root that ordered it misses changes that the node knows; it will order it anew.
    Behind,
}

struct Logged {
    epoch: Epoch,
    change: Change,
    /// Ordered by this node.
    own: bool,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self {
            now: Epoch::default(),
            logged_from: Epoch::default(),
            log: VecDeque::new(),
            own_reign: None,
            ask_again: Time(0),
        }
    }

    pub(super) fn now(&self) -> Epoch {
        self.now
    }

    /// Whether what a peer in `epoch` says of `object` may have been invalidated since.
    pub(super) fn outdated(&self, epoch: Epoch, object: &Object) -> bool {
        epoch < self.now
            && (epoch < self.logged_from
                || self
                    .log
                    .iter()
                    .any(|logged| logged.epoch > epoch && logged.change.touches(object)))
    }

    /// The epoch that a change ordered by node `rank` begins.
    fn next_own(&mut self, incarnation: u32, rank: Rank) -> Epoch {
        if self.own_reign != Some(self.now.reign) {
            let counter = (self.now.reign >> 32)
                .saturating_add(1)
                .max(u64::from(incarnation));
            let reign = counter << 32 | u64::from(rank);
            self.own_reign = Some(reign);
            return Epoch { reign, number: 1 };
        }
        Epoch {
            number: self.now.number.saturating_add(1),
            ..self.now
        }
    }

    fn push(&mut self, epoch: Epoch, change: Change, own: bool) {
        if self.log.len() == MAX_MISSED
            && let Some(oldest) = self.log.pop_front()
        {
            self.logged_from = oldest.epoch;
        }
        self.log.push_back(Logged { epoch, change, own });
        self.now = epoch;
    }

    /// The changes after `since`; none if they cannot be told.
    fn after(&self, since: Epoch) -> Option<Box<[(Epoch, Change)]>> {
        let in_history =
            since == self.logged_from || self.log.iter().any(|logged| logged.epoch == since);
        let later: Vec<&Logged> = self
            .log
            .iter()
            .filter(|logged| logged.epoch > since)
            .collect();
        let bytes: usize = later.iter().map(|logged| size(&logged.change)).sum();
        (in_history && bytes <= MOST_MISSED_BYTES).then(|| {
            later
                .into_iter()
                .map(|logged| (logged.epoch, logged.change.clone()))
                .collect()
        })
    }
}

fn size(change: &Change) -> usize {
    match change {
        Change::All => 16,
        Change::Paths(paths) => 16 + paths.iter().map(|path| path.len() + 4).sum::<usize>(),
    }
}

impl Node {
    /// Orders a change as a root: gives the epoch before it and the one that it begins.
    pub(super) fn order_change(&mut self, turn: &mut Turn<'_>, change: &Change) -> (Epoch, Epoch) {
        let before = self.epochs.now;
        let epoch = self.epochs.next_own(self.incarnation, self.rank);
        self.drop_touched(turn, change);
        self.epochs.push(epoch, change.clone(), true);
        (before, epoch)
    }

    /// Applies a change that came with a wave.
    pub(super) fn apply_change(
        &mut self,
        turn: &mut Turn<'_>,
        from: Rank,
        (before, epoch): (Epoch, Epoch),
        change: &Change,
    ) -> Standing {
        if before == self.epochs.now && epoch > before {
            self.epochs.push(epoch, change.clone(), false);
            self.drop_touched(turn, change);
            return Standing::Applied;
        }
        if self.epochs.log.iter().any(|logged| logged.epoch == epoch) {
            return Standing::Applied;
        }
        // To drop too much is always safe.
        self.drop_touched(turn, change);
        let since = self.epochs.now;
        turn.send(from, Message::CatchUp { since });
        if epoch > since {
            Standing::Gap
        } else {
            Standing::Behind
        }
    }

    /// A peer is in `epoch`; if that is later than this node's, asks for what it missed.
    pub(super) fn note_epoch(&mut self, turn: &mut Turn<'_>, from: Rank, epoch: Epoch) {
        if epoch > self.epochs.now && turn.now >= self.epochs.ask_again {
            self.epochs.ask_again = turn.now.after(self.plan.settings.resend / 4);
            turn.send(
                from,
                Message::CatchUp {
                    since: self.epochs.now,
                },
            );
        }
    }

    pub(super) fn on_catch_up(&mut self, turn: &mut Turn<'_>, from: Rank, since: Epoch) {
        self.note_epoch(turn, from, since);
        let epoch = self.epochs.now;
        if since < epoch {
            turn.send(
                from,
                Message::Missed {
                    epoch,
                    changes: self.epochs.after(since),
                },
            );
        }
    }

    pub(super) fn on_missed(
        &mut self,
        turn: &mut Turn<'_>,
        epoch: Epoch,
        changes: Option<Box<[(Epoch, Change)]>>,
    ) {
        if epoch <= self.epochs.now {
            return;
        }
        let reign = self.epochs.now.reign;
        let follows = changes.as_ref().is_none_or(|changes| {
            changes.last().is_some_and(|(last, _)| *last == epoch)
                && changes.windows(2).all(|pair| pair[0].0 < pair[1].0)
        });
        if !follows {
            self.counters.dropped += 1;
            return;
        }
        let overruled = epoch.reign != reign && self.epochs.own_reign == Some(reign);
        let lost = if overruled {
            self.own_changes(reign)
        } else {
            Vec::new()
        };
        match changes {
            Some(changes) => {
                let known = self.epochs.now;
                for (at, change) in changes.into_iter().filter(|(at, _)| *at > known) {
                    self.drop_touched(turn, &change);
                    self.epochs.push(at, change, false);
                }
            }
            None => {
                self.epochs.log.clear();
                self.epochs.logged_from = epoch;
                self.epochs.now = epoch;
                self.drop_touched(turn, &Change::All);
            }
        }
        self.caught_up(turn);
        if overruled {
            self.reorder_own(turn, lost);
        }
    }

    /// The changes that this node ordered as a root in `reign`. Nodes of a later reign may not know
    /// them.
    fn own_changes(&mut self, reign: u64) -> Vec<Change> {
        self.epochs.own_reign = None;
        let own = self
            .epochs
            .log
            .iter()
            .filter(|logged| logged.own && logged.epoch.reign == reign);
        own.map(|logged| logged.change.clone()).collect()
    }

    /// Takes back what a change says is no longer true, and begins anew what is under way.
    pub(super) fn drop_touched(&mut self, turn: &mut Turn<'_>, change: &Change) {
        turn.actions.push(Action::Drop(change.clone()));
        let gone: Vec<_> = self
            .known
            .extract_if(|record| change.touches(&record.object))
            .collect();
        for record in gone {
            self.drop_grants_of(turn, &record.object, Reason::Busy);
            turn.actions.push(Action::Forget(record));
        }
        let opens = self
            .opens
            .iter()
            .filter(|(_, open)| change.touches(&open.object));
        let touched: Vec<u32> = opens.map(|(slot, _)| slot).collect();
        touched
            .into_iter()
            .for_each(|slot| self.restart(turn, slot, 0));
    }
}
