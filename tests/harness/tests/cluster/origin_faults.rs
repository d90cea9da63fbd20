//! What goes wrong below a helper: its origin fails or hangs, or its memory is full. The ranks of all
//! nodes say what plain ones say.

use crate::fixture::{
    DELAY, ONE_TREE, Part, SMALL_IMPORT, imports, node_of, packages, plain_import,
};
use copper_tests::cluster::ranks::{self, Ended};
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::python;
use slow_origin::{Fault, FaultKind, Operation, SlowOrigin};
use std::fs;
use std::time::Duration;

const NODES: usize = 4;

fn everywhere(kind: FaultKind, operations: &[Operation]) -> Fault {
    Fault {
        path: String::new(),
        kind,
        operations: operations.to_vec(),
    }
}

/// An origin that fails for everybody fails for the ranks as it fails for a plain program, and works
/// again when it does.
#[test]
fn origin_fails_for_all_and_recovers() {
    let cluster = Cluster::up(NODES);
    let source = cluster.place().join("source");
    fs::create_dir_all(source.join("directory")).unwrap();
    for name in ["one", "two", "directory/three"] {
        fs::write(source.join(name), format!("{name}\n").repeat(30_000)).unwrap();
    }
    let origin = cluster.origin("origin", &source);
    let job = Job::start(&cluster, &[origin.mount()], Wishes::arguments(&ONE_TREE));
    let run = |shimmed: bool| {
        let commands = (0..NODES).map(|node| {
            let script = "cd \"$0\"; for f in one two directory/three absent; do cksum $f; done; ls directory";
            let mut shell = if shimmed { job.rank(node, "sh") } else { job.plain(node, "sh") };
            shell.args(["-c", script]).arg(origin.mount());
            shell
        });
        ranks::run(commands.collect())
    };
    for operations in [
        &[Operation::Read][..],
        &[Operation::Open],
        &[Operation::Opendir],
    ] {
        origin
            .fault(&everywhere(FaultKind::Eio, operations))
            .unwrap();
        let plain = run(false)[0].outcome.clone();
        assert!(!plain.stderr.is_empty(), "no error: {plain:?}");
        let what = format!("while the origin fails to {operations:?}");
        ranks::must_equal(&run(true), &plain, &what);
        origin.clear_faults().unwrap();
        let plain = run(false)[0].outcome.clone();
        let what = format!("after the origin failed to {operations:?}");
        ranks::must_equal(&run(true), &plain, &what);
        job.refresh(0, origin.mount());
    }
    job.stop(0).unwrap_or_else(|error| panic!("{error:#}"));
}

/// The packages as all nodes see them, and as the root alone does.
fn packages_and_roots_own(cluster: &Cluster) -> (SlowOrigin, SlowOrigin, usize) {
    let all = packages(cluster);
    let own = cluster.origin("roots-own", python::packages());
    let root = node_of(Part::Root, NODES);
    let (from, to) = (own.mount().display(), all.mount().display());
    cluster.shell(root, &format!("mount --bind {from} {to}"));
    (all, own, root)
}

/// All ranks have printed what a plain run prints, and none took much longer than one `takes`.
fn must_be_in_time(ended: &[Ended], plain: &Outcome, takes: Duration, what: &str) {
    ranks::must_equal(ended, plain, what);
    let took = ranks::longest(ended);
    assert!(
        took < 2 * takes + DELAY,
        "the import {what} took {took:?}, plain {takes:?}"
    );
    println!("{what}: {took:.1?}, plain {takes:.1?}");
}

/// Only the root cannot read: the other nodes' ranks do not notice.
fn roots_origin(kind: FaultKind) {
    let cluster = Cluster::up(NODES);
    let (all, own, root) = packages_and_roots_own(&cluster);
    let mut job = Job::prepare(&cluster, &[all.mount()], Wishes::arguments(&ONE_TREE));
    let (plain, takes) = plain_import(&job, all.mount(), 1, SMALL_IMPORT);
    job.try_start().unwrap_or_else(|error| panic!("{error:#}"));
    own.fault(&everywhere(kind, &[])).unwrap();
    let commands = (0..NODES)
        .filter(|&node| node != root)
        .map(|node| job.python(node, true, all.mount(), SMALL_IMPORT));
    let ended = ranks::run(commands.collect());
    let what = format!("while the root's origin answers {kind:?}");
    must_be_in_time(&ended, &plain, takes, &what);
    own.clear_faults().unwrap();
    let ended = ranks::run(imports(&job, all.mount(), 1, SMALL_IMPORT));
    ranks::must_equal(&ended, &plain, "after the root's origin recovered");
    job.stop(root).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn the_roots_origin_fails() {
    roots_origin(FaultKind::Eio);
}

#[test]
fn the_roots_origin_hangs() {
    roots_origin(FaultKind::Hang);
}

/// One node has no memory left for the files: its ranks read the origin, the others do not notice.
#[test]
fn tmpfs_full_on_one_node() {
    let cluster = Cluster::up(NODES);
    let origin = packages(&cluster);
    let mut plain = None;
    for part in [Part::Leaf, Part::Interior, Part::Root] {
        let full = node_of(part, NODES);
        let mut job = Job::prepare(&cluster, &[origin.mount()], Wishes::arguments(&ONE_TREE));
        let (plain, takes) = plain
            .get_or_insert_with(|| plain_import(&job, origin.mount(), 1, SMALL_IMPORT))
            .clone();
        job.try_start().unwrap_or_else(|error| panic!("{error:#}"));
        // Somebody else takes all but a few MB.
        cluster.shell(
            full,
            "mount -o remount,size=40m /dev/shm; \
             dd if=/dev/zero of=/dev/shm/ballast bs=1M count=36 status=none || true",
        );
        let ended = ranks::run(imports(&job, origin.mount(), 1, SMALL_IMPORT));
        let what = format!("with the memory of the {part:?} full");
        must_be_in_time(&ended, &plain, takes, &what);
        cluster.shell(
            full,
            "rm /dev/shm/ballast; mount -o remount,size=8g /dev/shm",
        );
        let again = ranks::run(imports(&job, origin.mount(), 1, SMALL_IMPORT));
        ranks::must_equal(&again, &plain, "with memory again");
        job.stop(full).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Files that fit in no node's store are read by each rank from the origin.
#[test]
fn a_file_larger_than_the_memory_of_all() {
    let cluster = Cluster::with(NODES, &["--shm", "64m"]);
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(
        source.join("large"),
        copper_tests::tree::pattern(80 << 20, 1),
    )
    .unwrap();
    fs::write(source.join("small"), "small\n").unwrap();
    let origin = cluster.origin("origin", &source);
    let job = Job::start(&cluster, &[origin.mount()], Wishes::arguments(&ONE_TREE));
    let plain = Outcome::of(&mut job.checksums(0, false, origin.mount()));
    let ended = ranks::run(
        (0..NODES)
            .map(|node| job.checksums(node, true, origin.mount()))
            .collect(),
    );
    ranks::must_equal(&ended, &plain, "of a file larger than the stores");
    assert!(job.missing(0).is_empty());
    job.stop(0).unwrap_or_else(|error| panic!("{error:#}"));
}
