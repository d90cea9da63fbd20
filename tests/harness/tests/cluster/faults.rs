//! Helpers die, stop and lose their network while ranks work: leaf, interior node and root; idle, in
//! the middle of a large file, and in the middle of an import. The ranks' results are those of a
//! plain run, in bounded time; the tree heals; `copper status --all` names the node that is missing.

use crate::fixture::{
    DELAY, ONE_TREE, Part, SMALL_IMPORT, imports, node_of, packages, plain_import,
};
use copper_tests::cluster::ranks::{self, Ended};
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::{is_alive, wait_until};
use copper_tests::{python, tree};
use rustix::process::Signal;
use slow_origin::{Load, Operation, SlowOrigin};
use std::fmt;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is done to a node.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Its helper is killed.
    Kill,
    /// Its helper is stopped, and goes on later.
    Stop,
    /// Its cable is pulled, and plugged in later.
    Cut,
}

/// When it is done.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Nobody asks anything.
    Idle,
    /// All nodes read one large file.
    File,
    /// All nodes import.
    Import,
}

const HARMS: [Harm; 3] = [Harm::Kill, Harm::Stop, Harm::Cut];
const MOMENTS: [Moment; 3] = [Moment::Idle, Moment::File, Moment::Import];
const PARTS: [Part; 3] = [Part::Leaf, Part::Interior, Part::Root];

#[derive(Clone, Copy, Debug)]
struct Case {
    harm: Harm,
    part: Part,
    moment: Moment,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harm = match self.harm {
            Harm::Kill => "helper killed",
            Harm::Stop => "helper stopped",
            Harm::Cut => "link down",
        };
        let part = match self.part {
            Part::Leaf => "leaf",
            Part::Interior => "interior node",
            Part::Root => "root",
        };
        let moment = match self.moment {
            Moment::Idle => "idle",
            Moment::File => "in the middle of a large file",
            Moment::Import => "in the middle of an import",
        };
        write!(f, "{part}: {harm}, {moment}")
    }
}

/// Every combination.
fn all_cases() -> impl Iterator<Item = Case> {
    HARMS.into_iter().flat_map(|harm| {
        PARTS.into_iter().flat_map(move |part| {
            MOMENTS
                .into_iter()
                .map(move |moment| Case { harm, part, moment })
        })
    })
}

/// A cluster with what the ranks read, and what plain ranks say.
struct Bench {
    large: SlowOrigin,
    packages: SlowOrigin,
    size: usize,
    /// What the ranks import.
    code: &'static str,
    import: Usual,
    read: Usual,
    cluster: Cluster,
}

/// What ranks say and how long they take when nothing is wrong.
struct Usual {
    outcome: Outcome,
    /// As many plain ranks at once.
    plain: Duration,
    /// The ranks of a job, cold.
    healthy: Duration,
}

/// What a case cost.
struct Survived {
    took: Duration,
    /// Until `copper status --all` named the node; none where it never was.
    named: Duration,
    /// Until all nodes that can were there again.
    healed: Duration,
}

impl Bench {
    /// `nodes` nodes, a large file of `size` bytes, and the import `code`.
    fn new(nodes: usize, size: usize, code: &'static str) -> Self {
        let cluster = Cluster::up(nodes);
        let packages = packages(&cluster);
        let source = cluster.place().join("source");
        fs::create_dir(&source).unwrap();
        write_pattern(&source.join("large"), size);
        let large = cluster.origin("large", &source);
        // So slow that there is a middle: one plain reader takes some seconds.
        let mut load = Load::none();
        let reads = (size / (128 << 10)).max(1) as u64;
        load.latency_of.insert(Operation::Read, 3_000_000 / reads);
        large.set_load(&load).unwrap();
        let job = Job::prepare(&cluster, &[], Wishes::default());
        // So slow that the import has a middle, too.
        packages.set_load(&Load::latency_us(200)).unwrap();
        let (outcome, plain) = plain_import(&job, packages.mount(), 1, code);
        let import = Usual {
            outcome,
            plain,
            healthy: Duration::ZERO,
        };
        let ended = ranks::run(
            (0..nodes)
                .map(|node| read(&job, false, node, &large))
                .collect(),
        );
        let outcome = ended[0].outcome.clone();
        assert!(outcome.status.success(), "{outcome:?}");
        let read = Usual {
            outcome,
            plain: ranks::longest(&ended),
            healthy: Duration::ZERO,
        };
        let mut bench = Self {
            large,
            packages,
            size,
            code,
            import,
            read,
            cluster,
        };
        bench.measure_healthy();
        bench
    }

