//! Orders on their way up to the root that makes waves of them, and reports on their way back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use super::super::interface::Waiter;
use super::super::message::{Change, MAX_COMMAND, Report, WaveId};
use super::waves::{MOST_WAVES, Submission, TREE, find, keep};
use super::{Action, Message, Node, Order, Rank, Time, Turn};

impl Node {
    /// A local write: it is seen here at once, and by all when the wave has gone round.
    pub(super) fn on_invalidate(&mut self, turn: &mut Turn<'_>, waiter: Waiter, change: Change) {
        let change = if change.is_valid() {
            change
        } else {
            Change::All
        };
        if self.best_rung(TREE, turn.now).is_some() {
            self.drop_touched(turn, &change);
        }
        let patience = self.plan.settings.patience;
        self.submit(turn, Some(waiter), Order::Invalidate(change), patience);
    }

    /// Something that the user has all drivers do.
    pub(super) fn on_command(
        &mut self,
        turn: &mut Turn<'_>,
        waiter: Waiter,
        command: Box<[u8]>,
        deadline: Time,
    ) {
        if command.len() > MAX_COMMAND {
            self.counters.refused += 1;
            self.settle_waiter(turn, waiter, None);
            return;
        }
        let patience = deadline.0.saturating_sub(turn.now.0);
        let order = Order::Command {
            command: command.into(),
            patience,
        };
        self.submit(turn, Some(waiter), order, Duration::from_nanos(patience));
    }

    /// Sends an order of this node on its way.
    pub(super) fn submit(
        &mut self,
        turn: &mut Turn<'_>,
        waiter: Option<Waiter>,
        order: Order,
        patience: Duration,
    ) {
        let wave = WaveId {
            origin: self.rank,
            number: self.waves.next,
        };
        self.waves.next += 1;
        let until = turn.now.after(patience);
        self.accept_submission(turn, wave, Arc::new(order), waiter, None, until, false);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of a submission, which it makes"
    )]
    pub(super) fn accept_submission(
        &mut self,
        turn: &mut Turn<'_>,
        wave: WaveId,
        order: Arc<Order>,
        waiter: Option<Waiter>,
        below: Option<Rank>,
        until: Time,
        stand_in: bool,
    ) {
        if self.waves.submissions.len() >= MOST_WAVES {
            self.counters.refused += 1;
            if let Some(waiter) = waiter {
                self.settle_waiter(turn, waiter, None);
            }
            return;
        }
        self.waves.submissions.push(Submission {
            wave,
            order,
            waiter,
            below,
            above: None,
            heard: turn.now,
            due: until,
            until,
            epoch: None,
        });
        self.arm(until);
        self.pass_up(turn, wave, stand_in);
    }

    /// Passes a submission to the best peer above, or begins its wave here.
    pub(super) fn pass_up(&mut self, turn: &mut Turn<'_>, wave: WaveId, stand_in: bool) {
        let rung = if stand_in {
            None
        } else {
            self.best_rung(TREE, turn.now)
        };
        let due = turn.now.after(self.plan.settings.resend);
        let Some(submission) = self.waves.submission(wave) else {
            return;
        };
        let order = Arc::clone(&submission.order);
        submission.above = rung.map(|rung| rung.rank);
        match rung {
            Some(rung) => {
                submission.heard = turn.now;
                submission.due = due;
                turn.send(
                    rung.rank,
                    Message::Submit {
                        wave,
                        stand_in: rung.stand_in,
                        order,
                    },
                );
                self.arm(due);
            }
            None => {
                submission.due = submission.until;
                self.begin_wave(turn, wave, order);
            }
        }
    }

    /// Tells whoever submitted a wave here what came of it.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, wave: WaveId, report: Box<Report>) {
        let index = self
            .waves
            .submissions
            .iter()
            .position(|submission| submission.wave == wave);
        let Some(index) = index else {
            self.counters.dropped += 1;
            return;
        };
        let submission = self.waves.submissions.swap_remove(index);
        keep(&mut self.waves.settled, wave, report.clone());
        if let Some(below) = submission.below {
            turn.send(
                below,
                Message::Settled {
                    wave,
                    report: report.clone(),
                },
            );
        }
        if let Some(waiter) = submission.waiter {
            self.settle_waiter(turn, waiter, Some(report));
        }
    }

    /// Tells a local waiter; without a report, that nothing is known of any other node.
    pub(super) fn settle_waiter(
        &mut self,
        turn: &mut Turn<'_>,
        waiter: Waiter,
        report: Option<Box<Report>>,
    ) {
        let report = report.map_or_else(
            || Report {
                unnamed: self.plan.topology.nodes(),
                ..Report::default()
            },
            |report| *report,
        );
        turn.actions.push(Action::Settled { waiter, report });
    }

    pub(super) fn on_submit(
        &mut self,
        turn: &mut Turn<'_>,
        from: Rank,
        wave: WaveId,
        stand_in: bool,
        order: Arc<Order>,
    ) {
        if !self.may_ask(TREE, from, stand_in) {
            self.counters.dropped += 1;
            return;
        }
        if let Some(report) = find(&self.waves.settled, &wave) {
            turn.send(from, Message::Settled { wave, report });
            return;
        }
        if let Some(submission) = self.waves.submission(wave) {
            // An order of this node's own comes back when those above take its parent for lost.
            if wave.origin != self.rank {
                submission.below = Some(from);
            }
            let stuck = stand_in && submission.above.is_some();
            turn.send(from, Message::Working { wave });
            if stuck {
                self.pass_up(turn, wave, true);
            }
            return;
        }
        turn.send(from, Message::Working { wave });
        let until = turn.now.after(self.wave_patience(&order));
        self.accept_submission(turn, wave, order, None, Some(from), until, stand_in);
    }

    pub(super) fn expire_submission(&mut self, turn: &mut Turn<'_>, wave: WaveId) {
        let (now, silence, resend) = (
            turn.now,
            self.plan.settings.silence,
            self.plan.settings.resend,
        );
        let Some(submission) = self.waves.submission(wave) else {
            return;
        };
        if submission.until <= now {
            let waiter = submission.waiter;
            self.waves
                .submissions
                .retain(|submission| submission.wave != wave);
            if let Some(waiter) = waiter {
                self.settle_waiter(turn, waiter, None);
            }
            return;
        }
        let Some(above) = submission.above else {
            return;
        };
        if now >= submission.heard.after(silence) {
            self.lose(turn, above);
        } else {
            submission.due = now.after(resend);
            let order = Arc::clone(&submission.order);
            let stand_in = !self.plan.topology.is_ancestor(TREE, above, self.rank);
            turn.send(
                above,
                Message::Submit {
                    wave,
                    stand_in,
                    order,
                },
            );
        }
    }
}
