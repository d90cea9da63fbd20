//! A large job on a model machine: every node's state machine on one virtual clock, in one thread.
//!
//! A node's own work, its card's two directions and the origin are queues; an event happens when all
//! three let it. The ranks of a node go through the same program together: whoever comes first asks
//! for what is missing, and the others find it or wait with it.

use copper_core::tree::{
    Action, Actions, Answer, Event, Message, Node, Object, OriginReply, OriginRequest, Outcome,
    Plan, Rank, Record, RequestId, Settings, Time, Topology, Version, Waiter,
};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use crate::machine::{Machine, OriginQueue, SECOND};
use crate::queue::Queue;
use crate::workload::Need;

/// How long a request may take in these runs. Nothing is lost in them, so none may be given up.
const DEADLINE: u64 = 3_600 * SECOND;

/// A run.
pub struct Job<'a> {
    /// Nodes, trees, fan-out.
    pub topology: Topology,
    /// The machine.
    pub machine: Machine,
    /// Bytes in a chunk.
    pub chunk: u32,
    /// Ranks on each node.
    pub ranks: usize,
    /// What every rank needs, in order.
    pub needs: &'a [Need],
    /// A rank's own work after its last need, in nanoseconds.
    pub tail: u64,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcomes {
    /// When the last rank was done, in nanoseconds.
    pub time: u64,
    /// Metadata operations at the origin.
    pub origin_operations: u64,
    /// Bytes read from the origin.
    pub origin_bytes: u64,
    /// The most often that any object, or any chunk, was asked of the origin.
    pub most_reads: u32,
    /// Things asked of the origin.
    pub reads: u64,
    /// Messages sent.
    pub messages: u64,
    /// Events simulated.
    pub events: u64,
}

enum Happening {
    Ask {
        rank: Rank,
    },
    Deliver {
        from: Rank,
        to: Rank,
        message: Message,
    },
    OriginDone {
        rank: Rank,
        id: RequestId,
        reply: OriginReply,
    },
    ChunkLeaves {
        from: Rank,
        to: Rank,
        id: RequestId,
        bytes: u32,
    },
    ChunkArrives {
        to: Rank,
        id: RequestId,
        bytes: u32,
    },
    ChunkStored {
        to: Rank,
        id: RequestId,
    },
    Timer {
        rank: Rank,
    },
}

impl Happening {
    /// The node that it happens to.
    fn rank(&self) -> Rank {
        match self {
            Self::Ask { rank } | Self::OriginDone { rank, .. } | Self::Timer { rank } => *rank,
            Self::ChunkLeaves { from, .. } => *from,
            Self::Deliver { to, .. }
            | Self::ChunkArrives { to, .. }
            | Self::ChunkStored { to, .. } => *to,
        }
    }
}

/// What a message is about, where it says so.
fn object_of(message: &Message) -> Option<&Object> {
    match message {
        Message::Request { object, .. } => Some(object),
        Message::Answer { record, .. } | Message::Pull { record, .. } => Some(&record.object),
        _ => None,
    }
}

/// A node's queues, in nanoseconds since the start.
#[derive(Clone, Copy, Default)]
struct Station {
    /// When the node's own work is done.
    work: u64,
    /// When the card has sent what it was given.
    sends: u64,
    /// When the card has received what is coming.
    receives: u64,
    /// When the node, as a client of the origin, can read more.
    reads: u64,
    timer: u64,
    /// The next need of the node's ranks.
    need: u32,
}

struct Engine<'a> {
    job: &'a Job<'a>,
    nodes: Vec<Node>,
    stations: Vec<Station>,
    /// When each rank of each node gets to its next need.
    ranks: Vec<u64>,
    pace: Vec<f32>,
    queue: Queue<Happening>,
    origin: OriginQueue,
    reads: HashMap<(Object, Option<u32>), u32>,
    costs: HashMap<Object, (u64, u64)>,
    actions: Actions,
    outcomes: Outcomes,
}

