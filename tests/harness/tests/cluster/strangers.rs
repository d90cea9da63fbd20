//! Who does not belong to the job gets nowhere: the others go on, and no rank sees wrong data.

use crate::fixture::{ONE_TREE, Part, node_of};
use copper_core::tree::Topology;
use copper_tests::cluster::ranks;
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use copper_tests::{python, tree};
use slow_origin::SlowOrigin;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the helpers of these tests listen.
const PORT: &str = "23457";

/// The node beside the job's, from which strangers come.
const OUTSIDE: usize = 4;

fn files(cluster: &Cluster) -> SlowOrigin {
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..20 {
        let contents = tree::pattern(number * 30_000, number);
        fs::write(source.join(format!("file-{number}")), contents).unwrap();
    }
    cluster.origin("origin", &source)
}

fn wishes() -> Wishes {
    let mut wishes = Wishes::arguments(&ONE_TREE);
    wishes.arguments.extend(["--port".into(), PORT.into()]);
    wishes.nodes = 4;
    wishes
}

/// All nodes of the job are there and serve what the origin has.
fn must_be_well(job: &Job<'_>, origin: &SlowOrigin, what: &str) {
    job.refresh(0, origin.mount());
    let plain = Outcome::of(&mut job.checksums(0, false, origin.mount()));
    assert!(plain.status.success(), "{plain:?}");
    let ended = ranks::run(
        (0..job.nodes())
            .map(|node| job.checksums(node, true, origin.mount()))
            .collect(),
    );
    ranks::must_equal(&ended, &plain, what);
    assert!(job.missing(0).is_empty(), "nodes are missing {what}");
}

/// Runs Python code on the node outside of the job; returns what it printed.
fn outside(cluster: &Cluster, code: &str, arguments: &[&str]) -> String {
    let mut python = cluster.command(OUTSIDE, python::interpreter());
    let outcome = Outcome::of(python.args(["-c", code]).args(arguments));
    assert!(outcome.status.success(), "{outcome:?}");
    outcome.text()
}

/// Every TCP port that a node listens on: the meeting's and the fabric provider's.
fn ports(cluster: &Cluster, node: usize) -> Vec<String> {
    let listing = cluster.shell(node, "ss -Hltn | awk '{ print $4 }'");
    listing
        .lines()
        .filter_map(|line| line.rsplit(':').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn random_bytes_and_silence_on_every_port() {
    const CODE: &str = "\
import os, random, socket, sys
held = []
for _ in range(150):
    try: held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2))
    except OSError: pass
for number in range(60):
    for port in sys.argv[2:]:
        try:
            with socket.create_connection((sys.argv[1], int(port)), 2) as stranger:
                stranger.settimeout(0.05)
                start = [b'', b'CopperMt', b'CopperMt\\x01\\0\\0\\0'][number % 3]
                stranger.sendall(start + os.urandom(random.choice([1, 40, 52, 5000, 70000])))
                stranger.recv(100)
        except OSError: pass
print('sent')
";
    let cluster = Cluster::up(5);
    let origin = files(&cluster);
    let job = Job::start(&cluster, &[origin.mount()], wishes());
    must_be_well(&job, &origin, "at first");
    for node in 0..4 {
        let ports = ports(&cluster, node);
        assert!(
            ports.contains(&PORT.to_owned()),
            "node {node} listens on {ports:?}"
        );
        let host = cluster.host(node);
        let mut arguments = vec![host.as_str(), PORT];
        arguments.extend(
            ports
                .iter()
                .map(String::as_str)
                .filter(|port| *port != PORT),
        );
        assert_eq!(outside(&cluster, CODE, &arguments), "sent\n");
    }
    must_be_well(&job, &origin, "after random bytes on every port");
    job.stop(0).unwrap_or_else(|error| panic!("{error:#}"));
}

/// A greeting in another version is answered in ours, so that both sides can say what is wrong.
#[test]
fn a_helper_that_speaks_another_version() {
    const CODE: &str = "\
import os, socket, struct, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as stranger:
    stranger.settimeout(10)
    stranger.sendall(b'CopperMt' + struct.pack('<III', 99, 3, 0) + os.urandom(32))
    answer = b''
    while part := stranger.recv(1000): answer += part
    print(answer[:8], struct.unpack('<I', answer[8:12])[0] != 99, len(answer))
";
    let cluster = Cluster::up(5);
    let origin = files(&cluster);
    let job = Job::start(&cluster, &[origin.mount()], wishes());
    let root = cluster.host(node_of(Part::Root, 4));
    assert_eq!(
        outside(&cluster, CODE, &[&root, PORT]),
        "b'CopperMt' True 52\n"
    );
    must_be_well(&job, &origin, "after a greeting in another version");
}

