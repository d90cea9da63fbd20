//! What a run consists of: a small job, its requests, and what goes wrong when. All of it follows
//! from a seed; a schedule can also be cut down by hand, which is how failures are shrunk.

use copper_core::tree::{Kind, Rank, Settings, Topology};
use fastrand::Rng;
use std::time::Duration;

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// When the last fault has healed and the last request of the first part was made.
pub(crate) const QUIET: u64 = 20_000 * MS;

/// A file or directory of the origin, by number.
pub(crate) type FileIndex = usize;

/// Something that goes wrong, or changes.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A node's process ends, and perhaps begins anew, empty.
    Death {
        rank: Rank,
        at: u64,
        back: Option<u64>,
    },
    /// Messages and transfers between the set and the others are lost.
    Partition {
        side: Vec<bool>,
        at: u64,
        heals: u64,
    },
    /// Of the messages sent meanwhile, so many per thousand are lost.
    Loss { at: u64, until: u64, per_mille: u32 },
    /// Of the messages sent meanwhile, so many per thousand come again later, perhaps much later.
    Duplication { at: u64, until: u64, per_mille: u32 },
    /// Messages sent meanwhile take up to so much longer, each its own time, and so overtake.
    Delay { at: u64, until: u64, up_to: u64 },
    /// A node takes so long for each event.
    Slow {
        rank: Rank,
        at: u64,
        until: u64,
        per_event: u64,
    },
    /// The origin answers for a file with a passing error.
    OriginError {
        file: FileIndex,
        at: u64,
        until: u64,
        errno: i32,
    },
    /// The origin does not answer for a file; what was asked meanwhile it answers at the end.
    OriginHang {
        file: FileIndex,
        at: u64,
        until: u64,
    },
    /// The origin never answers what was asked for a file meanwhile.
    OriginSilence {
        file: FileIndex,
        at: u64,
        until: u64,
    },
    /// A file changes at the origin; its writer, if it is one of us, says so.
    Change {
        file: FileIndex,
        at: u64,
        into: FileState,
        writer: Option<Rank>,
    },
    /// A node's store holds nothing more.
    StoreFull { rank: Rank, at: u64, until: u64 },
    /// A node's driver makes room.
    Eviction {
        rank: Rank,
        file: FileIndex,
        at: u64,
    },
    /// Transfers of a node fail.
    BrokenTransfers { rank: Rank, at: u64, until: u64 },
    /// A node asks how all are.
    Survey { rank: Rank, at: u64 },
}

/// What a file is at the origin at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    /// There, in its n-th version, this long.
    Present { version: u64, length: u64 },
    /// Not there.
    Absent,
    /// There, but not for us (`EACCES`).
    Denied,
    /// Too large to be served whole.
    TooLarge,
}

/// A request of somebody on a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) rank: Rank,
    pub(crate) kind: Kind,
    pub(crate) file: FileIndex,
    pub(crate) at: u64,
    pub(crate) patience: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub(crate) seed: u64,
    pub(crate) topology: Topology,
    pub(crate) settings: Settings,
    pub(crate) files: Vec<FileState>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) faults: Vec<Fault>,
    /// The transport notices dead and cut-off peers by itself.
    pub(crate) notices: bool,
    /// Nanoseconds that the origin takes for one operation, at most.
    pub(crate) origin_delay: u64,
}

impl Schedule {
    /// The run of `seed`.
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let nodes = match random.u32(0..10) {
            0 => 1,
            1..4 => random.u32(2..6),
            4..9 => random.u32(4..24),
            _ => random.u32(24..80),
        };
        let trees = random.u16(1..9);
        let fan_out = random.u32(1..9);
        let topology =
            Topology::fitted(nodes, trees, fan_out).expect("numbers above 0 fit any job");
        let settings = settings(&mut random);
        let files: Vec<FileState> = (0..random.usize(3..30))
            .map(|_| file_state(&mut random, 1))
            .collect();
        let mut asks = asks(&mut random, nodes, files.len());
        let calm = random.u32(0..10) == 0;
        if calm {
            // Nothing is a reason to be late, so lateness is a failure; a long chain takes its time.
            asks.iter_mut().for_each(|ask| ask.patience = 10_000 * MS);
        }
        let count = if calm { 0 } else { random.usize(1..9) };
        let faults = (0..count)
            .map(|_| fault(&mut random, &topology, files.len()))
            .collect();
        let notices = random.bool();
        let origin_delay = [MS / 10, 2 * MS, 50 * MS][random.usize(0..if calm { 2 } else { 3 })];
        Self {
            seed,
            topology,
            settings,
            files,
            asks,
            faults,
            notices,
            origin_delay,
        }
    }

    /// Whether nothing goes wrong in this run.
    pub(crate) fn is_calm(&self) -> bool {
        self.faults
            .iter()
            .all(|fault| matches!(fault, Fault::Survey { .. }))
    }
}

