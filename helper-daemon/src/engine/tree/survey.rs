//! How all nodes of the job are, and their common end.
#![forbid(unsafe_code)]

use super::{Event, NOBODY, Waiter};
use crate::engine::{Engine, Reply, Token};
use crate::peers::Peers;
use crate::status::{Calls, NamedPaths, Saved, Served, SlowNode, Survey};
use crate::waker::Waker;
use copper_core::request::Outcome;
use copper_core::tree::Report;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// A client waits no longer than this.
const LONGEST: Duration = Duration::from_secs(50);

impl Engine {
    /// Asks all nodes how they are, for a client: `now SECONDS` or `ready SECONDS`.
    pub(crate) fn survey(&mut self, token: Token, wish: &[u8]) {
        let Some((until_ready, patience)) = parse(wish) else {
            self.reply(token, Outcome::Refused);
            return;
        };
        self.tree.surveys.insert(token, Instant::now());
        self.sum_up();
        self.tree.events.push_back(Event::Survey {
            waiter: Waiter(token),
            until_ready,
            deadline: self.tree.now().after(patience),
        });
        self.pump();
    }

    /// Tells the tree's node what a survey is to hear of this helper.
    pub(super) fn sum_up(&mut self) {
        let summary = self.summary();
        self.tree.node.set_summary(summary);
    }

    /// Forgets a client that asked; says whether there was one.
    pub(in crate::engine) fn forget_survey(&mut self, token: Token) -> bool {
        self.tree.surveys.remove(&token).is_some()
    }

    /// A wave has come back.
    pub(super) fn settled(&mut self, waiter: Waiter, report: &Report) {
        if waiter == NOBODY {
            return;
        }
        if self.controls.forget(waiter.0) {
            self.told_all(waiter.0, report);
            return;
        }
        let Some(asked) = self.tree.surveys.remove(&waiter.0) else {
            self.advance(waiter.0);
            return;
        };
        let topology = &self.tree.topology;
        let summary = report.summary.as_deref().cloned().unwrap_or_default();
        let (calls, origin) = (Calls::of(&summary.calls), summary.origin.into());
        let bytes_read = summary.origin.bytes_read;
        let host = |rank| self.peers.as_ref().map_or("", |peers| peers.host(rank));
        let slowest = summary.slowest.iter();
        let survey = Survey {
            nodes: topology.nodes(),
            trees: topology.trees(),
            fan_out: topology.fan_out(),
            depth: topology.depth(),
            reached: report.reached,
            ready: report.ready,
            missing: report.missing.clone(),
            unnamed: report.unnamed,
            counters: report.counters,
            saved: Saved::of(&calls, &origin),
            served: Served::of(
                &report.counters,
                bytes_read,
                &summary.calls,
                summary.evictions,
            ),
            calls,
            origin,
            cached: summary.stock.into(),
            memory: summary.stock.into(),
            questions: summary.questions,
            passed_through: summary.passed_through,
            slowest: slowest
                .map(|slow| SlowNode::of(slow, host(slow.rank)))
                .collect(),
            paths: NamedPaths::of(&summary.paths, |rank| Some(host(rank).to_owned())),
            controls_pending: summary.commands_pending,
            controls_failed: summary.commands_failed,
            seconds: asked.elapsed().as_secs_f64(),
        };
        self.replies.push(Reply {
            token: waiter.0,
            outcome: Outcome::Known,
            body: serde_json::to_vec(&survey).unwrap_or_default(),
        });
    }

    /// Begins to end all helpers of the job, for a client.
    pub(crate) fn end_all(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.end_all();
        }
    }

    /// What became of the other helpers, once the job is ended and this one may end, as JSON.
    pub(crate) fn job_ended(&mut self) -> Option<Vec<u8>> {
        let ended = self.peers.as_mut()?.ended()?;
        Some(serde_json::to_vec(&ended).unwrap_or_default())
    }

    /// Whether there are other helpers, or might be.
    pub(crate) fn is_in_job(&self) -> bool {
        self.peers.is_some()
    }

    /// Whether there are other helpers, none of which can be reached.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.peers.as_ref().is_some_and(Peers::are_all_lost)
    }

    /// Descriptors that become readable when something may have come from other helpers.
    pub(crate) fn traffic_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.peers
            .as_ref()
            .map(|peers| peers.wait_descriptors())
            .unwrap_or_default()
    }

    /// Who wakes the event loop from other threads.
    pub(crate) fn wakers(&self) -> impl Iterator<Item = &Waker> {
        let peers = self.peers.iter().map(Peers::waker);
        peers.chain([self.origin.waker()])
    }

    /// When to look at the latest whether something has come from other helpers.
    pub(crate) fn next_traffic(&self) -> Option<Instant> {
        self.peers.as_ref()?.next_deadline()
    }
}

fn parse(wish: &[u8]) -> Option<(bool, Duration)> {
    let (how, seconds) = std::str::from_utf8(wish).ok()?.split_once(' ')?;
    let seconds: f64 = seconds.parse().ok()?;
    let patience = Duration::try_from_secs_f64(seconds).ok()?.min(LONGEST);
    match how {
        "now" => Some((false, patience)),
        "ready" => Some((true, patience)),
        _ => None,
    }
}
