//! Helpers that nobody stops.

use crate::fixture::{job, must_leave_nothing, must_start, start, tree};
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
