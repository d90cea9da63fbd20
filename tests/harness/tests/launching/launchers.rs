//! Launchers that start all nodes with one command. MPICH's mpiexec is the real one, which reaches
//! the nodes by a stand-in for ssh.

use crate::fixture::{job, must_leave_nothing, must_start, stand_ins, start, tree};
use copper_tests::cluster::Cluster;
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use std::time::Duration;

/// Starts, looks and stops with a launcher; `environment` is the start's.
fn start_and_stop(cluster: &Cluster, launcher: &str, environment: &[(&str, &str)]) {
    let tree = tree(cluster);
    let mut job = job(cluster, &tree);
    let said = must_start(start(cluster, &job, launcher).envs(environment.iter().copied()));
    let ready = format!("ready {0}/{0}", cluster.count());
    assert!(said.contains(&ready), "{launcher}: {said}");
    job.note_helpers().unwrap();
    for node in 0..cluster.count() {
        let mut reading = job.rank(node, "cat");
        reading.arg(tree.join("file"));
        assert_eq!(
            Outcome::of(&mut reading).stdout,
            b"contents\n",
            "{launcher}"
        );
    }
    let again = must_start(start(cluster, &job, launcher).envs(environment.iter().copied()));
    assert!(
        again.contains("were running already"),
        "{launcher}: {again}"
    );
    job.stop(1).unwrap();
    must_leave_nothing(cluster, launcher);
}

#[test]
fn every_launcher_starts_all_nodes() {
    let cluster = Cluster::up(4);
    for launcher in ["clush", "pdsh", "pals"] {
        start_and_stop(&cluster, launcher, &[]);
    }
    let hosts = cluster.hosts(4).join(",");
    let uri = format!("stand-in://{hosts}");
    start_and_stop(&cluster, "flux", &[("FLUX_URI", &uri)]);
}

#[test]
fn mpich_s_launcher_starts_all_nodes() {
    let cluster = Cluster::up(4);
    let mpiexec = stand_ins(&cluster).join("mpiexec");
    std::fs::remove_file(&mpiexec).unwrap();
    std::fs::write(&mpiexec, "#!/bin/sh\nexec mpiexec.hydra \"$@\"\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&mpiexec, executable).unwrap();
    start_and_stop(&cluster, "mpiexec", &[]);
}

/// As a batch system does at a job's end.
#[test]
fn helpers_end_with_a_launcher_that_is_ended() {
    let cluster = Cluster::up(3);
    let tree = tree(&cluster);
    let job = job(&cluster, &tree);
    must_start(&mut start(&cluster, &job, "pals"));
    let launcher = cluster
        .processes(0, "python3")
        .into_iter()
        .find(|&process| {
            let line = std::fs::read_to_string(format!("/proc/{process}/cmdline"));
            line.is_ok_and(|line| line.contains("--hostfile"))
        });
    let launcher = launcher.expect("the launcher stays");
    cluster.shell(0, &format!("kill {launcher}"));
    let gone = || (0..3).all(|node| cluster.processes(node, "copper").is_empty());
    assert!(
        wait_until(Duration::from_secs(10), gone),
        "helpers outlive their launcher"
    );
    must_leave_nothing(&cluster, "the launcher's end");
}
