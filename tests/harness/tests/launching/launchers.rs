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

/// A job script's `copper start --allocation`, with what batch systems and MPIs say of the nodes.
#[test]
fn the_nodes_are_those_of_the_allocation() {
    let cluster = Cluster::up(2);
    let tree = tree(&cluster);
    let job = job(&cluster, &tree);
    let hosts = cluster.hosts(2);
    let file = cluster.place().join("nodes");
    // As many lines for a node as it has slots, as PBS and LSF write it.
    let lines: String = hosts
        .iter()
        .map(|host| format!("{host}\n{host}\n"))
        .collect();
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let prefix = hosts[0].trim_end_matches('1');
    let list = format!("{prefix}[1-2]");
    let sources = [
        ("PBS_NODEFILE", file),
        ("SLURM_JOB_NODELIST", &list),
        ("LSB_DJOB_HOSTFILE", file),
        ("COBALT_NODEFILE", file),
        ("PE_HOSTFILE", file),
        ("HYDRA_HOST_FILE", file),
        ("OMPI_MCA_orte_default_hostfile", file),
        ("PRTE_MCA_prte_default_hostfile", file),
    ];
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", stand_ins(&cluster).display());
    for (variable, value) in sources {
        let mut start = job.copper(0);
        start.args(["start", "--allocation", "--launcher", "ssh"]);
        job.add_service(&mut start);
        for (name, _) in sources {
            start.env_remove(name);
        }
        let said = must_start(start.env("PATH", &path).env(variable, value));
        assert!(said.contains("ready 2/2"), "{variable}: {said}");
        let stopped = Outcome::of(job.copper(1).arg("stop"));
        assert!(stopped.status.success(), "{variable}: {stopped:?}");
        must_leave_nothing(&cluster, variable);
    }
}

/// In a Flux instance the nodes need not be named.
#[test]
fn flux_is_asked_for_the_nodes() {
    let cluster = Cluster::up(3);
    let tree = tree(&cluster);
    let job = job(&cluster, &tree);
    let mut start = job.copper(0);
    start.args(["start", "--allocation", "--launcher", "flux"]);
    job.add_service(&mut start);
    let path = std::env::var("PATH").unwrap_or_default();
    start.env("PATH", format!("{}:{path}", stand_ins(&cluster).display()));
    for variable in ["PBS_NODEFILE", "SLURM_JOB_NODELIST", "SLURM_NODELIST"] {
        start.env_remove(variable);
    }
    start.env(
        "FLUX_URI",
        format!("stand-in://{}", cluster.hosts(3).join(",")),
    );
    let said = must_start(&mut start);
    assert!(said.contains("ready 3/3"), "{said}");
    assert!(Outcome::of(job.copper(2).arg("stop")).status.success());
    must_leave_nothing(&cluster, "copper stop");
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
