//! The scheme of the first Copper in the same model, for comparison: one tree whose fan-out depends
//! on the job's size, one request for each path, whole files stored and forwarded, absences that
//! expire after two seconds, and files above 10 MB read from the origin by every rank.
//!
//! It is given more than it has: single flight on every node, no cost of FUSE, no wait for each other
//! of threads. A variant is given a page cache too, which serves a node's other ranks once one of them
//! has read a large file.

use std::collections::HashMap;

use crate::machine::{Machine, OriginQueue, span};
use crate::queue::Queue;
use crate::workload::{Node, Operation, Workload};

/// When a name that is not there is asked for again.
const ABSENCE_EXPIRES: u64 = 2_000_000_000;

/// The largest file that travels in the tree.
pub const LARGEST: u64 = 10_000_000;

/// The fan-out that the first Copper takes for a job of so many nodes.
pub fn fan_out(nodes: u32) -> u32 {
    match nodes {
        0..=31 => 2,
        32..=121 => 3,
        122..=341 => 4,
        342..=781 => 5,
        782..=1_555 => 6,
        _ => 7,
    }
}

/// How often a node reads a file from the origin that is too large for the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeReads {
    /// Once for each of its ranks, which share the node's bandwidth as a client: what the scheme does.
    ByEveryRank,
    /// Once: a page cache serves the node's other ranks.
    ByEveryNode,
}

impl LargeReads {
    /// Reads of one large file by a node of `ranks` ranks.
    pub fn on_a_node(self, ranks: usize) -> u64 {
        match self {
            Self::ByEveryRank => ranks as u64,
            Self::ByEveryNode => 1,
        }
    }
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
}

/// What one request is about.
#[derive(Clone, Copy)]
struct Item {
    bytes: u64,
    operations: u64,
    absent: bool,
    /// Too large for the tree.
    direct: bool,
}

struct Step {
    think: u64,
    item: u32,
}

enum Happening {
    Need { node: u32 },
    Request { node: u32, from: u32, item: u32 },
    Answer { node: u32, item: u32 },
    Direct { node: u32 },
}

struct Station {
    work: u64,
    sends: u64,
    receives: u64,
    reads: u64,
    step: u32,
    /// Per item: 0 unknown, 1 on its way, else one more than the time it came, in microseconds.
    known: Vec<u32>,
    /// Children that wait, with what for.
    waiting: Vec<(u32, u32)>,
}

struct Peer<'a> {
    machine: Machine,
    fan_out: u32,
    items: &'a [Item],
    steps: &'a [Step],
    tail: u64,
    ranks: usize,
    large: LargeReads,
    stations: Vec<Station>,
    clocks: Vec<u64>,
    pace: Vec<f32>,
    queue: Queue<Happening>,
    origin: OriginQueue,
    outcomes: Outcomes,
}

/// Runs `workload` on `nodes` nodes of `ranks` ranks.
pub fn run(
    workload: &Workload,
    nodes: u32,
    ranks: usize,
    large: LargeReads,
    machine: Machine,
) -> Outcomes {
    let (items, steps) = program(workload);
    let tail = workload.tail();
    let mut random = fastrand::Rng::with_seed(1);
    let first = steps.first().map_or(0, |step| step.think);
    let mut peer = Peer {
        machine,
        fan_out: fan_out(nodes),
        items: &items,
        steps: &steps,
        tail,
        ranks,
        large,
        stations: (0..nodes).map(|_| Station::new(items.len())).collect(),
        pace: (0..ranks).map(|_| 0.97 + 0.06 * random.f32()).collect(),
        clocks: (0..nodes as usize * ranks)
            .map(|_| first + random.u64(0..5_000_000))
            .collect(),
        queue: Queue::default(),
        origin: OriginQueue::new(machine.origin),
        outcomes: Outcomes::default(),
    };
    (0..nodes).for_each(|node| peer.schedule(node));
    while let Some((time, happening)) = peer.queue.pop() {
        peer.happen(time, happening);
    }
    peer.outcomes.origin_operations = peer.origin.operations;
    peer.outcomes.origin_bytes = peer.origin.bytes;
    peer.outcomes
}

/// The requests of a rank in order: attributes of every path that it names, each listing, each file.
fn program(workload: &Workload) -> (Vec<Item>, Vec<Step>) {
    let mut index = HashMap::new();
    let mut items = Vec::new();
    let mut steps = Vec::new();
    for call in &workload.calls {
        let (_, node) = workload.paths[call.path];
        let size = if let Node::File(size) = node { size } else { 0 };
        let mut wanted = vec![(0, 200, 1, node == Node::Absent)];
        match call.operation {
            Operation::Read | Operation::Map => wanted.push((1, size, 1, false)),
            Operation::List => {
                let names = if let Node::Directory(names) = node {
                    names
                } else {
                    0
                };
                wanted.push((2, names * 30, 2, false));
            }
            Operation::Attributes => {}
        }
        let mut think = call.think;
        for (what, bytes, operations, absent) in wanted {
            let item = *index.entry((call.path, what)).or_insert_with(|| {
                items.push(Item {
                    bytes,
                    operations,
                    absent,
                    direct: what == 1 && bytes > LARGEST,
                });
                items.len() as u32 - 1
            });
            steps.push(Step {
                think: std::mem::take(&mut think),
                item,
            });
        }
    }
    (items, steps)
}