fn settings(random: &mut Rng) -> Settings {
    Settings {
        inline_limit: 1_000,
        chunk: [1_000, 4_000][random.usize(0..2)],
        largest: 1 << 30,
        window: random.u16(1..5),
        grants: random.u16(1..9),
        open: [200, 400][random.usize(0..2)],
        credits: [8, 64, 1_024][random.usize(0..3)],
        waiters: 1_000,
        resend: Duration::from_millis(250),
        silence: Duration::from_millis(900),
        shun: Duration::from_secs(3),
        transfer: Duration::from_secs(2),
        patience: Duration::from_secs(12),
    }
}

fn file_state(random: &mut Rng, version: u64) -> FileState {
    let length = match random.u32(0..6) {
        0 => 0,
        1 | 2 => random.u64(1..1_000),
        3 | 4 => random.u64(1_000..10_000),
        _ => random.u64(10_000..100_000),
    };
    match random.u32(0..12) {
        0 => FileState::Absent,
        1 => FileState::Denied,
        2 => FileState::TooLarge,
        _ => FileState::Present { version, length },
    }
}

fn kind(random: &mut Rng) -> Kind {
    match random.u32(0..8) {
        0 => Kind::Entry,
        1 => Kind::Directory,
        2 => Kind::Closure,
        _ => Kind::Content,
    }
}

fn asks(random: &mut Rng, nodes: u32, files: usize) -> Vec<Ask> {
    let patience = [2_000 * MS, 5_000 * MS][random.usize(0..2)];
    let mut asks = Vec::new();
    // A wave of ranks that start together, as a job does, then stragglers.
    for _ in 0..random.usize(1..6) {
        let (at, file, kind) = (
            random.u64(0..QUIET / 2),
            random.usize(0..files),
            kind(random),
        );
        for rank in 0..nodes {
            for _ in 0..random.u32(1..3) {
                asks.push(Ask {
                    rank,
                    kind,
                    file,
                    at: at + random.u64(0..50 * MS),
                    patience,
                });
            }
        }
    }
    for _ in 0..random.usize(0..60) {
        asks.push(Ask {
            rank: random.u32(0..nodes),
            kind: kind(random),
            file: random.usize(0..files),
            at: random.u64(0..QUIET - 1_000 * MS),
            patience,
        });
    }
    asks
}

fn fault(random: &mut Rng, topology: &Topology, files: usize) -> Fault {
    let nodes = topology.nodes();
    let at = random.u64(0..QUIET * 3 / 4);
    let until = (at + random.u64(10 * MS..6_000 * MS)).min(QUIET);
    let root = topology.root(random.u16(0..topology.trees()));
    let rank = if random.u32(0..3) == 0 {
        root
    } else {
        random.u32(0..nodes)
    };
    let file = random.usize(0..files);
    match random.u32(0..17) {
        0..3 => Fault::Death {
            rank,
            at,
            back: random.bool().then_some(until),
        },
        3 => Fault::Partition {
            side: (0..nodes).map(|_| random.bool()).collect(),
            at,
            heals: until,
        },
        4 => {
            let alone = random.u32(0..nodes);
            Fault::Partition {
                side: (0..nodes).map(|rank| rank == alone).collect(),
                at,
                heals: until,
            }
        }
        5 => Fault::Loss {
            at,
            until,
            per_mille: [10, 100, 500][random.usize(0..3)],
        },
        6 => Fault::Duplication {
            at,
            until,
            per_mille: [100, 1_000][random.usize(0..2)],
        },
        7 => Fault::Delay {
            at,
            until,
            up_to: [MS, 100 * MS, 2_000 * MS][random.usize(0..3)],
        },
        8 => Fault::Slow {
            rank,
            at,
            until,
            per_event: [MS, 50 * MS][random.usize(0..2)],
        },
        9 => Fault::OriginError {
            file,
            at,
            until,
            errno: [5, 116][random.usize(0..2)],
        },
        10 => Fault::OriginHang { file, at, until },
        11 => Fault::OriginSilence { file, at, until },
        12 | 13 => {
            let into = file_state(random, 0);
            Fault::Change {
                file,
                at,
                into,
                writer: random.bool().then_some(rank),
            }
        }
        14 => Fault::StoreFull { rank, at, until },
        15 => Fault::Eviction { rank, file, at },
        _ if random.bool() => Fault::BrokenTransfers { rank, at, until },
        _ => Fault::Survey { rank, at },
    }
}