    fn measure_healthy(&mut self) {
        let job = self.start();
        let imported = ranks::run(self.imports(&job));
        let read = ranks::run(self.reads(&job));
        job.stop(0).unwrap_or_else(|error| panic!("{error:#}"));
        ranks::must_equal(&imported, &self.import.outcome, "with nothing wrong");
        ranks::must_equal(&read, &self.read.outcome, "with nothing wrong");
        let (imported, read) = (ranks::longest(&imported), ranks::longest(&read));
        self.import.healthy = imported;
        self.read.healthy = read;
    }

    fn start(&self) -> Job<'_> {
        let covered = [self.packages.mount(), self.large.mount()];
        Job::start(&self.cluster, &covered, Wishes::arguments(&ONE_TREE))
    }

    fn usual(&self, moment: Moment) -> &Usual {
        match moment {
            Moment::File => &self.read,
            Moment::Idle | Moment::Import => &self.import,
        }
    }

    /// Does the harm and holds everything that is promised against it.
    fn survive(&self, case: Case) -> Survived {
        let nodes = self.cluster.count();
        let job = self.start();
        let node = node_of(case.part, nodes);
        self.packages.reset().unwrap();
        self.large.reset().unwrap();
        let ended = match case.moment {
            Moment::Idle => {
                self.harm(&job, node, case.harm);
                ranks::run(self.imports(&job))
            }
            Moment::Import => ranks::run_during(self.imports(&job), || {
                self.wait_for("the import", || {
                    self.packages.counts().unwrap().of(Operation::Open) > 50
                });
                self.harm(&job, node, case.harm);
            }),
            Moment::File => self.read_and_harm(&job, node, case.harm),
        };
        let usual = self.usual(case.moment);
        ranks::must_equal(&ended, &usual.outcome, &format!("with {case}"));
        let took = ranks::longest(&ended);
        let (plain, healthy) = (usual.plain, usual.healthy);
        assert!(
            took < 2 * plain.max(healthy) + DELAY,
            "with {case} the ranks took {took:?}, plain {plain:?}, with nothing wrong {healthy:?}"
        );
        let asked_on = (0..nodes).rev().find(|&other| other != node).unwrap();
        let begun = Instant::now();
        self.wait_for(&format!("the status to name the node, {case},"), || {
            job.missing(asked_on) == [self.cluster.host(node)]
        });
        let named = begun.elapsed();
        let healed = self.heal(&job, node, case, asked_on);
        // Everybody goes on, the harmed node's ranks among them.
        let again = ranks::run(self.imports(&job));
        ranks::must_equal(&again, &self.import.outcome, &format!("after {case}"));
        self.end(&job, node, asked_on);
        Survived {
            took,
            named,
            healed,
        }
    }

    fn imports(&self, job: &Job<'_>) -> Vec<Command> {
        imports(job, self.packages.mount(), 1, self.code)
    }

    fn reads(&self, job: &Job<'_>) -> Vec<Command> {
        (0..job.nodes())
            .map(|node| read(job, true, node, &self.large))
            .collect()
    }

    fn read_and_harm(&self, job: &Job<'_>, node: usize, harm: Harm) -> Vec<Ended> {
        ranks::run_during(self.reads(job), || {
            self.wait_for("the large file to be read", || {
                let read = self.large.counts().unwrap().bytes_read;
                read.get("large")
                    .is_some_and(|&read| read > self.size as u64 / 4)
            });
            self.harm(job, node, harm);
        })
    }

    fn harm(&self, job: &Job<'_>, node: usize, harm: Harm) {
        match harm {
            Harm::Kill => job.kill(node),
            Harm::Stop => job.signal(node, Signal::STOP),
            Harm::Cut => self.cluster.set_link(node, false),
        }
    }

    /// Undoes the harm, where that is possible, and waits until all are there again.
    fn heal(&self, job: &Job<'_>, node: usize, case: Case, asked_on: usize) -> Duration {
        match case.harm {
            Harm::Kill => return Duration::ZERO,
            Harm::Stop => job.signal(node, Signal::CONT),
            Harm::Cut => self.cluster.set_link(node, true),
        }
        let begun = Instant::now();
        self.wait_for(&format!("the node to be back after {case}"), || {
            job.missing(asked_on).is_empty() && job.missing(node).is_empty()
        });
        begun.elapsed()
    }

    fn end(&self, job: &Job<'_>, node: usize, asked_on: usize) {
        job.stop(asked_on)
            .unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!is_alive(job.helper(node)));
        // What a killed helper left behind goes with the next start; the next case has its own.
        self.cluster
            .shell(node, "rm -rf /dev/shm/copper-* /tmp/copper-*");
    }

    fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(
            wait_until(Duration::from_secs(30), condition),
            "waited in vain for {what}"
        );
    }
}

