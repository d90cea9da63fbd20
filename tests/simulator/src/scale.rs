//! The scale report: the same jobs at many sizes and in many shapes, beside the first Copper's scheme
//! and no cache at all, as a table and as JSON.

use copper_core::tree::{Kind, Object, Topology};
use cpu_time::ThreadTime;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::{self, Job};
use crate::machine::{Machine, span};
use crate::peer_scheme::{self, LargeReads};
use crate::workload::{Need, Workload};

/// The sizes of jobs that are reported, in nodes.
pub const SIZES: [u32; 8] = [1, 32, 512, 2_048, 4_096, 8_300, 10_624, 100_000];

/// The size at which shapes are compared.
const SHAPES_AT: u32 = 512;

/// The size at which a large file is spread from an origin that is no limit.
const SPREAD_AT: u32 = 4_096;

const TREE: &str = "cooperative tree";
const PEER: &str = "first Copper's scheme";
const PEER_CACHED: &str = "first Copper's scheme with a page cache";
const UNCACHED: &str = "no cache";
const LIBRARY_NAME: &str = "1 GB library";
const SPREAD_NAME: &str = "1 GB library, origin no limit";

/// Ranks on each node.
const RANKS: usize = 12;

/// The shape that is recommended: T trees of fan-out k.
pub const RECOMMENDED: (u16, u32) = (8, 8);

/// Bytes of the large library.
const LIBRARY: u64 = 1_000_000_000;

/// The largest job in which chunks are of 1 MiB; with more nodes there would be too many events to
/// simulate in reasonable time.
const MANY: u32 = 20_000;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What the ranks did.
    pub workload: String,
    /// Which scheme served them.
    pub scheme: String,
    /// Nodes.
    pub nodes: u32,
    /// Trees.
    pub trees: u16,
    /// Fan-out.
    pub fan_out: u32,
    /// Seconds until the last rank was done.
    pub seconds: f64,
    /// The bound for this run in seconds, where there is one.
    pub bound: Option<f64>,
    /// Metadata operations at the origin.
    pub origin_operations: u64,
    /// Bytes read from the origin.
    pub origin_bytes: u64,
    /// The most often that any one thing was asked of the origin, where that is counted.
    pub most_reads: Option<u32>,
    /// Seconds of processor time that the run took to simulate.
    pub simulated_in: f64,
}

impl Row {
    /// What tells a run from others.
    fn key(&self) -> (String, u32, String, u16, u32) {
        (
            self.workload.clone(),
            self.nodes,
            self.scheme.clone(),
            self.trees,
            self.fan_out,
        )
    }

    /// Whether the tree had the shape that is recommended for its size.
    fn is_recommended(&self) -> bool {
        let topology = topology(self.nodes, RECOMMENDED);
        (self.trees, self.fan_out) == (topology.trees(), topology.fan_out())
    }
}

/// The whole report.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Ranks on each node.
    pub ranks: usize,
    /// All runs.
    pub rows: Vec<Row>,
    /// What must hold, and whether it does.
    pub claims: Vec<Claim>,
}

/// Something that must hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claim {
    /// What.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// The bound.
    pub at_most: f64,
    /// Whether it holds.
    pub holds: bool,
}

/// One run to be made.
struct Case<'a> {
    workload: &'static str,
    scheme: &'static str,
    run: Box<dyn Fn() -> Row + Send + Sync + 'a>,
}

impl<'a> Case<'a> {
    fn new(
        workload: &'static str,
        scheme: &'static str,
        run: impl Fn() -> Row + Send + Sync + 'a,
    ) -> Self {
        Self {
            workload,
            scheme,
            run: Box::new(run),
        }
    }
}

/// Which runs a report is to make anew.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Jobs of so many nodes.
    pub sizes: RangeInclusive<u32>,
    /// Workloads whose names hold this.
    pub workload: String,
    /// Schemes whose names hold this.
    pub scheme: String,
}

