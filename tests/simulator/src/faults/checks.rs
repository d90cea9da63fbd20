//! What must hold in every run, whatever goes wrong in it.

use copper_core::tree::{Answer, Load, Node, Object, Rank, Report, Settings, Waiter};
use std::collections::HashMap;

use super::origin::Origin;
use super::schedule::{Fault, FileIndex, MS, Schedule};
use super::store::Store;

/// Waiters' tokens of surveys and invalidations begin here; below are those of requests.
const WAVES_FROM: u64 = 1 << 40;

/// After this many failures a run is not worth going on with.
const HOPELESS: usize = 10;

/// How late an answer may be for reasons of the timer alone.
const SLACK: u64 = MS;

struct Asked {
    rank: Rank,
    object: Object,
    asked: u64,
    deadline: u64,
    /// What is told may not have ceased to be true before this.
    fresh_from: u64,
    answers: u32,
    /// The node died.
    void: bool,
    strict: bool,
}

struct Wave {
    rank: Rank,
    /// For an invalidation: of which file, made when.
    change: Option<(FileIndex, u64)>,
    settled: Option<u64>,
    complete: bool,
    failed: bool,
    void: bool,
}

/// Sees everything and says what was wrong.
#[derive(Default)]
pub(super) struct Judge {
    asked: Vec<Asked>,
    waves: Vec<Wave>,
    failures: Vec<String>,
    losses: u64,
    deaths: u32,
    pub(super) evictions: u32,
    /// From now on every request must be answered with what is so.
    pub(super) strict: bool,
}

impl Judge {
    pub(super) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    pub(super) fn is_hopeless(&self) -> bool {
        self.failures.len() >= HOPELESS
    }

    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    pub(super) fn ask(&mut self, rank: Rank, object: Object, now: u64, deadline: u64) -> Waiter {
        self.asked.push(Asked {
            rank,
            object,
            asked: now,
            deadline,
            fresh_from: 0,
            answers: 0,
            void: false,
            strict: self.strict,
        });
        Waiter(self.asked.len() as u64 - 1)
    }

    pub(super) fn invalidate(&mut self, rank: Rank, file: FileIndex, now: u64) -> Waiter {
        self.wave(rank, Some((file, now)))
    }

    pub(super) fn survey(&mut self, rank: Rank, _now: u64) -> Waiter {
        self.wave(rank, None)
    }

    fn wave(&mut self, rank: Rank, change: Option<(FileIndex, u64)>) -> Waiter {
        self.waves.push(Wave {
            rank,
            change,
            settled: None,
            complete: false,
            failed: false,
            void: false,
        });
        Waiter(WAVES_FROM + self.waves.len() as u64 - 1)
    }

    /// From now on an invalidation that was settled binds everybody, also those that it is reported
    /// to have missed. Only if its writer died after such a report may it have died with it.
    pub(super) fn everywhere_fresh(&mut self) {
        for wave in &mut self.waves {
            wave.complete |= wave.settled.is_some() && !wave.failed && !wave.void;
        }
    }

    /// The moment before which nothing said of `file` on `rank` may have ceased to be true.
    fn fresh_from(&self, rank: Rank, file: FileIndex, asked: u64) -> u64 {
        let binding = self.waves.iter().filter_map(|wave| {
            let (changed, at) = wave.change?;
            let everywhere = wave.complete && wave.settled.is_some_and(|settled| settled <= asked);
            let here = wave.rank == rank && !wave.void && !wave.failed;
            (changed == file && at <= asked && (everywhere || here)).then_some(at)
        });
        binding.max().unwrap_or(0)
    }

