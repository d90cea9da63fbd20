//! The whole way with ssh: four nodes, the Python import on each, and nothing left; and what is said
//! of a node that cannot start.

use crate::fixture::{job, must_leave_nothing, must_name, must_start, start, tree};
use copper_tests::cluster::{Cluster, ranks};
use copper_tests::compare::Outcome;
use copper_tests::python;
use std::process::Stdio;

#[test]
fn four_nodes_by_ssh_import_and_leave_nothing() {
    let cluster = Cluster::up(4);
    let packages = python::packages();
    let mut job = job(&cluster, packages);
    let plain = Outcome::of(&mut job.python(0, false, packages, python::IMPORT));
    assert!(plain.status.success(), "{plain:?}");
    let said = must_start(&mut start(&cluster, &job, "ssh"));
    for progress in [
        "helpers joined 4/4",
        "ready 4/4 in ",
        " s: 1 tree of fan-out 8, depth 1",
    ] {
        assert!(said.contains(progress), "{said}");
    }
    job.note_helpers().unwrap();
    let imports = (0..4).map(|node| job.python(node, true, packages, python::IMPORT));
    let ended = ranks::run(imports.collect());
    ranks::must_equal(&ended, &plain, "after a start by ssh");
    let counters = &job.status_all(3).unwrap()["counters"];
    let reads = counters["origin_reads"].as_u64().unwrap();
    let published = counters["published"].as_u64().unwrap();
    // Every object came to all four nodes, but was read once.
    assert!(reads > 0 && published > 3 * reads, "{counters}");
    job.stop(2).unwrap();
    must_leave_nothing(&cluster, "copper stop");
}

#[test]
fn a_node_that_cannot_start_is_named_with_its_reason() {
    let cluster = Cluster::up(3);
    let tree = tree(&cluster);
    let job = job(&cluster, &tree);

    let mut listener = cluster
        .command(1, python::interpreter())
        .args(["-c", "import socket, sys; s = socket.create_server(('', 23457)); print(flush=True); sys.stdin.read()"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(listener.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let mut taken = start(&cluster, &job, "ssh");
    taken.args(["--port", "23457"]);
    must_name(&cluster, taken, &["port 23457 is in use"]);
    drop(listener.stdin.take());
    listener.wait().unwrap();

    // The store has no room for a single page.
    cluster.shell(1, "mount -t tmpfs -o size=4k,nr_inodes=1 none /dev/shm");
    let mut full = start(&cluster, &job, "ssh");
    full.args(["--store", "/dev/shm"]);
    must_name(&cluster, full, &["/dev/shm"]);
    cluster.shell(1, "umount /dev/shm");

    let bin = cluster.place().join("bin");
    cluster.shell(1, &format!("mount -t tmpfs none {}", bin.display()));
    must_name(&cluster, start(&cluster, &job, "ssh"), &["copper", "127"]);
    // A launcher that starts all at once goes on without the node.
    must_name(
        &cluster,
        start(&cluster, &job, "pals"),
        &["complained", "copper"],
    );
    cluster.shell(1, &format!("umount {}", bin.display()));

    must_start(&mut start(&cluster, &job, "ssh"));
    assert!(Outcome::of(job.copper(0).arg("stop")).status.success());
    must_leave_nothing(&cluster, "copper stop");
}

#[test]
fn a_start_goes_on_without_nodes_that_may_be_missing() {
    let cluster = Cluster::up(3);
    let tree = tree(&cluster);
    let mut job = job(&cluster, &tree);
    let bin = cluster.place().join("bin");
    // Made before it is hidden.
    cluster.built("copper");
    cluster.shell(1, &format!("mount -t tmpfs none {}", bin.display()));
    for (launcher, enough) in [
        ("ssh", ["--min-nodes", "2"]),
        ("pals", ["--min-nodes", "2"]),
        ("ssh", ["--min-fraction", "0.6"]),
    ] {
        let mut two = start(&cluster, &job, launcher);
        two.args(enough);
        let said = must_start(&mut two);
        assert!(said.contains("ready 2/3"), "{launcher}: {said}");
        let without = format!("going on without {}", cluster.host(1));
        assert!(said.contains(&without), "{launcher}: {said}");
        let mut reading = job.rank(2, "cat");
        reading.arg(tree.join("file"));
        assert_eq!(
            Outcome::of(&mut reading).stdout,
            b"contents\n",
            "{launcher}"
        );
        assert_eq!(job.missing(0), [cluster.host(1)], "{launcher}");
        assert!(Outcome::of(job.copper(0).arg("stop")).status.success());
        must_leave_nothing(&cluster, "copper stop");
    }

    let mut all = start(&cluster, &job, "ssh");
    all.args(["--min-fraction", "0.9"]);
    must_name(&cluster, all, &["127"]);
    cluster.shell(1, &format!("umount {}", bin.display()));
    assert!(job.note_helpers().is_err(), "a helper is left");
}