/// Makes the selected runs, `threads` at a time, smallest first, and hands the report to `save` after
/// every one. Rows of `earlier` stay in it until they are made anew, so that a report can be made in
/// parts.
pub fn run(
    selection: &Selection,
    threads: usize,
    earlier: Vec<Row>,
    save: impl Fn(&Report) + Sync,
) -> Report {
    let machine = Machine::default();
    let workloads = (Workload::import(), Workload::torch());
    let sizes = &selection.sizes;
    let mut cases: Vec<Case<'_>> = Vec::new();
    for nodes in SIZES.into_iter().filter(|nodes| sizes.contains(nodes)) {
        add_size(&mut cases, nodes, &workloads, machine);
    }
    if sizes.contains(&SHAPES_AT) {
        add_shapes(&mut cases, &workloads.0, machine);
    }
    cases.retain(|case| {
        case.workload.contains(&selection.workload) && case.scheme.contains(&selection.scheme)
    });
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(earlier);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = (case.run)();
            eprintln!("{}", line(&row));
            let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
            rows.retain(|other| other.key() != row.key());
            rows.push(row);
            save(&report(machine, &rows));
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| {
            scope.spawn(work);
        });
        // The main thread's heap is the one that can lie in huge pages; see scripts/simulate.sh.
        work();
    });
    report(
        machine,
        &rows.into_inner().unwrap_or_else(PoisonError::into_inner),
    )
}

/// The report of these rows: the recommended shape first, then the others.
fn report(machine: Machine, rows: &[Row]) -> Report {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| (row.scheme == TREE && !row.is_recommended(), row.key()));
    let claims = claims(&rows);
    Report {
        machine,
        ranks: RANKS,
        rows,
        claims,
    }
}

/// What is run at every size.
fn add_size<'a>(
    cases: &mut Vec<Case<'a>>,
    nodes: u32,
    workloads: &'a (Workload, Workload),
    machine: Machine,
) {
    let (import, torch) = workloads;
    let variants = [
        (PEER, LargeReads::ByEveryRank),
        (PEER_CACHED, LargeReads::ByEveryNode),
    ];
    for workload in [import, torch] {
        cases.push(Case::new(workload.name, TREE, move || {
            tree(workload, nodes, RECOMMENDED, machine)
        }));
        for (scheme, large) in variants {
            cases.push(Case::new(workload.name, scheme, move || {
                peer(workload, nodes, scheme, large, machine)
            }));
        }
    }
    cases.push(Case::new(import.name, UNCACHED, move || {
        uncached(import, nodes, machine)
    }));
    cases.push(Case::new(LIBRARY_NAME, TREE, move || {
        library(nodes, RECOMMENDED, machine, LIBRARY_NAME)
    }));
    for (scheme, large) in variants {
        cases.push(Case::new(LIBRARY_NAME, scheme, move || {
            peer_library(nodes, scheme, large, machine)
        }));
    }
    if nodes == SPREAD_AT {
        let fast = machine.with_fast_origin();
        cases.push(Case::new(SPREAD_NAME, TREE, move || {
            library(nodes, RECOMMENDED, fast, SPREAD_NAME)
        }));
    }
}

fn add_shapes<'a>(cases: &mut Vec<Case<'a>>, import: &'a Workload, machine: Machine) {
    for trees in [1, 2, 4, 8] {
        for fan_out in [2, 4, 8, 16] {
            let shape = (trees, fan_out);
            cases.push(Case::new(import.name, TREE, move || {
                tree(import, SHAPES_AT, shape, machine)
            }));
            let fast = machine.with_fast_origin();
            cases.push(Case::new(SPREAD_NAME, TREE, move || {
                library(SHAPES_AT, shape, fast, SPREAD_NAME)
            }));
        }
    }
}

fn tree(workload: &Workload, nodes: u32, shape: (u16, u32), machine: Machine) -> Row {
    let needs = workload.needs();
    let name = workload.name.to_owned();
    cooperative(name, &needs, workload.tail(), nodes, shape, machine)
}