impl Station {
    fn new(items: usize) -> Self {
        Self {
            work: 0,
            sends: 0,
            receives: 0,
            reads: 0,
            step: 0,
            known: vec![0; items],
            waiting: Vec::new(),
        }
    }
}

impl Peer<'_> {
    fn clocks_of(&mut self, node: u32) -> &mut [u64] {
        let start = node as usize * self.ranks;
        &mut self.clocks[start..start + self.ranks]
    }

    fn schedule(&mut self, node: u32) {
        let first = self.clocks_of(node).iter().copied().min().unwrap_or(0);
        self.queue.push(first, Happening::Need { node });
    }

    fn is_known(&self, node: u32, item: u32, now: u64) -> bool {
        match self.stations[node as usize].known[item as usize] {
            0 | 1 => false,
            came => {
                let came = u64::from(came - 2) * 1_000;
                !self.items[item as usize].absent || now < came + ABSENCE_EXPIRES
            }
        }
    }

    /// The step that the node's ranks wait for is done: they go on through all that is known.
    fn advance(&mut self, node: u32, now: u64) {
        let mut now = now;
        loop {
            let station = &mut self.stations[node as usize];
            station.step += 1;
            let step = self.steps.get(station.step as usize);
            let think = step.map_or(self.tail, |step| step.think);
            let pace = std::mem::take(&mut self.pace);
            let mut first = u64::MAX;
            let mut last = 0;
            for (clock, pace) in self.clocks_of(node).iter_mut().zip(&pace) {
                *clock = (*clock).max(now) + (think as f32 * pace) as u64;
                first = first.min(*clock);
                last = last.max(*clock);
            }
            self.pace = pace;
            let Some(step) = step else {
                self.outcomes.time = self.outcomes.time.max(last);
                return;
            };
            if !self.is_known(node, step.item, first) {
                self.queue.push(first, Happening::Need { node });
                return;
            }
            now = 0;
        }
    }

    fn happen(&mut self, time: u64, happening: Happening) {
        match happening {
            Happening::Need { node } => {
                let item = self.steps[self.stations[node as usize].step as usize].item;
                let now = self.work(node, time, self.machine.ask_cost);
                if self.is_known(node, item, now) {
                    self.advance(node, now);
                } else if self.items[item as usize].direct {
                    self.read_directly(node, now, item);
                } else if self.stations[node as usize].known[item as usize] != 1 {
                    self.fetch(node, now, item);
                }
            }
            Happening::Request { node, from, item } => {
                let now = self.work(node, time, self.machine.message_cost);
                if self.is_known(node, item, now) {
                    self.send(node, now, from, item);
                    return;
                }
                let station = &mut self.stations[node as usize];
                station.waiting.push((item, from));
                if station.known[item as usize] != 1 {
                    self.fetch(node, now, item);
                }
            }
            Happening::Answer { node, item } => self.answer(node, time, item),
            Happening::Direct { node } => self.advance(node, time),
        }
    }

    fn work(&mut self, node: u32, time: u64, cost: u64) -> u64 {
        let station = &mut self.stations[node as usize];
        station.work = station.work.max(time) + cost;
        station.work
    }

    /// Every rank of every node opens the file and reads it, if no page cache does that for it.
    fn read_directly(&mut self, node: u32, now: u64, item: u32) {
        let bytes = self.items[item as usize].bytes * self.large.on_a_node(self.ranks);
        let opened = (0..self.ranks)
            .map(|_| self.origin.operations(now, 2))
            .max()
            .unwrap_or(now);
        let station = &mut self.stations[node as usize];
        let done = self.origin.read(opened, &mut station.reads, bytes);
        station.known[item as usize] = (done / 1_000) as u32 + 2;
        self.queue.push(done, Happening::Direct { node });
    }

    fn fetch(&mut self, node: u32, now: u64, item: u32) {
        self.stations[node as usize].known[item as usize] = 1;
        if node == 0 {
            let wanted = self.items[item as usize];
            let done = self.origin.operations(now, wanted.operations);
            let reads = &mut self.stations[0].reads;
            let done = if wanted.bytes > 200 {
                self.origin.read(done, reads, wanted.bytes)
            } else {
                done
            };
            self.queue.push(done, Happening::Answer { node, item });
            return;
        }
        let sent = self.work(node, now, self.machine.message_cost);
        let parent = (node - 1) / self.fan_out;
        let arrives = sent + self.machine.latency;
        self.queue.push(
            arrives,
            Happening::Request {
                node: parent,
                from: node,
                item,
            },
        );
    }

    /// The whole of something came: it is kept, and sent to every child that waits.
    fn answer(&mut self, node: u32, time: u64, item: u32) {
        let bytes = self.items[item as usize].bytes;
        let machine = self.machine;
        let station = &mut self.stations[node as usize];
        let came = if node == 0 {
            time
        } else {
            time.max(station.receives + machine.on_link(bytes))
        };
        station.receives = station.receives.max(came);
        let now = self.work(node, came, machine.message_cost);
        let station = &mut self.stations[node as usize];
        station.known[item as usize] = (now / 1_000) as u32 + 2;
        let waiting: Vec<(u32, u32)> = station
            .waiting
            .extract_if(.., |&mut (other, _)| other == item)
            .collect();
        for (item, child) in waiting {
            self.send(node, now, child, item);
        }
        let step = self.stations[node as usize].step as usize;
        if self.steps.get(step).is_some_and(|step| step.item == item) {
            let first = self.clocks_of(node).iter().copied().min().unwrap_or(0);
            // Who has not come to this step yet will find it.
            if first <= now {
                self.advance(node, now);
            }
        }
    }

    fn send(&mut self, node: u32, now: u64, to: u32, item: u32) {
        let bytes = self.items[item as usize].bytes + self.machine.header;
        let sent = self.work(node, now, self.machine.message_cost);
        let station = &mut self.stations[node as usize];
        station.sends = station.sends.max(sent) + self.machine.on_link(bytes);
        let arrives = station.sends + self.machine.latency;
        self.queue
            .push(arrives, Happening::Answer { node: to, item });
    }
}

