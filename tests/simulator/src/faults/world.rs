//! A small job under faults: the nodes, what travels between them, and their drivers.
//!
//! It does to the nodes whatever the contract allows networks, origins and processes to do. What the
//! nodes do about it is judged in [`super::checks`].

use copper_core::tree::{
    Action, Actions, Answer, Change, Event, Kind, Node, Object, OriginRequest, Plan, Rank, Record,
    Report, RequestId, Time, Waiter,
};
use fastrand::Rng;
use std::sync::Arc;

use super::checks::Judge;
use super::defects::Defect;
use super::origin::Origin;
use super::schedule::{Fault, FileIndex, FileState, MS, Schedule};
use super::store::Store;
use crate::queue::Queue;

/// What is to happen.
pub(super) enum Happening {
    Ask {
        rank: Rank,
        object: Object,
        patience: u64,
    },
    Deliver {
        to: Rank,
        from: Rank,
        wire: Vec<u8>,
    },
    OriginDone {
        rank: Rank,
        incarnation: u32,
        id: RequestId,
        request: OriginRequest,
        began: u64,
    },
    TransferDone {
        rank: Rank,
        incarnation: u32,
        id: RequestId,
        from: Rank,
        record: Arc<Record>,
        chunk: u32,
    },
    Timer {
        rank: Rank,
    },
    Death {
        rank: Rank,
    },
    Back {
        rank: Rank,
    },
    Notice {
        rank: Rank,
        about: Rank,
        lost: bool,
    },
    Change {
        file: FileIndex,
        into: FileState,
        writer: Option<Rank>,
    },
    Evict {
        rank: Rank,
        file: FileIndex,
    },
    Survey {
        rank: Rank,
    },
}

/// A node and its driver.
pub(super) struct Seat {
    pub(super) node: Option<Node>,
    pub(super) store: Store,
    pub(super) incarnation: u32,
    timer: u64,
    pub(super) busy: u64,
}

/// The job.
pub(super) struct World {
    pub(super) schedule: Schedule,
    pub(super) plan: Arc<Plan>,
    pub(super) seats: Vec<Seat>,
    pub(super) origin: Origin,
    pub(super) queue: Queue<Happening>,
    pub(super) judge: Judge,
    pub(super) now: u64,
    pub(super) random: Rng,
    actions: Actions,
    pub(super) defect: Option<Defect>,
}

impl World {
    pub(super) fn new(schedule: Schedule, defect: Option<Defect>) -> Self {
        let plan = Arc::new(Plan {
            topology: schedule.topology,
            settings: schedule.settings,
        });
        let mut world = Self {
            origin: Origin::new(&schedule.files),
            judge: Judge::default(),
            random: Rng::with_seed(schedule.seed ^ 0x5eed),
            seats: Vec::new(),
            queue: Queue::default(),
            actions: Vec::new(),
            now: 0,
            plan,
            schedule,
            defect,
        };
        for rank in 0..world.plan.topology.nodes() {
            world.seats.push(Seat {
                node: None,
                store: Store::default(),
                incarnation: 0,
                timer: u64::MAX,
                busy: 0,
            });
            world.begin(rank);
        }
        world.fill();
        world
    }

    /// Schedules the requests and the faults that happen at a moment.
    fn fill(&mut self) {
        for ask in self.schedule.asks.clone() {
            let object = self.origin.object(ask.kind, ask.file);
            self.queue.push(
                ask.at,
                Happening::Ask {
                    rank: ask.rank,
                    object,
                    patience: ask.patience,
                },
            );
        }
        for fault in self.schedule.faults.clone() {
            match fault {
                Fault::Death { rank, at, back } => {
                    self.queue.push(at, Happening::Death { rank });
                    if let Some(back) = back {
                        self.queue.push(back, Happening::Back { rank });
                    }
                }
                Fault::Partition { side, at, heals } => self.notice_partition(&side, at, heals),
                Fault::Change {
                    file,
                    at,
                    into,
                    writer,
                } => {
                    self.queue
                        .push(at, Happening::Change { file, into, writer });
                }
                Fault::Eviction { rank, file, at } => {
                    self.queue.push(at, Happening::Evict { rank, file })
                }
                Fault::Survey { rank, at } => self.queue.push(at, Happening::Survey { rank }),
                _ => {}
            }
        }
    }

    fn notice_partition(&mut self, side: &[bool], at: u64, heals: u64) {
        for (a, b) in pairs(side) {
            if self.schedule.notices {
                let delay = self.random.u64(100 * MS..1_000 * MS);
                self.queue.push(
                    at + delay,
                    Happening::Notice {
                        rank: a,
                        about: b,
                        lost: true,
                    },
                );
            }
            let delay = self.random.u64(1_000 * MS..2_000 * MS);
            self.queue.push(
                heals + delay,
                Happening::Notice {
                    rank: a,
                    about: b,
                    lost: false,
                },
            );
        }
    }

