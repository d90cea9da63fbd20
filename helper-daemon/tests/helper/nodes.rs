//! `copper start` on several nodes: what it asks of its launcher, what it says when nodes fail, and
//! what one node does. The nodes are directories of one machine: the launcher is a script that
//! enters a node by setting a runtime directory and a view of its own.

use crate::support::{Helper, Stage, wait_until};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A stand-in for ssh: greets, as login shells do, and runs the command on the node.
const LAUNCHER: &str = r#"#!/bin/sh
host=$1
shift
echo "Welcome to $host, copper user"
case $host in
  127.0.0.40) echo "stand-in: $host: No route to host" >&2; exit 255 ;;
  127.0.0.41) exec sleep 100 ;;
  127.0.0.42) exit 0 ;;
  127.0.0.44)
    job=$(cat)
    port=${job##*\"port\":}
    port=${port%%,*}
    echo "$port" >>"$STAGE/ports"
    case $(wc -l <"$STAGE/ports") in
      1) echo "copper 1 failed: port $port is in use on $host" ;;
      *) echo "copper 1 failed: enough" ;;
    esac
    exit 1
    ;;
  127.0.0.43) exec /no/such/copper "$@" 2>/dev/null ;;
esac
mkdir -p "$STAGE/$host"
export COPPER_RUNTIME_DIR=$STAGE/$host/runtime COPPER_VIEW=$STAGE/$host/view
exec "$@"
"#;

/// A machine whose directories are nodes.
struct Nodes {
    stage: Stage,
}

impl Nodes {
    fn new() -> Nodes {
        let stage = Stage::new();
        let script = stage.base.path().join("stand-in");
        fs::write(&script, LAUNCHER).expect("script");
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("mode");
        Nodes { stage }
    }

    fn runtime_of(&self, host: &str) -> PathBuf {
        self.stage.base.path().join(host).join("runtime")
    }

    fn copper(&self, arguments: &[&str]) -> Command {
        let mut command = self.stage.copper(arguments);
        command.env("STAGE", self.stage.base.path());
        command
    }

    fn start_command(&self, hosts: &str, more: &[&str]) -> Command {
        let script = self.stage.base.path().join("stand-in");
        let template = format!("{} {{host}} {{command}}", script.display());
        let start = ["start", "--hosts", hosts, "--launch", &template];
        self.copper(&[&start[..], more].concat())
    }

    fn start(&self, hosts: &str, more: &[&str]) -> Output {
        let start = self.start_command(hosts, more).output();
        start.expect("copper runs")
    }

    fn assert_nothing_is_left(&self) {
        for host in ["127.0.0.2", "127.0.0.3"] {
            assert!(!self.runtime_of(host).exists(), "{host}");
        }
        assert!(!self.stage.runtime().exists());
        assert!(!self.stage.view().exists());
    }

    /// Runs `copper join` or `copper leave`.
    fn member(&self, action: &str, rank: u32, input: &[u8]) -> Output {
        let rank = rank.to_string();
        let mut child = self
            .copper(&[action, "--rank", &rank])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("copper runs");
        let mut pipe = child.stdin.take().expect("piped");
        let _ = pipe.write_all(input);
        drop(pipe);
        child.wait_with_output().expect("ends")
    }

    /// What `copper start` tells a node, of a job with this key.
    fn invitation(&self, key: &str) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let invitation = json!({
            "job": {
                "version": 1, "key": key, "hosts": ["localhost"], "port": port,
                "trees": 1, "fan_out": 8, "provider": null, "interfaces": [], "transfer": "rma",
            },
            "service": {
                "cover": [self.stage.origin], "store": self.stage.memory.path(), "memory": null,
                "view": null, "directory_limit": 20000, "threads": 4,
            },
            "environment": {"COPPER_TEST_MARK": "carried"},
            "log": null, "log_level": "warn", "patience_seconds": 20,
        });
        invitation.to_string().into_bytes()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    text(&output.stderr)
}

fn key() -> String {
    format!("{:016x}", random_number()).repeat(4)
}

/// A number that no other process has in its arguments.
fn random_number() -> u64 {
    let mut bytes = [0; 8];
    let mut random = fs::File::open("/dev/urandom").expect("random bytes");
    random.read_exact(&mut bytes).expect("random bytes");
    u64::from_ne_bytes(bytes)
}