/// Runs a job to its end.
pub fn run(job: &Job<'_>) -> Outcomes {
    let mut engine = Engine::new(job);
    while let Some((time, happening)) = engine.next() {
        engine.outcomes.events += 1;
        engine.happen(time, happening);
    }
    let mut outcomes = engine.outcomes;
    outcomes.origin_operations = engine.origin.operations;
    outcomes.origin_bytes = engine.origin.bytes;
    outcomes.most_reads = engine.reads.values().copied().max().unwrap_or(0);
    outcomes.reads = engine.reads.values().map(|&count| u64::from(count)).sum();
    outcomes
}

impl<'a> Engine<'a> {
    fn new(job: &'a Job<'a>) -> Self {
        let nodes = job.topology.nodes();
        let settings = Settings {
            chunk: job.chunk,
            // Nothing is lost in these runs, so whoever waits waits.
            patience: std::time::Duration::from_secs(3_600),
            resend: std::time::Duration::from_secs(600),
            silence: std::time::Duration::from_secs(3_000),
            transfer: std::time::Duration::from_secs(3_000),
            ..Settings::default()
        };
        let plan = Arc::new(Plan {
            topology: job.topology,
            settings,
        });
        let mut random = fastrand::Rng::with_seed(1);
        let first = job.needs.first().map_or(0, |need| need.think);
        let mut engine = Self {
            job,
            nodes: (0..nodes)
                .map(|rank| Node::new(Arc::clone(&plan), rank, 0).expect("a rank of the job"))
                .collect(),
            stations: vec![
                Station {
                    timer: u64::MAX,
                    ..Station::default()
                };
                nodes as usize
            ],
            ranks: Vec::new(),
            pace: (0..job.ranks).map(|_| 0.97 + 0.06 * random.f32()).collect(),
            queue: Queue::default(),
            origin: OriginQueue::new(job.machine.origin),
            reads: HashMap::new(),
            costs: job
                .needs
                .iter()
                .map(|n| (n.object.clone(), (n.length, n.operations)))
                .collect(),
            actions: Vec::new(),
            outcomes: Outcomes::default(),
        };
        for _ in 0..nodes as usize * job.ranks {
            engine.ranks.push(first + random.u64(0..5_000_000));
        }
        for rank in 0..nodes {
            engine.schedule_ask(rank);
        }
        engine
    }

    /// Takes what happens next.
    fn next(&mut self) -> Option<(u64, Happening)> {
        self.look_ahead();
        self.queue.pop()
    }

    /// Looks at the nodes that a group of events is about, first at what can be found at once and then
    /// at what that leads to. Each node lies somewhere else in gigabytes, and the processor waits for
    /// many places together as long as for one.
    fn look_ahead(&mut self) {
        let Self {
            queue,
            nodes,
            stations,
            ranks,
            job,
            ..
        } = self;
        let coming = queue.coming();
        for happening in coming.clone() {
            let rank = happening.rank() as usize;
            let (node, station) = (&nodes[rank], &stations[rank]);
            black_box((station.work, node.next_timeout(), node.epoch().reign));
            black_box((node.counters().asks, node.counters().refused));
            let clocks = &ranks[rank * job.ranks..][..job.ranks];
            black_box((clocks.first().copied(), clocks.last().copied()));
        }
        for happening in coming {
            let rank = happening.rank() as usize;
            let object = match happening {
                Happening::Ask { .. } => Some(&job.needs[stations[rank].need as usize].object),
                Happening::Deliver { message, .. } => object_of(message),
                _ => None,
            };
            black_box(object.map(|object| nodes[rank].lookup(object)));
        }
    }

    fn ranks_of(&mut self, rank: Rank) -> &mut [u64] {
        let count = self.job.ranks;
        let start = rank as usize * count;
        &mut self.ranks[start..start + count]
    }