    fn begin(&mut self, rank: Rank) {
        let seat = &mut self.seats[rank as usize];
        seat.incarnation += 1;
        let mut node =
            Node::new(Arc::clone(&self.plan), rank, seat.incarnation).expect("a rank of the job");
        node.handle(Time(self.now), Event::Ready, &mut self.actions);
        seat.node = Some(node);
        seat.store = Store::default();
    }

    pub(super) fn is_alive(&self, rank: Rank) -> bool {
        self.seats[rank as usize].node.is_some()
    }

    pub(super) fn alive(&self) -> Vec<Rank> {
        (0..self.plan.topology.nodes())
            .filter(|&rank| self.is_alive(rank))
            .collect()
    }

    /// Lets everything happen that is due until `until`.
    pub(super) fn run(&mut self, until: u64) {
        while let Some((time, happening)) = self.queue.pop() {
            if time > until {
                self.queue.push(time, happening);
                break;
            }
            self.now = self.now.max(time);
            self.happen(happening);
            if self.judge.is_hopeless() {
                break;
            }
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ask {
                rank,
                object,
                patience,
            } => self.ask(rank, object, patience),
            Happening::Deliver { to, from, wire } => self.deliver(to, from, &wire),
            Happening::OriginDone {
                rank,
                incarnation,
                id,
                request,
                began,
            } => {
                self.origin_done(rank, incarnation, id, &request, began);
            }
            Happening::TransferDone {
                rank,
                incarnation,
                id,
                from,
                record,
                chunk,
            } => {
                self.transfer_done(rank, incarnation, id, from, &record, chunk);
            }
            Happening::Timer { rank } => {
                self.seats[rank as usize].timer = u64::MAX;
                if self.defect.is_none_or(Defect::lets_timer_through) {
                    self.handle(rank, Event::Timer, None);
                }
            }
            Happening::Death { rank } => self.die(rank),
            Happening::Back { rank } => self.come_back(rank),
            Happening::Notice { rank, about, lost } => {
                let event = if lost {
                    Event::PeerLost(about)
                } else {
                    Event::PeerBack(about)
                };
                self.handle(rank, event, None);
            }
            Happening::Change { file, into, writer } => self.change(file, into, writer),
            Happening::Evict { rank, file } => self.evict(rank, file),
            Happening::Survey { rank } if self.is_alive(rank) => {
                let waiter = self.judge.survey(rank, self.now);
                let deadline = Time(self.now + 5_000 * MS);
                self.handle(
                    rank,
                    Event::Survey {
                        waiter,
                        until_ready: true,
                        deadline,
                    },
                    None,
                );
            }
            Happening::Survey { .. } => {}
        }
    }

    pub(super) fn ask(&mut self, rank: Rank, object: Object, patience: u64) {
        if self.is_alive(rank) {
            let deadline = self.now + patience;
            let waiter = self.judge.ask(rank, object.clone(), self.now, deadline);
            self.handle(
                rank,
                Event::Ask {
                    waiter,
                    object,
                    deadline: Time(deadline),
                },
                None,
            );
        }
    }

    fn die(&mut self, rank: Rank) {
        let seat = &mut self.seats[rank as usize];
        if let Some(node) = seat.node.take() {
            self.judge.node_died(rank, &node);
            self.notify_all(rank, true);
        }
    }

    fn come_back(&mut self, rank: Rank) {
        if !self.is_alive(rank) {
            self.begin(rank);
            self.rearm(rank);
            self.notify_all(rank, false);
        }
    }

    fn notify_all(&mut self, about: Rank, lost: bool) {
        if lost && !self.schedule.notices {
            return;
        }
        for rank in (0..self.plan.topology.nodes()).filter(|&rank| rank != about) {
            let at = self.now + self.random.u64(100 * MS..1_000 * MS);
            self.queue.push(at, Happening::Notice { rank, about, lost });
        }
    }

    fn change(&mut self, file: FileIndex, into: FileState, writer: Option<Rank>) {
        self.origin.change(file, self.now, into);
        let Some(writer) = writer.filter(|&rank| self.is_alive(rank)) else {
            return;
        };
        let waiter = self.judge.invalidate(writer, file, self.now);
        let change = Change::Paths(vec![self.origin.path(file).into()]);
        self.handle(writer, Event::Invalidate { waiter, change }, None);
    }

    fn evict(&mut self, rank: Rank, file: FileIndex) {
        for kind in Kind::ALL {
            let object = self.origin.object(kind, file);
            let seat = &mut self.seats[rank as usize];
            let known = seat
                .node
                .as_ref()
                .and_then(|node| node.lookup(&object))
                .map(Arc::clone);
            if let Some(record) = known {
                seat.store.remove(&record);
                self.judge.evictions += 1;
                self.handle(rank, Event::Evicted(object), None);
            }
        }
    }

