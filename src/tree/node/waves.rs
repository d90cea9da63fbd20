//! What goes to all nodes and comes back as one report: invalidations and surveys.
//!
//! A node *submits* an order upwards in the first tree; the root sends it down as a *wave*; every
//! node carries it out, passes it on, and reports when its subtree is done; the root's report goes
//! back down to who submitted it, as *settled*. Each hop repeats itself until it hears something, and
//! passes by a child that is lost to the child's own children.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::interface::Waiter;
use super::super::message::{Change, Report, WaveId};
use super::epochs::Standing;
use super::{Action, Epoch, Message, Node, Object, Order, Rank, Time, Turn};

/// How many waves, and how many submissions, a node carries at a time.
pub(super) const MOST_WAVES: usize = 256;

/// How many reports of past waves are kept, for those who missed them.
const MOST_PAST: usize = 64;

/// How many nodes one node may pass a wave to, when it stands in for lost children.
const MOST_CHILDREN: usize = 4_096;

/// The tree that waves go through.
pub(super) const TREE: u16 = 0;

/// An order on its way up.
pub(super) struct Submission {
    pub(super) wave: WaveId,
    pub(super) order: Arc<Order>,
    pub(super) waiter: Option<Waiter>,
    pub(super) below: Option<Rank>,
    /// Whom it was passed to; none while this node's own wave carries it.
    pub(super) above: Option<Rank>,
    pub(super) heard: Time,
    pub(super) due: Time,
    pub(super) until: Time,
    /// The epoch that its wave began, once the wave has come by here.
    pub(super) epoch: Option<Epoch>,
}

/// A node that a wave was passed to.
struct Child {
    rank: Rank,
    heard: Time,
    due: Time,
}

/// A wave that passes through this node.
struct Running {
    wave: WaveId,
    order: Arc<Order>,
    epochs: (Epoch, Epoch),
    parent: Option<Rank>,
    pending: Vec<Child>,
    /// This node itself still has to get ready.
    held: bool,
    standing: Standing,
    report: Report,
    until: Time,
}

/// What a node holds of waves.
pub(super) struct Waves {
    pub(super) next: u64,
    ready: bool,
    pub(super) submissions: Vec<Submission>,
    running: Vec<Running>,
    past: VecDeque<((WaveId, Epoch), Box<Report>)>,
    pub(super) settled: VecDeque<(WaveId, Box<Report>)>,
}

pub(super) fn keep<K>(past: &mut VecDeque<(K, Box<Report>)>, key: K, report: Box<Report>) {
    if past.len() == MOST_PAST {
        past.pop_front();
    }
    past.push_back((key, report));
}

pub(super) fn find<K: PartialEq>(
    past: &VecDeque<(K, Box<Report>)>,
    key: &K,
) -> Option<Box<Report>> {
    past.iter()
        .find(|(other, _)| other == key)
        .map(|(_, report)| report.clone())
}

impl Waves {
    pub(super) fn new(incarnation: u32) -> Self {
        Self {
            next: u64::from(incarnation) << 32,
            ready: false,
            submissions: Vec::new(),
            running: Vec::new(),
            past: VecDeque::new(),
            settled: VecDeque::new(),
        }
    }

    pub(super) fn due(&self) -> Time {
        let submissions = self
            .submissions
            .iter()
            .map(|submission| submission.due.min(submission.until));
        let children = self
            .running
            .iter()
            .flat_map(|running| running.pending.iter().map(|child| child.due));
        let waves = self.running.iter().map(|running| running.until);
        submissions
            .chain(children)
            .chain(waves)
            .min()
            .unwrap_or(Time::NEVER)
    }

    pub(super) fn len(&self) -> usize {
        self.submissions.len() + self.running.len()
    }

    /// Whether a change of `object` was submitted here and has not come back as a wave: what peers
    /// say of it may be from before.
    pub(super) fn awaits(&self, object: &Object, now: Epoch) -> bool {
        self.submissions.iter().any(|submission| {
            submission.epoch.is_none_or(|epoch| epoch > now)
                && matches!(&*submission.order, Order::Invalidate(change) if change.touches(object))
        })
    }

    pub(super) fn submission(&mut self, wave: WaveId) -> Option<&mut Submission> {
        self.submissions
            .iter_mut()
            .find(|submission| submission.wave == wave)
    }

    fn index(&self, wave: WaveId) -> Option<usize> {
        self.running.iter().position(|running| running.wave == wave)
    }
}

