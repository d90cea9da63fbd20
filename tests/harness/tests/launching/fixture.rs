//! A cluster whose nodes are started by launchers that are not there.

use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A directory with the stand-ins under the names of the launchers, to be put first into `PATH`.
pub(crate) fn stand_ins(cluster: &Cluster) -> PathBuf {
    let directory = cluster.place().join("launchers");
    if !directory.exists() {
        std::fs::create_dir(&directory).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launching/stand_in.py");
        let script = script.canonicalize().unwrap();
        for name in ["ssh", "mpiexec", "flux", "clush", "pdsh"] {
            std::os::unix::fs::symlink(&script, directory.join(name)).unwrap();
        }
    }
    directory
}

/// A command as a user's job script finds it: nothing of Copper's in its environment yet.
pub(crate) fn without_copper(command: &mut Command) -> &mut Command {
    for name in [
        "LD_PRELOAD",
        "COPPER_RUNTIME_DIR",
        "COPPER_VIEW",
        "COPPER_JOB",
    ] {
        command.env_remove(name);
    }
    command
}

/// A directory that is covered, with a file in it.
pub(crate) fn tree(cluster: &Cluster) -> PathBuf {
    let tree = cluster.place().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), "contents\n").unwrap();
    tree
}

/// The whole cluster's job, not started.
pub(crate) fn job<'a>(cluster: &'a Cluster, covered: &Path) -> Job<'a> {
    Job::prepare(cluster, &[covered], Wishes::default())
}

/// `copper start` on all nodes from the first, with the stand-ins in its path.
pub(crate) fn start(cluster: &Cluster, job: &Job<'_>, launcher: &str) -> Command {
    let mut start = job.copper(0);
    start.args(["start", "--launcher", launcher]);
    start
        .arg("--hosts")
        .arg(cluster.hosts(cluster.count()).join(","));
    // The first node is not told that others are namespaces as well, nor where their tools are.
    let path = std::env::var("PATH").unwrap_or_default();
    let stand_ins = stand_ins(cluster);
    start.env("PATH", format!("{}:{path}", stand_ins.display()));
    start.env("HOME", cluster.place());
    job.add_service(&mut start);
    start
}

/// All that a command said.
pub(crate) fn said(outcome: &Outcome) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&outcome.stdout) + &text(&outcome.stderr)
}

/// What a start must say that succeeds.
pub(crate) fn must_start(start: &mut Command) -> String {
    let outcome = Outcome::of(start);
    let said = said(&outcome);
    assert!(outcome.status.success(), "{start:?}: {said}");
    said
}

/// Fails the test when a process or a file of Copper's stays on a node.
pub(crate) fn must_leave_nothing(cluster: &Cluster, after: &str) {
    for node in 0..cluster.count() {
        let none = || cluster.processes(node, "copper").is_empty();
        assert!(
            wait_until(Duration::from_secs(10), none),
            "copper runs on node {node} after {after}"
        );
        let left = cluster.shell(
            node,
            "ls -A /dev/shm | grep copper || true; ls -d /tmp/copper-* /tmp/.copper* /tmp/*/copper \
             2>/dev/null || true",
        );
        assert!(left.is_empty(), "left on node {node} after {after}: {left}");
    }
    let shared = std::fs::read_dir(cluster.place()).unwrap().flatten();
    let invitations: Vec<_> = shared
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with(".copper"))
        .collect();
    assert!(
        invitations.is_empty(),
        "left after {after}: {invitations:?}"
    );
}

/// A start that must fail within 10 s, name the second node with all `words`, and leave nothing.
pub(crate) fn must_name(cluster: &Cluster, mut start: Command, words: &[&str]) {
    let begun = Instant::now();
    let outcome = Outcome::of(&mut start);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(!outcome.status.success(), "{start:?} succeeded: {said}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}: {said}",
        begun.elapsed()
    );
    let line = said.lines().find(|line| line.starts_with(&cluster.host(1)));
    let line = line.unwrap_or_else(|| panic!("{} is not named: {said}", cluster.host(1)));
    for word in words {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
    must_leave_nothing(cluster, &said);
}