/// A rank that reads the large file.
fn read(job: &Job<'_>, shimmed: bool, node: usize, origin: &SlowOrigin) -> Command {
    let program = if shimmed {
        job.rank(node, "cksum")
    } else {
        job.plain(node, "cksum")
    };
    let mut program = program;
    program.arg(origin.mount().join("large"));
    program
}

fn write_pattern(path: &std::path::Path, size: usize) {
    // One that differs from piece to piece, and is quick to make.
    const PIECE: usize = 8 << 20;
    let mut file = fs::File::create(path).unwrap();
    for (number, start) in (0..size).step_by(PIECE).enumerate() {
        let piece = tree::pattern(PIECE.min(size - start), number);
        file.write_all(&piece).unwrap();
    }
}

fn survive_all(bench: &Bench, cases: impl Iterator<Item = Case>) {
    println!("| | plain, s | nothing wrong, s | took, s | named after, s | back after, s |");
    println!("|---|---:|---:|---:|---:|---:|");
    for case in cases {
        let survived = bench.survive(case);
        let usual = bench.usual(case.moment);
        println!(
            "| {case} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            usual.plain.as_secs_f64(),
            usual.healthy.as_secs_f64(),
            survived.took.as_secs_f64(),
            survived.named.as_secs_f64(),
            survived.healed.as_secs_f64()
        );
    }
}

/// One moment for each harm and part, so that each combination of two is there.
fn some_cases(harm: Harm) -> impl Iterator<Item = Case> {
    all_cases().filter(move |case| {
        let chosen = (case.harm as usize + case.part as usize) % 3;
        case.harm as usize == harm as usize && case.moment as usize == chosen
    })
}

#[test]
fn helpers_killed() {
    survive_all(
        &Bench::new(4, 48 << 20, SMALL_IMPORT),
        some_cases(Harm::Kill),
    );
}

#[test]
fn helpers_stopped() {
    survive_all(
        &Bench::new(4, 48 << 20, SMALL_IMPORT),
        some_cases(Harm::Stop),
    );
}

#[test]
fn links_down() {
    survive_all(
        &Bench::new(4, 48 << 20, SMALL_IMPORT),
        some_cases(Harm::Cut),
    );
}

/// The kernel tries an old connection at doubling intervals, so the longer a node was cut off, the
/// longer it would take to notice that it is back.
#[test]
fn a_node_that_was_cut_off_for_long_is_back_soon() {
    const OUTAGE: Duration = Duration::from_secs(27);
    let cluster = Cluster::up(3);
    let place = cluster.place();
    let job = Job::start(&cluster, &[place], Wishes::arguments(&ONE_TREE));
    let leaf = node_of(Part::Leaf, 3);
    let asked_on = (0..3).find(|&node| node != leaf).unwrap();
    cluster.set_link(leaf, false);
    let cut = Instant::now();
    // The survey is what the kernel tries to deliver.
    assert_eq!(job.missing(asked_on), [cluster.host(leaf)]);
    std::thread::sleep(OUTAGE.saturating_sub(cut.elapsed()));
    cluster.set_link(leaf, true);
    let back = Instant::now();
    let all = || job.missing(asked_on).is_empty() && job.missing(leaf).is_empty();
    assert!(
        wait_until(Duration::from_secs(15), all),
        "not back after {:?}",
        back.elapsed()
    );
    println!(
        "back {:.1} s after an outage of {OUTAGE:?}",
        back.elapsed().as_secs_f64()
    );
    job.stop(asked_on)
        .unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
#[ignore = "takes many minutes; scripts/faults.sh runs it"]
fn every_harm_on_eight_nodes_with_500_megabytes() {
    // To try some of them again: what their descriptions contain.
    let asked = std::env::var("COPPER_TEST_FAULTS").unwrap_or_default();
    let cases = all_cases().filter(|case| case.to_string().contains(&asked));
    survive_all(&Bench::new(8, 500 << 20, python::IMPORT), cases);
}