impl Node {
    pub(super) fn on_ready(&mut self, turn: &mut Turn<'_>) {
        self.waves.ready = true;
        let waves: Vec<WaveId> = self
            .waves
            .running
            .iter()
            .map(|running| running.wave)
            .collect();
        for wave in waves {
            if let Some(index) = self.waves.index(wave) {
                let running = &mut self.waves.running[index];
                running.report.ready += u32::from(core::mem::take(&mut running.held));
                self.finish_wave(turn, wave);
            }
        }
    }

    pub(super) fn begin_wave(&mut self, turn: &mut Turn<'_>, wave: WaveId, order: Arc<Order>) {
        let epochs = match &*order {
            Order::Invalidate(change) => self.order_change(turn, change),
            Order::Survey { .. } | Order::Command { .. } => Default::default(),
        };
        if let Some(index) = self.waves.index(wave) {
            // It had come by from a root that was lost before it was done.
            self.waves.running[index].parent = None;
            self.rerun(turn, index, epochs);
            return;
        }
        let root = self.plan.topology.root(TREE);
        let children = self.wave_children(true);
        self.run_wave(
            turn,
            wave,
            order,
            epochs,
            (None, Standing::Applied),
            children,
        );
        if root != self.rank
            && let Some(index) = self.waves.index(wave)
        {
            self.waves.running[index].report.miss(root);
        }
        self.finish_wave(turn, wave);
    }

    /// Carries out an order and passes it on to `children`.
    fn run_wave(
        &mut self,
        turn: &mut Turn<'_>,
        wave: WaveId,
        order: Arc<Order>,
        epochs: (Epoch, Epoch),
        (parent, standing): (Option<Rank>, Standing),
        children: Vec<Rank>,
    ) {
        let held = matches!(
            &*order,
            Order::Survey {
                until_ready: true,
                ..
            }
        ) && !self.waves.ready;
        if let Order::Command { command, .. } = &*order {
            turn.actions.push(Action::Command(Arc::clone(command)));
        }
        let report = self.own_report(&order);
        let until = turn.now.after(self.wave_patience(&order));
        self.arm(until);
        if let Some(submission) = self.waves.submission(wave) {
            submission.epoch = Some(epochs.1);
        }
        self.waves.running.push(Running {
            wave,
            order,
            epochs,
            parent,
            pending: Vec::new(),
            held,
            standing,
            report,
            until,
        });
        self.pass_down(turn, wave, children);
    }

    /// What this node itself replies to an order.
    fn own_report(&self, order: &Order) -> Report {
        let is_survey = matches!(order, Order::Survey { .. });
        Report {
            reached: 1,
            ready: u32::from(self.waves.ready),
            counters: self.counters,
            summary: self.summary.clone().filter(|_| is_survey),
            ..Report::default()
        }
    }

    /// A node gives its subtree less time than it has itself, so that reports arrive in time.
    pub(super) fn wave_patience(&self, order: &Order) -> Duration {
        let whole = match order {
            Order::Survey { patience, .. } | Order::Command { patience, .. } => {
                Duration::from_nanos(*patience)
            }
            Order::Invalidate(_) => self.plan.settings.patience,
        };
        let topology = &self.plan.topology;
        let depth = topology.depth();
        let level = topology.level(TREE, self.rank).min(depth);
        whole * (depth + 1 - level) / (depth + 1)
    }

    fn pass_down(&mut self, turn: &mut Turn<'_>, wave: WaveId, mut children: Vec<Rank>) {
        let due = turn.now.after(self.plan.settings.resend);
        let Some(index) = self.waves.index(wave) else {
            return;
        };
        while let Some(rank) = children.pop() {
            if rank == self.rank {
                continue;
            }
            let running = &mut self.waves.running[index];
            let full = running.pending.len() >= MOST_CHILDREN;
            if full || self.peers.is_shunned(rank, turn.now) {
                running.report.miss(rank);
                if !full {
                    children.extend(self.plan.topology.children(TREE, rank));
                }
                continue;
            }
            running.pending.push(Child {
                rank,
                heard: turn.now,
                due,
            });
            let order = Arc::clone(&running.order);
            turn.send(
                rank,
                Message::Wave {
                    wave,
                    epochs: running.epochs,
                    order,
                },
            );
        }
        self.arm(due);
    }

    /// If nothing is missing any more, reports the wave upwards.
    fn finish_wave(&mut self, turn: &mut Turn<'_>, wave: WaveId) {
        let Some(index) = self.waves.index(wave) else {
            return;
        };
        let running = &self.waves.running[index];
        if running.held || running.standing != Standing::Applied || !running.pending.is_empty() {
            return;
        }
        let running = self.waves.running.swap_remove(index);
        let report = Box::new(running.report);
        // Asked again as a child, a node that began the wave itself has no subtree to add.
        let below = running.parent.map_or_else(Box::default, |_| report.clone());
        keep(&mut self.waves.past, (wave, running.epochs.1), below);
        match running.parent {
            Some(parent) => turn.send(parent, Message::Done { wave, report }),
            None => self.settle(turn, wave, report),
        }
    }