#[test]
fn a_node_joins_once_and_leaves_its_own_job_only() {
    let nodes = Nodes::new();
    let (ours, others) = (key(), key());
    let joined = nodes.member("join", 0, &nodes.invitation(&ours));
    assert!(
        text(&joined.stdout).starts_with("copper 0 ready "),
        "{}",
        said(&joined)
    );
    assert!(joined.status.success());
    let job = nodes.stage.runtime().join("job");
    let mode = fs::metadata(&job).expect("the job").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::read_to_string(&job).expect("text").contains(&ours));

    let again = nodes.member("join", 0, &nodes.invitation(&ours));
    assert!(!again.status.success());
    assert!(text(&again.stdout).starts_with("copper 0 failed: a helper of yours is running"));

    let left = nodes.member("leave", 0, &nodes.invitation(&others));
    assert_eq!(text(&left.stdout), "copper 0 left\n");
    assert!(job.exists(), "another job's end must not end this one");
    let left = nodes.member("leave", 0, &nodes.invitation(&ours));
    assert_eq!(text(&left.stdout), "copper 0 left\n");
    nodes.assert_nothing_is_left();
    let left = nodes.member("leave", 0, &nodes.invitation(&ours));
    assert_eq!(
        text(&left.stdout),
        "copper 0 left\n",
        "leaving twice is no error"
    );
}

#[test]
fn the_key_is_in_no_command_line_and_no_environment() {
    let nodes = Nodes::new();
    let key = key();
    let joined = nodes.member("join", 0, &nodes.invitation(&key));
    assert!(text(&joined.stdout).starts_with("copper 0 ready "));
    let mut carried = false;
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        for name in ["cmdline", "environ"] {
            let Ok(bytes) = fs::read(process.path().join(name)) else {
                continue;
            };
            let text = text(&bytes);
            assert!(!text.contains(&key), "{}", process.path().display());
            carried |= text.contains("COPPER_TEST_MARK=carried");
        }
    }
    assert!(carried, "the helper has the variables that it was sent");
    nodes.member("leave", 0, &nodes.invitation(&key));
    nodes.assert_nothing_is_left();
}

#[test]
fn a_node_refuses_what_is_no_job() {
    let nodes = Nodes::new();
    let good = nodes.invitation(&key());
    let mut other_version: serde_json::Value = serde_json::from_slice(&good).expect("JSON");
    other_version["job"]["version"] = json!(99);
    let mut no_cover: serde_json::Value = serde_json::from_slice(&good).expect("JSON");
    no_cover["service"]["cover"] = json!(["/nowhere/at/all"]);
    for (rank, input, reason) in [
        (0, Vec::new(), "does not describe a job"),
        (0, b"{}".to_vec(), "does not describe a job"),
        (0, other_version.to_string().into_bytes(), "version"),
        (0, no_cover.to_string().into_bytes(), "/nowhere/at/all"),
        (5, good, "rank 5"),
    ] {
        let refused = nodes.member("join", rank, &input);
        let line = text(&refused.stdout);
        assert!(!refused.status.success());
        assert!(
            line.starts_with(&format!("copper {rank} failed: ")),
            "{line}"
        );
        assert!(line.contains(reason) && line.lines().count() == 1, "{line}");
    }
    nodes.assert_nothing_is_left();
}

#[test]
fn every_node_that_fails_is_named_with_its_reason_and_the_others_are_stopped() {
    let nodes = Nodes::new();
    let open = nodes.runtime_of("127.0.0.3");
    fs::create_dir_all(&open).expect("directory");
    fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).expect("mode");
    let hosts = "localhost,127.0.0.2,127.0.0.3,127.0.0.40,127.0.0.42,127.0.0.43";
    let start = Instant::now();
    let failed = nodes.start(hosts, &[]);
    let said = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    for reason in [
        "127.0.0.3: ",
        "chmod 700",
        "127.0.0.40: ",
        "ended with status 255: stand-in: 127.0.0.40: No route to host",
        "127.0.0.42: ",
        "brought no report back",
        "127.0.0.43: ",
        "ended with status 127",
        "of 6 nodes are not ready",
    ] {
        assert!(said.contains(reason), "'{reason}' in {said}");
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    fs::remove_dir(&open).expect("as it was");
    nodes.assert_nothing_is_left();
}

#[test]
fn a_node_that_does_not_answer_is_not_waited_for_longer_than_asked() {
    let nodes = Nodes::new();
    let start = Instant::now();
    let failed = nodes.start("localhost,127.0.0.41", &["--start-timeout", "1"]);
    let said = said(&failed);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        said.contains("127.0.0.41: no answer in time (see --start-timeout)"),
        "{said}"
    );
    assert!(
        said.contains("whether a helper is left on: 127.0.0.41"),
        "{said}"
    );
    assert!(start.elapsed() < Duration::from_secs(30));
    nodes.assert_nothing_is_left();
}

