//! How a job starts and ends on several nodes, and what `copper start` says when it cannot: the
//! reason, the host, and what to do; and nothing is left running.

use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::python;
use copper_tests::session::wait_until;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A port that no test leaves to chance.
const PORT: &str = "23456";

/// A directory on the nodes with a file in it.
fn tree(cluster: &Cluster) -> PathBuf {
    let tree = cluster.place().join("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), "contents\n").unwrap();
    tree
}

/// `copper start` on the first node with these hosts, as users type it.
fn start_on(cluster: &Cluster, hosts: &str, arguments: &[&str]) -> Command {
    let job = Job::prepare(cluster, &[&tree(cluster)], Wishes::arguments(arguments));
    let mut start = job.copper(0);
    start.args(["start", "--launcher", "local", "--hosts", hosts]);
    job.add_service(&mut start);
    start
}

/// A start that must fail soon, say all of `words`, and leave no helper on any node.
fn must_refuse(cluster: &Cluster, mut start: Command, words: &[&str]) {
    let begun = Instant::now();
    let outcome = Outcome::of(&mut start);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(
        !outcome.status.success(),
        "{start:?} succeeded: {outcome:?}"
    );
    for word in words {
        assert!(
            said.contains(word),
            "no {word:?} in what {start:?} said: {said}"
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "it took {:?} to say: {said}",
        begun.elapsed()
    );
    for node in 0..cluster.count() {
        let none = || cluster.processes(node, "copper").is_empty();
        assert!(
            wait_until(Duration::from_secs(5), none),
            "a helper is left on node {node} after: {said}"
        );
        let left = cluster.shell(
            node,
            "ls -A /dev/shm; ls -A /tmp/copper-* 2>/dev/null || true",
        );
        assert!(left.is_empty(), "left on node {node}: {left}");
    }
}

#[test]
fn all_nodes_are_ready_after_a_start_and_gone_after_a_stop_anywhere() {
    let cluster = Cluster::up(4);
    let tree = tree(&cluster);
    for stopped_on in 0..4 {
        let job = Job::start(&cluster, &[&tree], Wishes::default());
        for node in 0..4 {
            let status = job.status_all(node).unwrap();
            assert_eq!(
                (&status["nodes"], &status["ready"]),
                (&4.into(), &4.into()),
                "{status}"
            );
            assert!(job.missing(node).is_empty(), "{status}");
        }
        job.stop(stopped_on)
            .unwrap_or_else(|error| panic!("{error:#}"));
        for node in 0..4 {
            let left = cluster.shell(
                node,
                "ls -A /dev/shm; ls -A /tmp/copper-* 2>/dev/null || true",
            );
            assert!(left.is_empty(), "left on node {node}: {left}");
        }
    }
}

/// The key that lets helpers trust each other is in no command line and no environment.
#[test]
fn the_key_is_nowhere_to_be_read() {
    let cluster = Cluster::up(2);
    let job = Job::start(&cluster, &[&tree(&cluster)], Wishes::default());
    let text = cluster.shell(1, "cat /tmp/copper-0/job");
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let key = parsed["key"].as_str().expect("a key").to_owned();
    assert_eq!(key.len(), 64);
    for node in 0..2 {
        assert_eq!(
            cluster.shell(node, "stat -c '%a %u' /tmp/copper-0/job"),
            "600 0\n"
        );
        for kind in ["cmdline", "environ"] {
            let shown = fs::read(format!("/proc/{}/{kind}", job.helper(node))).unwrap();
            let shown = String::from_utf8_lossy(&shown).into_owned();
            assert!(!shown.contains(&key), "the key is in {kind}: {shown}");
        }
    }
}

#[test]
fn a_host_listed_twice() {
    let cluster = Cluster::up(2);
    let [one, two] = [cluster.host(0), cluster.host(1)];
    let start = start_on(&cluster, &format!("{one},{two},{two}"), &[]);
    must_refuse(&cluster, start, &[&two, "twice"]);
}

#[test]
fn a_host_that_does_not_exist() {
    let cluster = Cluster::up(2);
    let hosts = format!("{},{},no-such-host", cluster.host(0), cluster.host(1));
    let start = start_on(&cluster, &hosts, &["--start-timeout", "10"]);
    must_refuse(&cluster, start, &["no-such-host"]);
}

/// The nodes are there, but one of them knows no names.
#[test]
fn names_that_do_not_resolve_on_one_node() {
    let cluster = Cluster::up(3);
    let hosts = cluster.hosts(3).join(",");
    cluster.shell(
        2,
        "echo '127.0.0.1 localhost' >/tmp/hosts; mount --bind /tmp/hosts /etc/hosts",
    );
    let start = start_on(&cluster, &hosts, &["--start-timeout", "5"]);
    must_refuse(&cluster, start, &[&cluster.host(2), "resolve"]);
}

#[test]
fn a_port_in_use() {
    let cluster = Cluster::up(3);
    let mut listener = cluster.command(1, python::interpreter());
    let code = format!(
        "import socket, sys, time\n\
         listener = socket.create_server(('', {PORT}))\n\
         print('listening', flush=True)\n\
         sys.stdin.read()\n"
    );
    let mut listener = listener
        .args(["-c", &code])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 9];
    std::io::Read::read_exact(listener.stdout.as_mut().unwrap(), &mut line).unwrap();
    let hosts = cluster.hosts(3).join(",");
    let start = start_on(&cluster, &hosts, &["--port", PORT]);
    must_refuse(&cluster, start, &[PORT, "in use", &cluster.host(1)]);
    drop(listener.stdin.take());
    listener.wait().unwrap();
    let started = Outcome::of(&mut start_on(&cluster, &hosts, &["--port", PORT]));
    assert!(
        started.status.success(),
        "the port is free again: {started:?}"
    );
}

#[test]
fn an_interface_without_address_or_unknown() {
    let cluster = Cluster::with(2, &["--rails", "2"]);
    let hosts = cluster.hosts(2).join(",");
    let start = start_on(&cluster, &hosts, &["--interface", "eth7"]);
    must_refuse(&cluster, start, &["eth7", "eth0", "eth1"]);
    cluster.shell(1, "ip address flush dev eth1");
    let start = start_on(&cluster, &hosts, &["--interface", "eth1"]);
    must_refuse(&cluster, start, &["eth1", &cluster.host(1), "eth0"]);
}

#[test]
fn a_provider_that_is_not_there() {
    let cluster = Cluster::up(2);
    let start = start_on(
        &cluster,
        &cluster.hosts(2).join(","),
        &["--provider", "none-such"],
    );
    must_refuse(&cluster, start, &["none-such", "tcp"]);
}

/// A long list with a mistake is refused soon; nobody waits for ten thousand time-outs.
#[test]
fn ten_thousand_names() {
    let cluster = Cluster::up(2);
    let file = cluster.place().join("hosts");
    let mut names = cluster.hosts(2);
    names.extend((0..9_998).map(|number| format!("absent-{number}")));
    fs::write(&file, names.join("\n") + "\n").unwrap();
    let job = Job::prepare(&cluster, &[&tree(&cluster)], Wishes::default());
    let mut start = job.copper(0);
    start.args(["start", "--launcher", "local", "--start-timeout", "10"]);
    start.arg("--hostfile").arg(&file);
    must_refuse(&cluster, start, &["absent-"]);
}

#[test]
fn a_helper_that_is_there_already() {
    let cluster = Cluster::up(2);
    let tree = tree(&cluster);
    let alone = Job::prepare(&cluster, &[&tree], Wishes::default());
    let mut start = alone.copper(1);
    start.arg("start").arg("--cover").arg(&tree);
    assert!(Outcome::of(&mut start).status.success());
    let helper = cluster.processes(1, "copper");
    let outcome = Outcome::of(&mut alone.start_command());
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(said.contains(&cluster.host(1)), "{said}");
    assert_eq!(
        cluster.processes(1, "copper"),
        helper,
        "it was ended or replaced"
    );
    assert!(
        wait_until(Duration::from_secs(5), || cluster
            .processes(0, "copper")
            .is_empty()),
        "the first node's helper is left"
    );
}
