//! The real ssh, to Debian's sshd on every node, with a key pair of the test's own.
//!
//! Each node's own mount namespace has a client's configuration that leads to these servers; nothing
//! of the machine's own keys and configuration is used or changed.

use crate::fixture::{job, must_leave_nothing, must_name, must_start, tree};
use copper_tests::cluster::{Cluster, Job, ranks};
use copper_tests::compare::Outcome;
use copper_tests::python;
use copper_tests::session::wait_until;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PORT: u16 = 22_022;

/// Servers on the nodes, ended when this is dropped.
pub(crate) struct Servers<'a> {
    cluster: &'a Cluster,
    servers: Vec<Child>,
}

fn directory(cluster: &Cluster) -> PathBuf {
    cluster.place().join("sshd")
}

fn make_key(cluster: &Cluster, name: &str) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]);
    let made = Outcome::of(keygen.arg(directory(cluster).join(name)));
    assert!(
        made.status.success(),
        "run scripts/setup.sh first: {made:?}"
    );
}

impl<'a> Servers<'a> {
    /// A server on each node, each of which every node may enter.
    pub(crate) fn start(cluster: &'a Cluster) -> Self {
        let directory = directory(cluster);
        let place = directory.display();
        fs::create_dir(&directory).unwrap();
        for key in ["host_key", "user_key", "other_key"] {
            make_key(cluster, key);
        }
        let public = |key: &str| fs::read_to_string(directory.join(key).with_extension("pub"));
        fs::write(
            directory.join("known_hosts"),
            format!("nodes {}", public("host_key").unwrap()),
        )
        .unwrap();
        let client = format!(
            "Host *\n    Port {PORT}\n    User root\n    IdentityFile {place}/user_key\n    \
             IdentitiesOnly yes\n    UserKnownHostsFile {place}/known_hosts\n    \
             GlobalKnownHostsFile /dev/null\n    HostKeyAlias nodes\n    \
             StrictHostKeyChecking yes\n"
        );
        fs::write(directory.join("ssh_config"), client).unwrap();
        // The directory above is everybody's, which strict modes forbid.
        let server = format!(
            "Port {PORT}\nHostKey {place}/host_key\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             UseDNS no\nAuthorizedKeysFile {place}/authorized-%u\n"
        );
        fs::write(directory.join("sshd_config"), server).unwrap();
        fs::write(
            directory.join("authorized-root"),
            public("user_key").unwrap(),
        )
        .unwrap();
        // Where sshd keeps its unprivileged part; the distribution's service makes it at boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let mut servers = Self {
            cluster,
            servers: Vec::new(),
        };
        for node in 0..cluster.count() {
            let mount = format!("mount --bind {place}/ssh_config /etc/ssh/ssh_config");
            cluster.shell(node, &mount);
            let server = servers.run(node);
            servers.servers.push(server);
        }
        servers
    }

    fn run(&self, node: usize) -> Child {
        let log = fs::File::create(directory(self.cluster).join(format!("log-{node}"))).unwrap();
        let mut server = self.cluster.command(node, "/usr/sbin/sshd");
        server.args(["-D", "-e", "-f"]);
        server.arg(directory(self.cluster).join("sshd_config"));
        let server = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("run scripts/setup.sh first");
        let connect = format!(
            "import socket; socket.create_connection(('{}', {PORT})).close()",
            self.cluster.host(node)
        );
        let listens = || {
            let mut client = self.cluster.command(node, python::interpreter());
            Outcome::of(client.args(["-c", &connect])).status.success()
        };
        assert!(
            wait_until(Duration::from_secs(20), listens),
            "sshd of node {node}: {}",
            self.log(node)
        );
        server
    }

    fn log(&self, node: usize) -> String {
        fs::read_to_string(directory(self.cluster).join(format!("log-{node}"))).unwrap_or_default()
    }

    fn end(&mut self, node: usize) {
        let server = &mut self.servers[node];
        server.kill().unwrap();
        server.wait().unwrap();
    }

    fn start_again(&mut self, node: usize) {
        self.end(node);
        self.servers[node] = self.run(node);
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// `copper start` on the first nodes from the first of them, with the real ssh.
pub(crate) fn start(cluster: &Cluster, job: &Job<'_>, nodes: usize) -> Command {
    let mut start = job.copper(0);
    start.args(["start", "--launcher", "ssh"]);
    start.arg("--hosts").arg(cluster.hosts(nodes).join(","));
    job.add_service(&mut start);
    start
}

#[test]
fn four_nodes_by_the_real_ssh_import_and_leave_nothing() {
    let cluster = Cluster::up(4);
    let _servers = Servers::start(&cluster);
    let packages = python::packages();
    let mut job = job(&cluster, packages);
    let plain = Outcome::of(&mut job.python(0, false, packages, python::IMPORT));
    assert!(plain.status.success(), "{plain:?}");
    let said = must_start(&mut start(&cluster, &job, 4));
    assert!(said.contains("ready 4/4"), "{said}");
    job.note_helpers().unwrap();
    // The helpers outlive the sessions of ssh that started them.
    let imports = (0..4).map(|node| job.python(node, true, packages, python::IMPORT));
    let ended = ranks::run(imports.collect());
    ranks::must_equal(&ended, &plain, "after a start by ssh");
    let again = must_start(&mut start(&cluster, &job, 4));
    assert!(again.contains("were running already"), "{again}");
    job.stop(3).unwrap();
    must_leave_nothing(&cluster, "copper stop");
}

#[test]
fn a_node_that_ssh_cannot_enter_is_named_with_ssh_s_own_words() {
    let cluster = Cluster::up(3);
    let mut servers = Servers::start(&cluster);
    let tree = tree(&cluster);
    let job = job(&cluster, &tree);
    must_start(&mut start(&cluster, &job, 3));
    assert!(Outcome::of(job.copper(0).arg("stop")).status.success());

    // The second node has another server's key, then none of this user's, then no server.
    let place = directory(&cluster);
    let other = format!("mount --bind {0}/other_key {0}/host_key", place.display());
    cluster.shell(1, &other);
    servers.start_again(1);
    must_name(
        &cluster,
        start(&cluster, &job, 3),
        &["Host key verification failed"],
    );
    cluster.shell(1, &format!("umount {}/host_key", place.display()));
    let none = format!("mount --bind /dev/null {}/authorized-root", place.display());
    cluster.shell(1, &none);
    servers.start_again(1);
    must_name(
        &cluster,
        start(&cluster, &job, 3),
        &["Permission denied (publickey)"],
    );
    servers.end(1);
    must_name(&cluster, start(&cluster, &job, 3), &["Connection refused"]);
}