    fn schedule_ask(&mut self, rank: Rank) {
        let first = self.ranks_of(rank).iter().copied().min().unwrap_or(0);
        self.queue.push(first, Happening::Ask { rank });
    }

    /// What the ranks of a node waited for is there: each goes on to the next need, in its own pace.
    fn advance(&mut self, rank: Rank, now: u64) {
        let station = &mut self.stations[rank as usize];
        station.need += 1;
        let next = self.job.needs.get(station.need as usize);
        let think = next.map_or(self.job.tail, |need| need.think);
        let pace = std::mem::take(&mut self.pace);
        let mut last = 0;
        let mut waiting = 0;
        for (at, pace) in self.ranks_of(rank).iter_mut().zip(&pace) {
            waiting += u64::from(*at <= now);
            *at = (*at).max(now) + (think as f32 * pace) as u64;
            last = last.max(*at);
        }
        self.pace = pace;
        // The first to ask is already counted; the others that wait cost the helper as much each.
        self.stations[rank as usize].work += waiting.saturating_sub(1) * self.job.machine.ask_cost;
        if next.is_some() {
            self.schedule_ask(rank);
        } else {
            self.outcomes.time = self.outcomes.time.max(last);
        }
    }

    fn happen(&mut self, time: u64, happening: Happening) {
        match happening {
            Happening::Ask { rank } => {
                let need = self.stations[rank as usize].need as usize;
                let object = self.job.needs[need].object.clone();
                let event = Event::Ask {
                    waiter: Waiter(0),
                    object,
                    deadline: Time(time + DEADLINE),
                };
                self.handle(rank, time, self.job.machine.ask_cost, event);
            }
            Happening::Deliver { from, to, message } => {
                let bytes = self.size(&message);
                let station = &mut self.stations[to as usize];
                let on_link = self.job.machine.on_link(bytes);
                station.receives = time.max(station.receives + on_link);
                // As when sent, a small message comes between the packets of a chunk.
                let at = if message.body().is_some() {
                    station.receives
                } else {
                    time
                };
                self.handle(
                    to,
                    at,
                    self.job.machine.message_cost,
                    Event::Message { from, message },
                );
            }
            Happening::OriginDone { rank, id, reply } => {
                self.handle(rank, time, 0, Event::Origin { id, reply })
            }
            Happening::ChunkLeaves {
                from,
                to,
                id,
                bytes,
            } => {
                let station = &mut self.stations[from as usize];
                station.sends =
                    time.max(station.sends) + self.job.machine.on_link(u64::from(bytes));
                let arrives = station.sends + self.job.machine.latency;
                self.queue
                    .push(arrives, Happening::ChunkArrives { to, id, bytes });
            }
            Happening::ChunkArrives { to, id, bytes } => {
                let station = &mut self.stations[to as usize];
                station.receives =
                    time.max(station.receives + self.job.machine.on_link(u64::from(bytes)));
                let at = station.receives;
                self.queue.push(at, Happening::ChunkStored { to, id });
            }
            Happening::ChunkStored { to, id } => {
                self.handle(
                    to,
                    time,
                    self.job.machine.message_cost,
                    Event::Transferred { id, result: Ok(()) },
                );
            }
            Happening::Timer { rank } => {
                self.stations[rank as usize].timer = u64::MAX;
                self.handle(rank, time, 0, Event::Timer);
            }
        }
    }

    /// Hands an event to a node as soon as it has time for it, and performs what it wants.
    fn handle(&mut self, rank: Rank, time: u64, cost: u64, event: Event) {
        let station = &mut self.stations[rank as usize];
        station.work = station.work.max(time) + cost;
        let now = station.work;
        let mut actions = std::mem::take(&mut self.actions);
        self.nodes[rank as usize].handle(Time(now), event, &mut actions);
        for action in actions.drain(..) {
            self.perform(rank, now, action);
        }
        self.actions = actions;
        self.rearm(rank);
    }