/// The time without any cache: every rank's every call goes to the origin. Each rank waits for each
/// of its calls, and the origin for none faster than it can.
pub fn uncached(workload: &Workload, nodes: u32, ranks: usize, machine: &Machine) -> Outcomes {
    let rates = machine.origin;
    let (items, steps) = program(workload);
    let all = u64::from(nodes) * ranks as u64;
    let operations: u64 = steps
        .iter()
        .map(|step| items[step.item as usize].operations)
        .sum();
    // A node's ranks share the pages that its client has read.
    let bytes: u64 = items
        .iter()
        .map(|item| if item.bytes > 200 { item.bytes } else { 0 })
        .sum();
    let think: u64 = steps.iter().map(|step| step.think).sum::<u64>() + workload.tail();
    let alone = think + operations * rates.operation + span(bytes, rates.client);
    let served = span(
        all * operations,
        rates.servers as f64 / (rates.operation as f64 / 1e9),
    );
    let moved = span(u64::from(nodes) * bytes, rates.total);
    Outcomes {
        time: alone.max(served).max(moved),
        origin_operations: all * operations,
        origin_bytes: u64::from(nodes) * bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fan_out_follows_the_published_table() {
        let sizes = [
            1, 31, 32, 121, 122, 341, 342, 781, 782, 1_555, 1_556, 10_000,
        ];
        let expected = [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7];
        assert_eq!(sizes.map(fan_out), expected);
    }

    #[test]
    fn every_path_is_asked_of_the_origin_once_while_nothing_expires() {
        let workload = Workload::import();
        let outcomes = run(
            &workload,
            40,
            2,
            LargeReads::ByEveryRank,
            Machine::default(),
        );
        let (items, _) = program(&workload);
        let once: u64 = items
            .iter()
            .filter(|item| !item.direct)
            .map(|item| item.operations)
            .sum();
        let direct: u64 = items.iter().filter(|item| item.direct).count() as u64 * 40 * 2 * 2;
        let absent = items.iter().filter(|item| item.absent).count() as u64;
        assert!(outcomes.origin_operations >= once + direct);
        assert!(outcomes.origin_operations <= once + direct + 4 * absent);
    }

    #[test]
    fn a_large_file_is_read_by_every_rank_or_once_by_every_node() {
        let workload = Workload::torch();
        let read = |large| run(&workload, 5, 3, large, Machine::default());
        let (items, _) = program(&workload);
        let (direct, through_tree): (Vec<Item>, Vec<Item>) =
            items.iter().partition(|item| item.direct);
        let large: u64 = direct.iter().map(|item| item.bytes).sum();
        let small: u64 = through_tree
            .iter()
            .filter(|item| item.bytes > 200)
            .map(|item| item.bytes)
            .sum();
        let by_rank = read(LargeReads::ByEveryRank);
        let by_node = read(LargeReads::ByEveryNode);
        assert_eq!(by_rank.origin_bytes, small + 5 * 3 * large);
        assert_eq!(by_node.origin_bytes, small + 5 * large);
        let once = span(large, Machine::default().origin.client);
        assert!(by_rank.time > by_node.time + 19 * once / 10);
        assert!(by_rank.time < by_node.time + 21 * once / 10);
    }
}