#[test]
fn another_port_is_looked_for_where_one_is_in_use() {
    let nodes = Nodes::new();
    let failed = nodes.start("localhost,127.0.0.44", &[]);
    let said = said(&failed);
    let ports = fs::read_to_string(nodes.stage.base.path().join("ports")).expect("ports");
    let ports: Vec<&str> = ports.lines().collect();
    assert_eq!(ports.len(), 2, "{said}");
    assert_ne!(ports[0], ports[1]);
    let first = format!("127.0.0.44: port {} is in use on 127.0.0.44", ports[0]);
    for line in [&first, "trying another port", "127.0.0.44: enough"] {
        assert!(said.contains(line), "'{line}' in {said}");
    }
    nodes.assert_nothing_is_left();

    let asked = nodes.stage.base.path().join("ports");
    fs::remove_file(&asked).expect("as it was");
    let failed = nodes.start("localhost,127.0.0.44", &["--port", "16388"]);
    assert!(
        self::said(&failed).contains("give another with --port"),
        "{}",
        self::said(&failed)
    );
    let ports = fs::read_to_string(&asked).expect("ports");
    assert_eq!(ports, "16388\n", "the port is the user's choice");
    nodes.assert_nothing_is_left();
}

#[test]
fn a_start_ends_in_good_order_also_where_nobody_reads_what_it_says() {
    let nodes = Nodes::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut start = nodes.start_command("localhost,127.0.0.40", &[]);
    let status = start.stderr(writer).status().expect("copper runs");
    assert!(!status.success());
    nodes.assert_nothing_is_left();
}

#[test]
fn a_start_that_is_interrupted_stops_what_it_started() {
    let nodes = Nodes::new();
    let mut start = nodes
        .start_command("localhost,127.0.0.41", &[])
        .stderr(Stdio::piped())
        .spawn()
        .expect("copper runs");
    let job = nodes.stage.runtime().join("socket");
    wait_until("this node's helper is there", || job.exists());
    let killed = Command::new("kill")
        .args(["-INT", &start.id().to_string()])
        .status();
    assert!(killed.expect("kill").success());
    let mut said = String::new();
    let errors = start.stderr.as_mut().expect("piped");
    errors.read_to_string(&mut said).expect("text");
    assert_eq!(start.wait().expect("ends").code(), Some(1));
    assert!(said.contains("127.0.0.41"), "{said}");
    nodes.assert_nothing_is_left();
}

#[test]
fn lists_and_launchers_that_cannot_work_are_explained_at_once() {
    let nodes = Nodes::new();
    let error = |arguments: &[&str]| {
        let arguments = [&["start"], arguments].concat();
        let start = Instant::now();
        let output = nodes.copper(&arguments).output().expect("copper runs");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(start.elapsed() < Duration::from_secs(15), "{arguments:?}");
        said(&output)
    };
    let file = nodes.stage.base.path().join("hosts");
    fs::write(&file, "# nobody\n").expect("file");
    let file = file.to_str().expect("plain");
    let many = "no-such-node[00001-10000]";
    let here = "localhost";
    for (arguments, reason) in [
        (&["--hosts", ""][..], "no host is listed"),
        (&["--hostfile", file], "no host is listed"),
        (
            &["--hostfile", "/no/such/file"],
            "cannot read /no/such/file",
        ),
        (&["--allocation"], "--hosts or --hostfile"),
        (&["--hosts", "localhost,b,b"], "host b is listed twice"),
        (&["--hosts=-oProxyCommand=x"], "not a host name"),
        (
            &["--hosts", "198.51.100.1"],
            "run copper start on one of the nodes: 198.51.100.1",
        ),
        (&["--hosts", many], "and 9992 more (not resolved here: "),
        (
            &["--hosts", here, "--launcher", "telepathy"],
            "possible values: auto, srun, pals, mpiexec, flux, clush, pdsh, ssh, local",
        ),
        (
            &["--hosts", here, "--launcher", "local"],
            "not a network namespace",
        ),
        (
            &["--hosts", "localhost,b", "--launch", "ssh {host}"],
            "has no {command}",
        ),
        (
            &["--hosts", "localhost,b", "--launch", "ssh {command}"],
            "has no {host}",
        ),
        (
            &[
                "--hosts",
                here,
                "--launch",
                "x {command}",
                "--launcher",
                "ssh",
            ],
            "cannot be used with",
        ),
        (
            &["--hosts", here, "--hostfile", file],
            "cannot be used with",
        ),
        (&["--trees", "2"], "--hosts"),
        (
            &["--hosts", here, "--cover", "/no/such/prefix"],
            "/no/such/prefix",
        ),
    ] {
        let said = error(arguments);
        assert!(said.contains(reason), "{arguments:?}: '{reason}' in {said}");
    }
    nodes.assert_nothing_is_left();
}