    fn rearm(&mut self, rank: Rank) {
        let station = &mut self.stations[rank as usize];
        let due = self.nodes[rank as usize].next_timeout().0;
        if due < station.timer && due < 3_600 * SECOND {
            station.timer = due;
            self.queue.push(due, Happening::Timer { rank });
        }
    }

    fn perform(&mut self, rank: Rank, now: u64, action: Action) {
        match action {
            Action::Send { to, message } => self.send(rank, to, message),
            Action::AskOrigin { id, request } => self.ask_origin(rank, now, id, request),
            Action::Answer { answer, object, .. } => match answer {
                Answer::Known(_) => self.advance(rank, now),
                other => panic!("in a run without faults, {object:?} was answered with {other:?}"),
            },
            Action::Transfer {
                id,
                from,
                record,
                chunk,
            } => {
                let settings = Settings {
                    chunk: self.job.chunk,
                    ..Settings::default()
                };
                let (_, bytes) = settings.extent(record.length(), chunk);
                let asked = now + self.job.machine.latency;
                self.queue.push(
                    asked,
                    Happening::ChunkLeaves {
                        from,
                        to: rank,
                        id,
                        bytes,
                    },
                );
            }
            Action::Publish(_)
            | Action::Discard(_)
            | Action::Drop(_)
            | Action::Forget(_)
            | Action::Command(_)
            | Action::Settled { .. } => {}
        }
    }

    fn send(&mut self, from: Rank, to: Rank, message: Message) {
        self.outcomes.messages += 1;
        let machine = self.job.machine;
        let bytes = self.size(&message);
        let station = &mut self.stations[from as usize];
        station.work += machine.message_cost;
        // Small messages go between the packets of a chunk that is being sent; they only delay it.
        let is_small = message.body().is_none();
        let begins = if is_small {
            station.work
        } else {
            station.work.max(station.sends)
        };
        station.sends = station.sends.max(station.work) + machine.on_link(bytes);
        let arrives = begins + machine.on_link(bytes) + machine.latency;
        self.queue
            .push(arrives, Happening::Deliver { from, to, message });
    }

    fn size(&self, message: &Message) -> u64 {
        let body = message.body().map_or(0, |record| record.length());
        let path = object_of(message).map_or(0, |object| object.path().len());
        self.job.machine.header + path as u64 + body
    }

    fn ask_origin(&mut self, rank: Rank, now: u64, id: RequestId, request: OriginRequest) {
        let (key, done, reply) = match request {
            OriginRequest::Look { object } => {
                let (length, operations) = self.costs[&object];
                let mut done = self.origin.operations(now, operations);
                let inline = length <= u64::from(Settings::default().inline_limit);
                if inline && object.kind() == copper_core::tree::Kind::Content {
                    done = self
                        .origin
                        .read(done, &mut self.stations[rank as usize].reads, length);
                }
                let version = Version {
                    inode: object.hash(),
                    size: length,
                    ..Version::default()
                };
                let reply = OriginReply::Known(Outcome::Present { version, length });
                ((object, None), done, reply)
            }
            OriginRequest::Read { record, chunk } => {
                let bytes = self.chunk_bytes(&record, chunk);
                let station = &mut self.stations[rank as usize];
                station.receives = now.max(station.receives) + self.job.machine.on_link(bytes);
                let done = self
                    .origin
                    .read(now, &mut station.reads, bytes)
                    .max(station.receives);
                (
                    (record.object.clone(), Some(chunk)),
                    done,
                    OriginReply::Stored,
                )
            }
        };
        *self.reads.entry(key).or_insert(0) += 1;
        self.queue
            .push(done, Happening::OriginDone { rank, id, reply });
    }

    fn chunk_bytes(&self, record: &Record, chunk: u32) -> u64 {
        let start = u64::from(chunk) * u64::from(self.job.chunk);
        record
            .length()
            .saturating_sub(start)
            .min(u64::from(self.job.chunk))
    }
}
