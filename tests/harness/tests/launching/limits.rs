//! What a helper may use: processors, their time, and the size of the files it keeps.

use crate::fixture::{job, must_leave_nothing, must_start, start, tree};
use copper_tests::cluster::Cluster;
use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way};
use std::fs;

/// One field of a thread's `status` or `stat`.
fn threads(helper: u64, read: impl Fn(&str, &str) -> String) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{helper}/task"))
        .unwrap()
        .flatten();
    let file = |path: std::path::PathBuf| fs::read_to_string(path).unwrap();
    tasks
        .map(|task| {
            read(
                &file(task.path().join("status")),
                &file(task.path().join("stat")),
            )
        })
        .collect()
}

/// The processors that a thread may run on.
fn allowed(status: &str) -> String {
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("Cpus_allowed_list:"));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// A thread's nice value.
fn nice(stat: &str) -> String {
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(16).unwrap().to_owned()
}

#[test]
fn a_helper_keeps_to_its_processors_its_nice_value_and_its_largest_file() {
    let tree = environment::scratch();
    let (small, large) = (tree.path().join("small"), tree.path().join("large"));
    fs::write(&small, vec![b's'; 10_000]).unwrap();
    fs::write(&large, vec![b'l'; 10_001]).unwrap();
    let session = Session::prepare(&[tree.path()]);
    let mut start = session.copper();
    start.arg("start").arg("--cover").arg(tree.path());
    start.args(["--cpus", "0", "--nice", "7", "--largest", "10000"]);
    let started = Outcome::of(&mut start);
    assert!(started.status.success(), "{started:?}");

    for (path, length) in [(&small, 10_000), (&large, 10_001)] {
        let mut reading = session.command(Way::Covered, "cat");
        let read = Outcome::of(reading.arg(path)).stdout;
        assert_eq!(read, fs::read(path).unwrap());
        assert_eq!(read.len(), length);
    }
    let status = session.status().unwrap();
    assert_eq!(status["cached"]["bytes"], 10_000, "{status}");

    let helper = status["pid"].as_u64().unwrap();
    let bound = threads(helper, |status, _| allowed(status));
    assert!(
        bound.len() > 1 && bound.iter().all(|list| list == "0"),
        "{bound:?}"
    );
    let nice = threads(helper, |_, stat| nice(stat));
    assert!(nice.iter().all(|nice| nice == "7"), "{nice:?}");
    assert!(Outcome::of(session.copper().arg("stop")).status.success());
}

/// With the threads of libfabric, and those that meet the other helpers.
#[test]
fn helpers_of_several_nodes_keep_to_their_processors() {
    let cluster = Cluster::up(2);
    let tree = tree(&cluster);
    let mut job = job(&cluster, &tree);
    must_start(start(&cluster, &job, "ssh").args(["--cpus", "1", "--nice", "3"]));
    job.note_helpers().unwrap();
    for node in 0..2 {
        let read = Outcome::of(job.rank(node, "cat").arg(tree.join("file")));
        assert_eq!(read.stdout, b"contents\n");
    }
    for node in 0..2 {
        let bound = threads(job.helper(node).into(), |status, _| allowed(status));
        assert!(
            bound.len() > 1 && bound.iter().all(|list| list == "1"),
            "node {node}: {bound:?}"
        );
        let nice = threads(job.helper(node).into(), |_, stat| nice(stat));
        assert!(nice.iter().all(|nice| nice == "3"), "node {node}: {nice:?}");
    }
    job.stop(0).unwrap();
    must_leave_nothing(&cluster, "copper stop");
}

#[test]
fn processors_that_do_not_exist_are_named_at_the_start() {
    let session = Session::prepare(&[]);
    let mut start = session.copper();
    let outcome = Outcome::of(start.args(["start", "--cpus", "0,1000-1001"]));
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert_eq!(outcome.status.code(), Some(1), "{said}");
    assert!(
        said.contains("processor 1000-1001 cannot be used here; there are 0"),
        "{said}"
    );
    assert!(!session.runtime_directory().exists());
}
