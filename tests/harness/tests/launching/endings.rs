//! Helpers that nobody stops.

use crate::fixture::{job, must_leave_nothing, must_start, said, start, tree};
use copper_tests::cluster::Cluster;
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn helpers_end_with_the_batch_job_s_script() {
    let cluster = Cluster::up(3);
    let tree = tree(&cluster);
    let job = job(&cluster, &tree);
    let start = start(&cluster, &job, "ssh");
    // The script is the first process of its session, as a batch system starts it.
    let words: Vec<_> = std::iter::once(start.get_program())
        .chain(start.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let script = format!("{}\necho started\nread line\n", words.join(" "));
    let mut batch = std::process::Command::new("setsid");
    batch.args(["--wait", "sh", "-e", "-c", &script]);
    batch.env("PBS_JOBID", "17.server");
    batch.envs(
        start
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut batch = batch
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let all = || (0..3).all(|node| cluster.processes(node, "copper").len() == 1);
    assert!(
        wait_until(Duration::from_secs(20), all),
        "the job does not start"
    );
    // It would have ended by now if it had watched the start itself.
    std::thread::sleep(Duration::from_secs(1));
    assert!(all(), "helpers ended while the script runs");
    drop(batch.stdin.take());
    batch.wait().unwrap();
    must_leave_nothing(&cluster, "the script's end");
}

/// `copper stop` cannot reach such nodes.
#[test]
fn helpers_that_are_cut_off_end_when_nobody_uses_them() {
    const UNTIL: Duration = Duration::from_secs(90);
    let cluster = Cluster::up(3);
    let tree = tree(&cluster);
    let mut job = job(&cluster, &tree);
    let mut start = start(&cluster, &job, "ssh");
    // The limit is no shorter than the time that a start may take.
    must_start(start.args(["--cut-off-limit", "2", "--start-timeout", "15"]));
    job.note_helpers().unwrap();
    let mut user = job.rank(1, "sleep");
    let mut user = user.arg("1000").spawn().unwrap();
    cluster.set_link(1, false);
    cluster.set_link(2, false);
    let stopped = Outcome::of(job.copper(0).arg("stop"));
    assert!(stopped.status.success(), "{}", said(&stopped));
    for lost in [1, 2] {
        let said = said(&stopped);
        assert!(said.contains(&cluster.host(lost)), "not named: {said}");
    }
    let gone = |node: usize| cluster.processes(node, "copper").is_empty();
    assert!(wait_until(UNTIL, || gone(2)), "the unused helper stays");
    // Long enough for it to have ended as the other did.
    std::thread::sleep(Duration::from_secs(20));
    assert!(!gone(1), "a used helper ended");
    user.kill().unwrap();
    user.wait().unwrap();
    assert!(wait_until(UNTIL, || gone(1)), "it stays without its user");
    must_leave_nothing(&cluster, "the cut-off limit");
}

#[test]
fn a_helper_that_nobody_uses_ends_after_its_limit() {
    let cluster = Cluster::up(2);
    let tree = tree(&cluster);
    let mut job = job(&cluster, &tree);
    let mut start = start(&cluster, &job, "ssh");
    start.args(["--idle-limit", "2"]);
    must_start(&mut start);
    job.note_helpers().unwrap();
    // A program that asks nothing, but uses the helper.
    let mut user = job.rank(0, "sleep");
    let mut user = user.arg("7").spawn().unwrap();
    let unused = || cluster.processes(1, "copper").is_empty();
    assert!(
        wait_until(Duration::from_secs(6), unused),
        "the unused helper stays"
    );
    assert_eq!(
        cluster.processes(0, "copper"),
        [job.helper(0)],
        "a used helper ended"
    );
    user.wait().unwrap();
    must_leave_nothing(&cluster, "the idle limit");
    let again = Outcome::of(job.copper(0).arg("stop"));
    assert!(again.status.success(), "{again:?}");
}