    pub(super) fn on_wave_message(&mut self, turn: &mut Turn<'_>, from: Rank, message: Message) {
        match message {
            Message::Submit {
                wave,
                stand_in,
                order,
            } => self.on_submit(turn, from, wave, stand_in, order),
            Message::Wave {
                wave,
                epochs,
                order,
            } => self.on_wave(turn, from, wave, epochs, order),
            Message::Working { wave } => self.on_working(turn, from, wave),
            Message::Done { wave, report } => self.on_done(turn, from, wave, &report),
            Message::Settled { wave, report } => {
                let expected = self
                    .waves
                    .submission(wave)
                    .is_some_and(|s| s.above == Some(from));
                if expected {
                    self.settle(turn, wave, report);
                } else {
                    self.counters.dropped += 1;
                }
            }
            Message::CatchUp { since } => self.on_catch_up(turn, from, since),
            Message::Missed { epoch, changes } => self.on_missed(turn, epoch, changes),
            _ => self.counters.dropped += 1,
        }
    }

    fn on_wave(
        &mut self,
        turn: &mut Turn<'_>,
        from: Rank,
        wave: WaveId,
        epochs: (Epoch, Epoch),
        order: Arc<Order>,
    ) {
        let topology = &self.plan.topology;
        if !topology.is_ancestor(TREE, from, self.rank)
            && topology.turn_as_root(TREE, from).is_none()
        {
            self.counters.dropped += 1;
            return;
        }
        let standing = match &*order {
            Order::Invalidate(change) => self.apply_change(turn, from, epochs, change),
            Order::Survey { .. } | Order::Command { .. } => Standing::Applied,
        };
        if let Some(index) = self.waves.index(wave) {
            let running = &mut self.waves.running[index];
            if running.parent.is_none() {
                // This node began the wave as a stand-in root, and covers its own subtree.
                turn.send(
                    from,
                    Message::Done {
                        wave,
                        report: Box::default(),
                    },
                );
                return;
            }
            running.parent = Some(from);
            turn.send(from, Message::Working { wave });
            if running.epochs.1 < epochs.1 {
                running.standing = standing;
                self.rerun(turn, index, epochs);
            }
            return;
        }
        if let Some(report) = find(&self.waves.past, &(wave, epochs.1)) {
            turn.send(from, Message::Done { wave, report });
            return;
        }
        if self.waves.running.len() >= MOST_WAVES {
            self.counters.refused += 1;
            return;
        }
        let children = self.plan.topology.children(TREE, self.rank).collect();
        self.run_wave(turn, wave, order, epochs, (Some(from), standing), children);
        self.finish_wave(turn, wave);
    }

    /// Passes a wave on again, because its root has ordered it anew.
    fn rerun(&mut self, turn: &mut Turn<'_>, index: usize, epochs: (Epoch, Epoch)) {
        let running = &mut self.waves.running[index];
        let wave = running.wave;
        running.epochs = epochs;
        running.pending.clear();
        let order = Arc::clone(&running.order);
        self.waves.running[index].report = self.own_report(&order);
        if let Some(submission) = self.waves.submission(wave) {
            submission.epoch = Some(epochs.1);
        }
        let children = self.wave_children(self.waves.running[index].parent.is_none());
        self.pass_down(turn, wave, children);
        self.finish_wave(turn, wave);
    }

    /// Whom this node passes waves to: its children, and as a stand-in those of the lost root.
    fn wave_children(&self, as_root: bool) -> Vec<Rank> {
        let topology = self.plan.topology;
        let root = topology.root(TREE);
        let mut children: Vec<Rank> = topology.children(TREE, self.rank).collect();
        if as_root && root != self.rank {
            children.extend(
                topology
                    .children(TREE, root)
                    .filter(|&child| child != self.rank),
            );
        }
        children
    }

    /// The changes that this node missed have come: waves that waited for them go on.
    pub(super) fn caught_up(&mut self, turn: &mut Turn<'_>) {
        let now = self.epochs.now();
        let mut waves = Vec::new();
        for running in &mut self.waves.running {
            if running.standing == Standing::Gap && running.epochs.1 <= now {
                running.standing = Standing::Applied;
                waves.push(running.wave);
            }
        }
        waves
            .into_iter()
            .for_each(|wave| self.finish_wave(turn, wave));
    }

