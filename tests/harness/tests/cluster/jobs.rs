//! Several jobs on the same nodes at once, of one user and of two: each has its own helpers, and none
//! touches another's.

use copper_tests::cluster::ranks::{self, Ended};
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::tree;
use slow_origin::SlowOrigin;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A user without rights of its own.
const NOBODY: u32 = 65_534;

/// Capabilities with which somebody else may start processes on nodes, as root does here.
const TO_ENTER_NODES: &str = "+sys_admin,+sys_chroot,+sys_ptrace";

fn files(cluster: &Cluster) -> SlowOrigin {
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..50 {
        let contents = tree::pattern(number * 3000, number);
        fs::write(source.join(format!("file-{number}")), contents).unwrap();
    }
    cluster.origin("origin", &source)
}

fn read_on_all(job: &Job<'_>, directory: &Path) -> Vec<Ended> {
    let commands = (0..job.nodes()).map(|node| {
        let mut shell = job.rank(node, "sh");
        shell
            .args(["-c", "cksum \"$0\"/*; ls -l \"$0\""])
            .arg(directory);
        shell
    });
    ranks::run(commands.collect())
}

fn plain(job: &Job<'_>, directory: &Path) -> Outcome {
    let mut shell = job.plain(0, "sh");
    shell
        .args(["-c", "cksum \"$0\"/*; ls -l \"$0\""])
        .arg(directory);
    let plain = Outcome::of(&mut shell);
    assert!(plain.status.success(), "{plain:?}");
    plain
}

/// Both jobs at once, then one of them alone after the other has ended.
fn live_side_by_side(first: &Job<'_>, second: &Job<'_>, directory: &Path) {
    let plain = plain(first, directory);
    std::thread::scope(|scope| {
        for (job, name) in [(first, "the first"), (second, "the second")] {
            let plain = &plain;
            scope.spawn(move || {
                for state in ["cold", "warm"] {
                    let what = format!("of {name} job, {state}");
                    ranks::must_equal(&read_on_all(job, directory), plain, &what);
                }
            });
        }
    });
    for node in 0..first.nodes() {
        assert_ne!(
            first.helper(node),
            second.helper(node),
            "one helper for two jobs"
        );
    }
    first.stop(1).unwrap_or_else(|error| panic!("{error:#}"));
    let status = second.status_all(1).unwrap();
    assert_eq!(status["reached"], second.nodes(), "{status}");
    let what = "of the second job when the first had ended";
    ranks::must_equal(&read_on_all(second, directory), &plain, what);
    second.stop(0).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn two_jobs_of_one_user() {
    let cluster = Cluster::up(3);
    let origin = files(&cluster);
    let job = |name: &str| {
        let wishes = Wishes {
            name: name.into(),
            ..Wishes::default()
        };
        Job::start(&cluster, &[origin.mount()], wishes)
    };
    live_side_by_side(&job("one"), &job("two"), origin.mount());
}

#[test]
fn two_users() {
    let cluster = Cluster::up(3);
    let origin = files(&cluster);
    let of_root = Job::start(&cluster, &[origin.mount()], Wishes::default());
    let wishes = Wishes {
        user: Some(NOBODY),
        ..Wishes::default()
    };
    let mut of_nobody = Job::prepare(&cluster, &[origin.mount()], wishes);
    let started = Outcome::of(&mut start_as_nobody(&cluster, &of_nobody));
    assert!(started.status.success(), "{started:?}");
    of_nobody
        .note_helpers()
        .unwrap_or_else(|error| panic!("{error:#}"));
    for node in 0..3 {
        let owner = |job: &Job<'_>| {
            let process = format!("/proc/{}", job.helper(node));
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(process).unwrap())
        };
        assert_eq!((owner(&of_root), owner(&of_nobody)), (0, NOBODY));
    }
    live_side_by_side(&of_root, &of_nobody, origin.mount());
}

/// `copper start` as a user who may enter other nodes. What is started there may not.
fn start_as_nobody(cluster: &Cluster, job: &Job<'_>) -> Command {
    let launcher = cluster.place().join("launch");
    let script = "#!/bin/sh\n\
        host=$1; shift\n\
        exec nsenter --net=/run/netns/$host --mount=/run/copper-cluster/$host/mnt -- \\\n\
        \x20   setpriv --inh-caps=-all --ambient-caps=-all sh -c \"$*\"\n";
    fs::write(&launcher, script).unwrap();
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
    let mut start = cluster.command(0, "setpriv");
    start
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .arg("--clear-groups")
        .arg(format!("--inh-caps={TO_ENTER_NODES}"))
        .arg(format!("--ambient-caps={TO_ENTER_NODES}"))
        .arg("--")
        .arg(cluster.built("copper"))
        .arg("start");
    start
        .arg("--launch")
        .arg(format!("{} {{host}} {{command}}", launcher.display()));
    start
        .arg("--hosts")
        .arg(cluster.hosts(job.nodes()).join(","));
    job.add_service(&mut start);
    start
}
