//! The options of older job scripts that say what is to be seen of a job, on four running nodes.

use crate::fixture::{job, said, tree, without_copper};
use copper_tests::cluster::Cluster;
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A snapshot is due each second; a busy machine takes longer.
const SNAPSHOT_TIME: Duration = Duration::from_secs(30);

/// A script of the repository on the first node.
fn script(cluster: &Cluster, name: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    let mut command = cluster.command(0, "bash");
    command.arg(scripts.canonicalize().unwrap().join(name));
    let root = cluster.built("copper");
    command.env("COPPER_ROOT", root.parent().unwrap().parent().unwrap());
    without_copper(&mut command);
    command
}

fn count_of(directory: &Path, end: &str) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.ends_with(end) && !name.starts_with('.'))
        .count()
}

#[test]
fn logs_and_profiles_are_written_where_the_script_is_told_to() {
    let cluster = Cluster::up(4);
    let covered = tree(&cluster);
    let mut job = job(&cluster, &covered);
    let nodes = cluster.place().join("nodes");
    std::fs::write(&nodes, cluster.hosts(4).join("\n")).unwrap();
    let logs = cluster.place().join("logs");
    let mut launch = script(&cluster, "launch_copper.sh");
    launch
        .args([
            "-l",
            "4",
            "-t",
            "file_and_stdout",
            "-P",
            "-N",
            "5",
            "-A",
            "-I",
            "1",
            "-d",
        ])
        .arg(&logs)
        .args(["--", "--cover"])
        .arg(&covered)
        .env("PBS_NODEFILE", &nodes);
    // The first node's helper keeps this open: it is a file, whose end nobody waits for.
    let output = cluster.place().join("output");
    let into = || {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&output)
            .unwrap()
    };
    let status = launch.stdout(into()).stderr(into()).status().unwrap();
    let printed = || std::fs::read_to_string(&output).unwrap();
    assert!(status.success(), "{}", printed());
    job.note_helpers()
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(printed().contains("serving ms="), "{}", printed());
    for node in 0..4 {
        let log = logs.join(format!("copper-{}.log", cluster.host(node)));
        let logged = std::fs::read_to_string(&log).unwrap();
        assert!(logged.contains("ready ms="), "node {node}: {logged}");
        let read = Outcome::of(job.rank(node, "cat").arg(covered.join("file")));
        assert_eq!(read.stdout, b"contents\n");
    }
    let snapshot = logs.join("profiling/snapshot-1");
    let taken = || count_of(&snapshot, "-profiling_top_paths.csv") == 4;
    assert!(
        wait_until(SNAPSHOT_TIME, taken),
        "no snapshots in {}",
        snapshot.display()
    );

    let stopped = Outcome::of(&mut script(&cluster, "stop_copper.sh"));
    assert!(stopped.status.success(), "{}", said(&stopped));
    let last = logs.join("profiling/final");
    for end in [
        "aggregate.csv",
        "operations.csv",
        "top_paths.csv",
        "summary.md",
    ] {
        let end = format!("-profiling_{end}");
        // Helpers write while they end.
        let written = || count_of(&last, &end) == 4;
        assert!(
            wait_until(SNAPSHOT_TIME, written),
            "{end} in {}",
            last.display()
        );
    }
}