    pub(super) fn answered(
        &mut self,
        now: u64,
        waiter: Waiter,
        object: &Object,
        answer: &Answer,
        origin: &Origin,
        schedule: &Schedule,
    ) {
        let Some(index) = usize::try_from(waiter.0)
            .ok()
            .filter(|&index| index < self.asked.len())
        else {
            self.fail(format!("an answer for {waiter:?}, which never asked"));
            return;
        };
        let file = origin.file(object);
        let fresh_from = self.fresh_from(self.asked[index].rank, file, self.asked[index].asked);
        let asked = &mut self.asked[index];
        asked.fresh_from = fresh_from;
        asked.answers += 1;
        let what = format!("node {} at {} ms, {object:?}", asked.rank, now / MS);
        if asked.object != *object {
            self.failures
                .push(format!("{what}: the answer to another question"));
        } else if asked.answers > 1 {
            self.failures.push(format!("{what}: answered twice"));
        } else if now > asked.deadline + SLACK + delay_of(schedule, asked.rank) {
            self.failures
                .push(format!("{what}: answered after its deadline"));
        }
        let asked = &self.asked[index];
        let calm = schedule.is_calm() || asked.strict;
        let wrong = match answer {
            Answer::Known(record) => {
                !origin.was_true(object, record.outcome, fresh_from, now)
                    || record.object != *object
            }
            Answer::Failed { errno } => calm || !may_fail(schedule, file, *errno),
            Answer::TimedOut => calm || now < asked.deadline && !may_stall(schedule, file),
            Answer::Busy => calm,
            Answer::NoSpace => {
                calm || !schedule
                    .faults
                    .iter()
                    .any(|f| matches!(f, Fault::StoreFull { .. }))
            }
        };
        if wrong {
            let now_so = origin.outcome(object, now);
            self.failures.push(format!(
                "{what}: told {answer:?}, is {now_so:?}, fresh from {fresh_from}"
            ));
        }
    }

    pub(super) fn settled(
        &mut self,
        now: u64,
        rank: Rank,
        waiter: Waiter,
        report: &Report,
        nodes: u32,
        calm: bool,
    ) {
        let index = waiter.0.checked_sub(WAVES_FROM).map(|index| index as usize);
        let Some(wave) = index
            .and_then(|index| self.waves.get_mut(index))
            .filter(|w| w.rank == rank)
        else {
            self.fail(format!(
                "node {rank} settled {waiter:?}, which it never began"
            ));
            return;
        };
        if wave.settled.replace(now).is_some() {
            self.failures
                .push(format!("node {rank}: {waiter:?} settled twice"));
            return;
        }
        wave.complete = report.is_complete() && report.reached == nodes;
        wave.failed = report.reached == 0;
        if calm && !wave.complete {
            self.failures.push(format!(
                "node {rank}: a calm wave reached {} of {nodes}",
                report.reached
            ));
        }
        if report.reached > nodes {
            self.failures.push(format!(
                "node {rank}: a wave reached {} of {nodes}",
                report.reached
            ));
        }
    }

    pub(super) fn node_died(&mut self, rank: Rank, node: &Node) {
        self.deaths += 1;
        self.losses += node.counters().losses;
        self.asked
            .iter_mut()
            .filter(|asked| asked.rank == rank)
            .for_each(|asked| asked.void = true);
        self.waves
            .iter_mut()
            .filter(|wave| wave.rank == rank)
            .for_each(|wave| wave.void = true);
    }

    /// What a node holds never passes its bounds.
    pub(super) fn loads(&mut self, rank: Rank, node: &Node, settings: &Settings) {
        let load = node.load();
        let flights = load.open * (1 + 16 * usize::from(settings.window))
            + settings.credits as usize * 80 * 8;
        let within = load.open + load.partial <= settings.open as usize
            && load.flights <= flights
            && load.waiters <= settings.waiters as usize
            && load.peers <= u64::from(settings.credits) * 80 * 8
            && load.waves <= 512;
        if !within {
            self.fail(format!("node {rank} grows: {load:?}"));
        }
    }

    /// Nothing is left under way when all has come to rest.
    pub(super) fn rests(&mut self, rank: Rank, node: &Node) {
        let load = node.load();
        if load
            != (Load {
                known: load.known,
                partial: load.partial,
                ..Load::default()
            })
        {
            self.fail(format!("node {rank} does not come to rest: {load:?}"));
        }
    }