fn library(nodes: u32, shape: (u16, u32), machine: Machine, name: &str) -> Row {
    let object =
        Object::new(Kind::Content, b"/lus/project/lib/liblarge.so").expect("a canonical path");
    let needs = [Need {
        think: 0,
        object,
        length: LIBRARY,
        operations: 2,
    }];
    let mut row = cooperative(name.to_owned(), &needs, 0, nodes, shape, machine);
    let depth = f64::from(topology(nodes, shape).depth());
    let hop = (machine.latency + machine.on_link(u64::from(chunk(nodes)))) as f64 / 1e9;
    let trees = f64::from(topology(nodes, shape).trees());
    let narrowest = machine
        .link
        .min(machine.origin.client * trees)
        .min(machine.origin.total);
    row.bound = Some(LIBRARY as f64 / narrowest + depth * hop);
    row
}

fn topology(nodes: u32, (trees, fan_out): (u16, u32)) -> Topology {
    Topology::fitted(nodes, trees, fan_out).expect("numbers above 0 fit any job")
}

fn chunk(nodes: u32) -> u32 {
    if nodes <= MANY { 1 << 20 } else { 4 << 20 }
}

fn cooperative(
    workload: String,
    needs: &[Need],
    tail: u64,
    nodes: u32,
    shape: (u16, u32),
    machine: Machine,
) -> Row {
    let topology = topology(nodes, shape);
    let begin = ThreadTime::now();
    let job = Job {
        topology,
        machine,
        chunk: chunk(nodes),
        ranks: RANKS,
        needs,
        tail,
    };
    let outcomes = engine::run(&job);
    Row {
        workload,
        scheme: TREE.to_owned(),
        nodes,
        trees: topology.trees(),
        fan_out: topology.fan_out(),
        seconds: outcomes.time as f64 / 1e9,
        bound: None,
        origin_operations: outcomes.origin_operations,
        origin_bytes: outcomes.origin_bytes,
        most_reads: Some(outcomes.most_reads),
        simulated_in: begin.elapsed().as_secs_f64(),
    }
}

fn peer(workload: &Workload, nodes: u32, scheme: &str, large: LargeReads, machine: Machine) -> Row {
    let begin = ThreadTime::now();
    let outcomes = peer_scheme::run(workload, nodes, RANKS, large, machine);
    peer_row(workload.name, scheme, nodes, outcomes, begin)
}

fn uncached(workload: &Workload, nodes: u32, machine: Machine) -> Row {
    let begin = ThreadTime::now();
    let outcomes = peer_scheme::uncached(workload, nodes, RANKS, &machine);
    peer_row(workload.name, UNCACHED, nodes, outcomes, begin)
}

/// A file above 10 MB: the first Copper reads it from the origin, as without a cache.
fn peer_library(nodes: u32, scheme: &str, large: LargeReads, machine: Machine) -> Row {
    let begin = ThreadTime::now();
    let by_node = LIBRARY * large.on_a_node(RANKS);
    let bytes = by_node * u64::from(nodes);
    let time = span(by_node, machine.origin.client).max(span(bytes, machine.origin.total));
    let outcomes = peer_scheme::Outcomes {
        // Every rank's requests pass through the daemon, as in the other runs.
        time: time + 2 * machine.origin.operation + RANKS as u64 * machine.ask_cost,
        origin_operations: 2 * RANKS as u64 * u64::from(nodes),
        origin_bytes: bytes,
    };
    peer_row(LIBRARY_NAME, scheme, nodes, outcomes, begin)
}

fn peer_row(
    workload: &str,
    scheme: &str,
    nodes: u32,
    outcomes: peer_scheme::Outcomes,
    begin: ThreadTime,
) -> Row {
    Row {
        workload: workload.to_owned(),
        scheme: scheme.to_owned(),
        nodes,
        trees: 1,
        fan_out: peer_scheme::fan_out(nodes),
        seconds: outcomes.time as f64 / 1e9,
        bound: None,
        origin_operations: outcomes.origin_operations,
        origin_bytes: outcomes.origin_bytes,
        most_reads: None,
        simulated_in: begin.elapsed().as_secs_f64(),
    }
}

fn find<'a>(rows: &'a [Row], workload: &str, scheme: &str, nodes: u32) -> Option<&'a Row> {
    rows.iter().find(|row| {
        let shape = row.scheme != TREE || row.is_recommended();
        row.workload == workload && row.scheme == scheme && row.nodes == nodes && shape
    })
}

