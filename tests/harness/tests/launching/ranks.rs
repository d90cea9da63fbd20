//! A whole job: four nodes started by ssh, ranks on all of them by real MPIs, each file of the slow
//! origin read once for all, and nothing left.

use crate::fixture::{job, must_leave_nothing, must_start};
use crate::mpi::{self, MPICH, Mpi, OPEN_MPI};
use crate::sshd::{self, Servers};
use copper_tests::cluster::{Cluster, Job};
use copper_tests::compare::Outcome;
use copper_tests::{origin, python};
use slow_origin::{Counts, Load, Operation};
use std::path::Path;
use std::process::Command;

/// Two on each node.
const RANKS: usize = 8;

/// How the ranks get the preload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// `mpirun $(copper env --format ...)`
    Words,
    /// `copper run -- mpirun`
    Run,
}

/// The launch line up to the ranks: the MPI's own words for these hosts.
fn launch_line(job: &Job<'_>, mpi: &Mpi, hosts: &[String], given: Given) -> Command {
    let mut command = match given {
        Given::Words => {
            let mut line = job.copper(0);
            let line = Outcome::of(line.args(["env", "--format", mpi.format]));
            assert!(line.status.success(), "{line:?}");
            let mut command = job.plain(0, mpi.run);
            command.args(line.text().split_whitespace());
            command
        }
        Given::Run => {
            let mut command = job.copper(0);
            command.args(["run", "--", mpi.run]);
            command
        }
    };
    let each = RANKS / hosts.len();
    if mpi.format == "hydra" {
        command.args(["-launcher", "ssh", "-ppn", &each.to_string()]);
        command.arg("-hosts").arg(hosts.join(","));
    } else {
        let slots: Vec<_> = hosts.iter().map(|host| format!("{host}:{each}")).collect();
        command.arg("--host").arg(slots.join(","));
        // The variables of the ranks that Open MPI does not pass on by itself.
        for name in [
            "PYTHONPATH",
            "LD_LIBRARY_PATH",
            "MPI4PY_MPIABI",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONHASHSEED",
            "OPENBLAS_NUM_THREADS",
        ] {
            command.args(["-x", name]);
        }
    }
    command
}

/// Starts Copper on the first `nodes` nodes, the ranks there, cold and again, and stops; returns what
/// the cold ranks asked of the origin.
fn run_job(cluster: &Cluster, nodes: usize, mpi: &Mpi, code: &Path) -> Counts {
    let packages = cluster.own_mounts("packages", python::packages(), cluster.count());
    packages.set_load(&Load::latency_us(200)).unwrap();
    let job = job(cluster, packages.mount());
    let hosts = cluster.hosts(nodes);
    let mut start = sshd::start(cluster, &job, nodes);
    // A helper that is alone would also fetch modules that no program asked for.
    start.args(["--trees", "1", "--read-ahead", "0"]);
    must_start(&mut start);
    let run = |given| {
        packages.reset().unwrap();
        let mut ranks = launch_line(&job, mpi, &hosts, given);
        mpi::add_ranks(&mut ranks, mpi, code, packages.mount(), RANKS);
        mpi::check(&mut ranks, packages.mount(), RANKS);
        origin::settled(|| packages.counts())
    };
    let cold = run(Given::Words);
    assert!(
        cold.of(Operation::Open) > 50,
        "{}",
        origin::most_touched(&cold)
    );
    let wrong = origin::read_more_than_once(&cold, python::packages(), 1);
    assert!(
        wrong.is_empty(),
        "{}: asked more than once: {wrong:#?}",
        mpi.run
    );
    let warm = run(Given::Run);
    assert_eq!(
        warm.total(),
        0,
        "{}: the second ranks reached the origin:\n{}",
        mpi.run,
        origin::most_touched(&warm)
    );
    assert!(Outcome::of(job.copper(0).arg("stop")).status.success());
    must_leave_nothing(cluster, "copper stop");
    cold
}

#[test]
fn ranks_of_real_mpis_on_four_nodes_ask_the_origin_what_one_node_asks() {
    let cluster = Cluster::up(4);
    let _servers = Servers::start(&cluster);
    let code = cluster.place().join("ranks.py");
    std::fs::write(&code, mpi::CODE).unwrap();
    mpi::link_library(&MPICH, &code);
    mpi::link_library(&OPEN_MPI, &code);
    let one = run_job(&cluster, 1, &MPICH, &code);
    for mpi in [&MPICH, &OPEN_MPI] {
        let four = run_job(&cluster, 4, mpi, &code);
        assert_eq!(four.operations, one.operations, "{} on four nodes", mpi.run);
    }
}