/// A connection between two helpers, recorded on its way and played again.
#[test]
fn a_recorded_session_played_again() {
    const RELAY: &str = "\
import socket, sys, threading
host, port, record = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def copy(source, sink, file):
    try:
        while part := source.recv(65536):
            if file: file.write(part)
            sink.sendall(part)
    except OSError: pass
    sink.close()
listener = socket.create_server(('', port))
print('listening', flush=True)
while True:
    child, _ = listener.accept()
    try:
        parent = socket.create_connection((host, port), 2)
    except OSError:
        # The parent's helper may not listen yet; the child's tries again.
        child.close()
        continue
    file = open(record, 'wb', buffering=0)
    threading.Thread(target=copy, args=(child, parent, file), daemon=True).start()
    threading.Thread(target=copy, args=(parent, child, None), daemon=True).start()
";
    const AGAIN: &str = "\
import errno, socket, sys
recorded = open(sys.argv[3], 'rb').read()
for part in [recorded, recorded[:52], recorded[:84], recorded[:52] + recorded[84:]]:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as stranger:
        stranger.settimeout(15)
        try:
            stranger.sendall(part)
            stranger.shutdown(socket.SHUT_WR)
            # A hello and a proof at most, never an introduction.
            answer = b''
            while more := stranger.recv(1000): answer += more
            assert len(answer) <= 84, len(answer)
        except OSError as error:
            # Shutting down what the peer has reset already is no ConnectionError to Python.
            assert isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN, error
print('closed', len(recorded) > 84)
";
    let cluster = Cluster::up(5);
    let origin = files(&cluster);
    let topology = Topology::new(4, 1, 2).unwrap();
    let leaf = node_of(Part::Leaf, 4);
    let parent = topology.parent(0, leaf as u32).expect("a leaf") as usize;
    let (record, parent) = (cluster.place().join("record"), cluster.host(parent));
    let mut relay = cluster.command(OUTSIDE, python::interpreter());
    relay.args(["-c", RELAY, &parent, PORT]).arg(&record);
    let mut relay = relay.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = [0; 9];
    std::io::Read::read_exact(relay.stdout.as_mut().unwrap(), &mut line).unwrap();
    // On the leaf, the parent's name leads to the relay.
    let relay_address = format!("10.77.0.{}", OUTSIDE + 1);
    cluster.shell(
        leaf,
        &format!(
            "sed 's/^[0-9.]* {parent}$/{relay_address} {parent}/' /etc/hosts >/tmp/hosts; \
             mount --bind /tmp/hosts /etc/hosts"
        ),
    );
    let job = Job::start(&cluster, &[origin.mount()], wishes());
    must_be_well(&job, &origin, "with one connection through a relay");
    let record_length = fs::metadata(&record).map_or(0, |found| found.len());
    assert!(record_length > 84, "the relay saw {record_length} bytes");
    let said = outside(
        &cluster,
        AGAIN,
        &[&parent, PORT, &record.display().to_string()],
    );
    assert_eq!(said, "closed True\n");
    must_be_well(&job, &origin, "after a recorded session was played again");
    relay.kill().unwrap();
    relay.wait().unwrap();
}

/// A launcher that changes, by a sed expression, the job that the last of four nodes is given.
fn launcher_that_changes(cluster: &Cluster, expression: &str) -> String {
    let script = format!(
        "#!/bin/sh\n\
         host=$1; shift\n\
         enter=\"nsenter --net=/run/netns/$host --mount=/run/copper-cluster/$host/mnt --\"\n\
         if [ $host = {} ]; then sed '{expression}' | $enter sh -c \"$*\"\n\
         else exec $enter sh -c \"$*\"; fi\n",
        cluster.host(3)
    );
    let launcher = cluster.place().join("launch");
    fs::write(&launcher, script).unwrap();
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{} {{host}} {{command}}", launcher.display())
}

fn start_with_launcher(cluster: &Cluster, job: &Job<'_>, launcher: &str) -> Command {
    let mut start = job.copper(0);
    start.args(["start", "--launch", launcher]);
    start.arg("--hosts").arg(cluster.hosts(4).join(","));
    job.add_service(&mut start);
    start
}

/// A start that must say within 10 s, of the last node and of no other, what is wrong.
fn must_not_start(expression: &str, words: &[&str]) {
    let cluster = Cluster::up(4);
    let origin = files(&cluster);
    let job = Job::prepare(&cluster, &[origin.mount()], wishes());
    // The launcher itself is all right.
    let launcher = launcher_that_changes(&cluster, "s/nothing/nothing/");
    let started = Outcome::of(&mut start_with_launcher(&cluster, &job, &launcher));
    assert!(started.status.success(), "{started:?}");
    job.stop(0).unwrap_or_else(|error| panic!("{error:#}"));

    let launcher = launcher_that_changes(&cluster, expression);
    let begun = Instant::now();
    let outcome = Outcome::of(&mut start_with_launcher(&cluster, &job, &launcher));
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(took < Duration::from_secs(10), "{took:?}: {said}");
    let line = said.lines().find(|line| line.starts_with(&cluster.host(3)));
    let line = line.unwrap_or_else(|| panic!("{} is not named: {said}", cluster.host(3)));
    for word in words {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
    for node in 0..4 {
        let none = || cluster.processes(node, "copper").is_empty();
        assert!(
            wait_until(Duration::from_secs(5), none),
            "node {node} has a helper after: {said}"
        );
    }
}

#[test]
fn a_helper_with_a_wrong_key() {
    must_not_start(
        "s/\\(\"key\": *\"\\)......../\\100000000/",
        &["another key"],
    );
}

#[test]
fn a_job_of_another_version() {
    must_not_start("s/\\(\"version\": *\\)[0-9]*/\\199/", &["version"]);
}