fn claims(rows: &[Row]) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |what: String, value: f64, at_most: f64| {
        claims.push(Claim {
            what,
            value,
            at_most,
            holds: value <= at_most,
        });
    };
    let (import, torch) = (Workload::import().name, Workload::torch().name);
    let base = find(rows, import, TREE, 32).map(|row| row.seconds);
    for (nodes, at_most) in [(10_624, 1.2), (100_000, 1.4)] {
        if let (Some(base), Some(row)) = (base, find(rows, import, TREE, nodes)) {
            claim(
                format!("cold import at {nodes} nodes over that at 32"),
                row.seconds / base,
                at_most,
            );
        }
    }
    for workload in [LIBRARY_NAME, SPREAD_NAME] {
        if let Some(row) = find(rows, workload, TREE, SPREAD_AT) {
            let bound = row.bound.unwrap_or(f64::NAN);
            claim(
                format!("{workload} to {SPREAD_AT} nodes over its bound"),
                row.seconds / bound,
                1.15,
            );
        }
    }
    for workload in [import, torch, LIBRARY_NAME] {
        for nodes in SIZES {
            let ours = find(rows, workload, TREE, nodes);
            let theirs = find(rows, workload, PEER, nodes);
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                let at_most = if workload == LIBRARY_NAME && nodes == 8_300 {
                    0.2
                } else {
                    1.0
                };
                let what = format!("{workload} at {nodes} nodes over the first Copper's scheme");
                claim(what, ours.seconds / theirs.seconds, at_most);
            }
        }
        if let Some(worst) = worst_ratio(rows, workload, PEER_CACHED) {
            let what = format!("{workload} over the {PEER_CACHED}, at the worst size");
            claim(what, worst, 1.0);
        }
    }
    let most = rows
        .iter()
        .filter_map(|row| row.most_reads)
        .max()
        .unwrap_or(0);
    claim(
        "reads of any one thing from the origin, in all runs".to_owned(),
        f64::from(most),
        1.0,
    );
    if let Some(row) = find(rows, import, TREE, 100_000) {
        claim(
            "processor seconds to simulate the import on 100,000 nodes".to_owned(),
            row.simulated_in,
            600.0,
        );
    }
    claims
}

/// The tree's time over that of another scheme, at the size where it is largest.
fn worst_ratio(rows: &[Row], workload: &str, scheme: &str) -> Option<f64> {
    SIZES
        .into_iter()
        .filter_map(|nodes| {
            let ours = find(rows, workload, TREE, nodes)?;
            let theirs = find(rows, workload, scheme, nodes)?;
            Some(ours.seconds / theirs.seconds)
        })
        .reduce(f64::max)
}

fn line(row: &Row) -> String {
    let mut text = format!(
        "| {} | {} | {} | {} | {} | {:.3} |",
        row.workload, row.scheme, row.nodes, row.trees, row.fan_out, row.seconds
    );
    let bound = row
        .bound
        .map_or_else(String::new, |bound| format!("{bound:.3}"));
    let _ = write!(
        text,
        " {bound} | {} | {:.2} | {:.1} |",
        row.origin_operations,
        row.origin_bytes as f64 / 1e9,
        row.simulated_in
    );
    text
}

/// The report as a table in Markdown.
pub fn table(report: &Report) -> String {
    let mut text = String::from(
        "| workload | scheme | nodes | T | k | seconds | bound, s | origin operations | origin GB | simulated in, s |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in &report.rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text.push_str("\n| claim | value | at most | holds |\n|---|---|---|---|\n");
    for claim in &report.claims {
        let holds = if claim.holds { "yes" } else { "NO" };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {} | {holds} |",
            claim.what, claim.value, claim.at_most
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_report_claims_holds_for_small_jobs() {
        let small = Selection {
            sizes: 1..=64,
            workload: String::new(),
            scheme: String::new(),
        };
        let report = run(&small, 2, Vec::new(), |_| {});
        assert!(!report.claims.is_empty());
        for claim in &report.claims {
            assert!(claim.holds, "{claim:?}");
        }
    }
}