#[test]
fn ten_thousand_nodes_that_cannot_be_reached_are_given_up_quickly() {
    let nodes = Nodes::new();
    let start = Instant::now();
    // Their names resolve: it is the launcher that fails.
    let output = nodes
        .copper(&["start", "--hosts", "localhost,127.1.[1-100].[1-100]"])
        .args(["--launch", "/no/such/launcher {host} {command}"])
        .output()
        .expect("copper runs");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("127.1.100.100: "), "the last is named");
    assert!(said.contains("/no/such/launcher could not be run"));
    assert!(said.contains("10000 of 10001 nodes are not ready"));
    assert!(start.elapsed() < Duration::from_secs(30));
    nodes.assert_nothing_is_left();
}

#[test]
fn several_helpers_are_asked_for_where_there_are_several() {
    let nodes = Nodes::new();
    let helper = nodes.stage.start(&[]);
    let all = nodes.stage.run(&["status", "--all"]);
    assert!(said(&all).contains("not one of several"), "{}", said(&all));
    let start = nodes.start("localhost,127.0.0.2", &[]);
    assert!(
        said(&start).contains("serves this node alone"),
        "{}",
        said(&start)
    );
    assert!(said(&start).contains("copper stop"));
    drop(helper);
}

#[test]
fn a_helper_that_died_does_not_leave_its_job_to_the_next() {
    let nodes = Nodes::new();
    let joined = nodes.member("join", 0, &nodes.invitation(&key()));
    assert!(text(&joined.stdout).starts_with("copper 0 ready "));
    let mut helper = Helper::of(&nodes.stage);
    helper.kill();
    let stop = nodes.stage.run(&["stop"]);
    assert!(
        said(&stop).contains("run copper stop on another"),
        "{}",
        said(&stop)
    );
    let mut helper = nodes.stage.start(&[]);
    assert!(!nodes.stage.runtime().join("job").exists());
    helper.stop();
    nodes.assert_nothing_is_left();
}

#[test]
fn a_job_of_one_node_starts_is_there_and_ends() {
    let nodes = Nodes::new();
    let origin = nodes.stage.origin.to_str().expect("plain");
    let start = ["start", "--hosts", "localhost", "--cover", origin];
    // A job of one node needs no libfabric.
    let started = nodes
        .stage
        .copper(&start)
        .env("COPPER_LIBFABRIC", "/no/such/libfabric.so.1")
        .output()
        .expect("copper runs");
    assert!(started.status.success(), "{}", said(&started));
    assert!(said(&started).contains("helpers joined 1/1"));
    assert!(said(&started).contains("ready 1/1 in "));
    assert!(said(&started).contains("1 tree of fan-out 8, depth 0"));

    let again = nodes.stage.run(&start);
    assert!(again.status.success(), "{}", said(&again));
    assert!(text(&again.stdout).contains("were running already"));
    let other = nodes.stage.run(&["start", "--hosts", "localhost,b"]);
    assert!(
        said(&other).contains("run copper stop first"),
        "{}",
        said(&other)
    );
    let other = nodes
        .stage
        .run(&["start", "--hosts", "localhost", "--cover", "/usr/share"]);
    assert!(
        said(&other).contains("run copper stop first"),
        "{}",
        said(&other)
    );

    let all = nodes.stage.run(&["status", "--all"]);
    assert!(text(&all.stdout).contains("1 of 1 ready"), "{}", said(&all));
    let all = nodes.stage.run(&["status", "--all", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).expect("JSON");
    assert_eq!(all["nodes"], 1);
    assert_eq!(all["missing_hosts"], json!([]));
    assert_eq!(all["fan_out"], 8);

    let stopped = nodes.stage.run(&["stop"]);
    assert_eq!(text(&stopped.stdout), "stopped 1 of 1 helpers\n");
    nodes.assert_nothing_is_left();
}