    /// Another root ordered changes that this one, a root too, did not know: what this one ordered
    /// is ordered again, on top of them.
    pub(super) fn reorder_own(&mut self, turn: &mut Turn<'_>, mut lost: Vec<Change>) {
        let own = self
            .waves
            .running
            .iter()
            .filter(|running| running.parent.is_none());
        let waves: Vec<WaveId> = own.map(|running| running.wave).collect();
        for wave in waves {
            let Some(index) = self.waves.index(wave) else {
                continue;
            };
            let order = Arc::clone(&self.waves.running[index].order);
            if let Order::Invalidate(change) = &*order {
                lost.retain(|other| other != change);
                let epochs = self.order_change(turn, change);
                if let Some(index) = self.waves.index(wave) {
                    self.rerun(turn, index, epochs);
                }
            }
        }
        for change in lost {
            self.submit(
                turn,
                None,
                Order::Invalidate(change),
                self.plan.settings.patience,
            );
        }
    }

    fn on_working(&mut self, turn: &mut Turn<'_>, from: Rank, wave: WaveId) {
        let now = turn.now;
        if let Some(submission) = self.waves.submission(wave)
            && submission.above == Some(from)
        {
            submission.heard = now;
        }
        if let Some(index) = self.waves.index(wave)
            && let Some(child) = self.waves.running[index]
                .pending
                .iter_mut()
                .find(|child| child.rank == from)
        {
            child.heard = now;
        }
    }

    fn on_done(&mut self, turn: &mut Turn<'_>, from: Rank, wave: WaveId, report: &Report) {
        let Some(index) = self.waves.index(wave) else {
            self.counters.dropped += 1;
            return;
        };
        let running = &mut self.waves.running[index];
        let Some(child) = running.pending.iter().position(|child| child.rank == from) else {
            self.counters.dropped += 1;
            return;
        };
        running.pending.swap_remove(child);
        running.report.merge(report);
        self.finish_wave(turn, wave);
    }

    pub(super) fn expire_waves(&mut self, turn: &mut Turn<'_>) {
        let submitted: Vec<WaveId> = self
            .waves
            .submissions
            .iter()
            .filter(|submission| submission.due.min(submission.until) <= turn.now)
            .map(|submission| submission.wave)
            .collect();
        submitted
            .into_iter()
            .for_each(|wave| self.expire_submission(turn, wave));
        let running: Vec<WaveId> = self
            .waves
            .running
            .iter()
            .map(|running| running.wave)
            .collect();
        running
            .into_iter()
            .for_each(|wave| self.expire_running(turn, wave));
    }

    fn expire_running(&mut self, turn: &mut Turn<'_>, wave: WaveId) {
        let (now, silence, resend) = (
            turn.now,
            self.plan.settings.silence,
            self.plan.settings.resend,
        );
        let Some(index) = self.waves.index(wave) else {
            return;
        };
        let running = &mut self.waves.running[index];
        if running.until <= now {
            running.held = false;
            if running.standing != Standing::Applied {
                running.report.miss(self.rank);
                running.standing = Standing::Applied;
            }
            for child in core::mem::take(&mut running.pending) {
                running.report.miss(child.rank);
            }
            self.finish_wave(turn, wave);
            return;
        }
        let mut lost = Vec::new();
        for child in running.pending.iter_mut().filter(|child| child.due <= now) {
            if now >= child.heard.after(silence) {
                lost.push(child.rank);
            } else {
                child.due = now.after(resend);
                let order = Arc::clone(&running.order);
                turn.send(
                    child.rank,
                    Message::Wave {
                        wave,
                        epochs: running.epochs,
                        order,
                    },
                );
            }
        }
        lost.into_iter().for_each(|rank| self.lose(turn, rank));
    }

    /// Passes by a lost peer: submissions go to the next above, waves to the lost one's children.
    pub(super) fn reroute_waves(&mut self, turn: &mut Turn<'_>, lost: Rank) {
        let above: Vec<WaveId> = self
            .waves
            .submissions
            .iter()
            .filter(|submission| submission.above == Some(lost))
            .map(|submission| submission.wave)
            .collect();
        above
            .into_iter()
            .for_each(|wave| self.pass_up(turn, wave, false));
        let waves: Vec<WaveId> = self
            .waves
            .running
            .iter()
            .map(|running| running.wave)
            .collect();
        for wave in waves {
            let Some(index) = self.waves.index(wave) else {
                continue;
            };
            let running = &mut self.waves.running[index];
            let Some(child) = running.pending.iter().position(|child| child.rank == lost) else {
                continue;
            };
            running.pending.swap_remove(child);
            running.report.miss(lost);
            let orphans = self.plan.topology.children(TREE, lost).collect();
            self.pass_down(turn, wave, orphans);
            self.finish_wave(turn, wave);
        }
    }
}