    /// The catalog holds nothing that the node does not stand for any more.
    pub(super) fn vouches(&mut self, rank: Rank, node: &Node, store: &Store) {
        for (object, stamp) in store.published() {
            if node
                .lookup(object)
                .is_none_or(|record| record.stamp() != stamp)
            {
                self.failures
                    .push(format!("node {rank}: {object:?} was left in the catalog"));
            }
        }
    }

    /// Every request was answered, and every wave settled.
    pub(super) fn all_answered(&mut self, now: u64) {
        let late = |asked: &&Asked| {
            !asked.void && asked.answers == 0 && asked.deadline + 60_000 * MS < now
        };
        let forgotten: Vec<String> = self
            .asked
            .iter()
            .filter(late)
            .map(|asked| format!("node {}: {:?} was never answered", asked.rank, asked.object))
            .collect();
        self.failures.extend(forgotten);
        let open = self
            .waves
            .iter()
            .filter(|wave| !wave.void && wave.settled.is_none());
        let open: Vec<String> = open
            .map(|wave| {
                format!(
                    "node {}: a wave of {:?} never settled",
                    wave.rank, wave.change
                )
            })
            .collect();
        self.failures.extend(open);
    }

    /// Everything was read from the origin once, and once more for each fault that justifies it.
    pub(super) fn reads(&mut self, origin: &Origin, schedule: &Schedule, losses_now: u64) {
        let losses = self.losses + losses_now;
        let invalidations = self
            .waves
            .iter()
            .filter(|wave| wave.change.is_some())
            .count() as u64;
        let stores = schedule
            .faults
            .iter()
            .filter(|f| matches!(f, Fault::StoreFull { .. }))
            .count() as u64;
        let general = losses
            + u64::from(self.deaths) * 2
            + u64::from(self.evictions)
            + (invalidations * 2 + stores * 8) * u64::from(schedule.topology.nodes());
        let mut errors: HashMap<FileIndex, u64> = HashMap::new();
        for fault in &schedule.faults {
            if let Fault::OriginError { file, .. }
            | Fault::OriginSilence { file, .. }
            | Fault::OriginHang { file, .. } = fault
            {
                let asks = self
                    .asked
                    .iter()
                    .filter(|asked| origin.file(&asked.object) == *file)
                    .count();
                *errors.entry(*file).or_insert(0) += asks as u64;
            }
        }
        for ((object, chunk), &count) in &origin.reads {
            let file = origin.file(object);
            let changes =
                u64::from(origin.changes(file)) * 4 * u64::from(schedule.topology.nodes());
            let allowed = 1 + general + changes + errors.get(&file).copied().unwrap_or(0);
            if u64::from(count) > allowed {
                let what = format!("{object:?} {chunk:?} was read {count} times from the origin");
                self.failures.push(format!("{what}, {allowed} justified"));
            }
        }
    }
}

/// What a node that is slow may add to its answers' time.
fn delay_of(schedule: &Schedule, rank: Rank) -> u64 {
    let slow = schedule.faults.iter().filter_map(|fault| match *fault {
        Fault::Slow {
            rank: r,
            at,
            until,
            per_event,
        } if r == rank => Some(until - at + 100 * per_event),
        _ => None,
    });
    slow.sum()
}

/// Whether a request for a file may be given up before its deadline, because nothing had come of an
/// earlier one for as long as a node's patience.
fn may_stall(schedule: &Schedule, file: FileIndex) -> bool {
    schedule.faults.iter().any(|fault| match *fault {
        Fault::OriginSilence { file: f, .. } | Fault::OriginHang { file: f, .. } => f == file,
        Fault::Change { .. } | Fault::Eviction { .. } | Fault::Survey { .. } => false,
        _ => true,
    })
}

/// Whether a passing error may be told of a file.
fn may_fail(schedule: &Schedule, file: FileIndex, told: i32) -> bool {
    const ESTALE: i32 = 116;
    const ETIMEDOUT: i32 = 110;
    schedule.faults.iter().any(|fault| match *fault {
        Fault::OriginError { file: f, errno, .. } => f == file && errno == told,
        Fault::Change { file: f, .. } => f == file && told == ESTALE,
        _ => told == ETIMEDOUT,
    })
}