    /// Hands an event to a node and performs what it wants.
    pub(super) fn handle(&mut self, rank: Rank, event: Event, body: Option<Arc<Record>>) {
        let Some(node) = self.seats[rank as usize].node.as_mut() else {
            return;
        };
        let mut actions = std::mem::take(&mut self.actions);
        node.handle(Time(self.now), event, &mut actions);
        self.judge.loads(rank, node, &self.plan.settings);
        if let Some(defect) = self.defect {
            defect.alter(&mut actions, &mut self.random);
        }
        let mut failed = Vec::new();
        for action in actions.drain(..) {
            self.perform(rank, action, body.as_ref(), &mut failed);
        }
        self.actions = actions;
        for object in failed {
            self.handle(rank, Event::StoreFailed(object), None);
        }
        self.rearm(rank);
    }

    fn rearm(&mut self, rank: Rank) {
        let seat = &mut self.seats[rank as usize];
        let due = seat
            .node
            .as_ref()
            .map_or(u64::MAX, |node| node.next_timeout().0);
        if due < seat.timer {
            seat.timer = due;
            self.queue
                .push(due.max(self.now), Happening::Timer { rank });
        }
    }

    fn perform(
        &mut self,
        rank: Rank,
        action: Action,
        body: Option<&Arc<Record>>,
        failed: &mut Vec<Object>,
    ) {
        match action {
            Action::Send { to, message } => self.send(rank, to, &message, failed),
            Action::AskOrigin { id, request } => self.ask_origin(rank, id, request),
            Action::Publish(record) => self.publish(rank, &record, body, failed),
            Action::Answer {
                waiter,
                object,
                answer,
            } => {
                let unstored = failed.contains(&object);
                let answer = if unstored { Answer::NoSpace } else { answer };
                self.answered(rank, waiter, &object, &answer);
            }
            Action::Transfer {
                id,
                from,
                record,
                chunk,
            } => {
                let incarnation = self.seats[rank as usize].incarnation;
                let at = self.now + self.random.u64(10_000..2 * MS);
                let happening = Happening::TransferDone {
                    rank,
                    incarnation,
                    id,
                    from,
                    record,
                    chunk,
                };
                self.queue.push(at, happening);
            }
            Action::Discard(record) => {
                if !self.seats[rank as usize].store.is_published(&record) {
                    self.seats[rank as usize].store.remove(&record);
                }
            }
            Action::Drop(_) => {}
            Action::Forget(record) => self.seats[rank as usize].store.remove(&record),
            Action::Command(_) => {}
            Action::Settled { waiter, report } => self.settled(rank, waiter, &report),
        }
    }

    fn answered(&mut self, rank: Rank, waiter: Waiter, object: &Object, answer: &Answer) {
        if let Answer::Known(record) = answer {
            let store = &self.seats[rank as usize].store;
            if !store.is_published(record) || (record.length() > 0 && !store.is_whole(record)) {
                self.judge
                    .fail(format!("node {rank} answered {record:?} without having it"));
            }
        }
        self.judge.answered(
            self.now,
            waiter,
            object,
            answer,
            &self.origin,
            &self.schedule,
        );
    }

    fn settled(&mut self, rank: Rank, waiter: Waiter, report: &Report) {
        let nodes = self.plan.topology.nodes();
        self.judge.settled(
            self.now,
            rank,
            waiter,
            report,
            nodes,
            self.schedule.is_calm(),
        );
    }

    fn publish(
        &mut self,
        rank: Rank,
        record: &Arc<Record>,
        body: Option<&Arc<Record>>,
        failed: &mut Vec<Object>,
    ) {
        let full = self.is_store_full(rank);
        let seat = &mut self.seats[rank as usize];
        if let Some(body) = body
            && body == record
        {
            if full {
                failed.push(record.object.clone());
                return;
            }
            seat.store.put_whole(&record.object, record.stamp());
        }
        if record.length() > 0 && !seat.store.is_whole(record) {
            self.judge.fail(format!(
                "node {rank} published {record:?} before its body was whole"
            ));
        }
        seat.store.publish(record);
    }
}

/// All ordered pairs of ranks on different sides.
fn pairs(side: &[bool]) -> Vec<(Rank, Rank)> {
    let ranks = 0..side.len();
    ranks
        .clone()
        .flat_map(|a| ranks.clone().map(move |b| (a, b)))
        .filter(|&(a, b)| side[a] != side[b])
        .map(|(a, b)| (a as Rank, b as Rank))
        .collect()
}
