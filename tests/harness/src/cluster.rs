//! A cluster of nodes on this machine (`scripts/cluster.sh`), and the jobs that run on it.
//!
//! A node is a network namespace with an address and a name of its own, and a mount namespace with
//! a `/tmp` and a `/dev/shm` of its own. All nodes see the same other files, so also the same slow
//! origins. Needs root.

mod job;
mod own_mounts;
pub mod ranks;

pub use job::{Job, Wishes};
pub use own_mounts::OwnMounts;

use crate::{environment, origin};
use anyhow::{Context, Result, ensure};
use slow_origin::{Load, SlowOrigin};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests on clusters take turns: the machine's few cores are the nodes' processors.
static TURN: Mutex<()> = Mutex::new(());

/// Nodes, which go with all that runs on them when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    prefix: String,
    count: usize,
    /// Seen by all nodes; also what is mounted in it later.
    place: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// A cluster of `count` nodes with one network card each.
    ///
    /// # Panics
    /// When it cannot be made; most often for want of root.
    pub fn up(count: usize) -> Self {
        Self::with(count, &[])
    }

    /// As [`Cluster::up`], with further options of `scripts/cluster.sh up`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn with(count: usize, options: &[&str]) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let cluster = Self {
            prefix: format!("t{}-{number}n", std::process::id()),
            count,
            place: environment::scratch(),
            _turn: turn,
        };
        let mut up = cluster.script("up");
        up.arg(count.to_string())
            .arg("--share")
            .arg(cluster.place())
            .args(options);
        run(&mut up).unwrap_or_else(|error| panic!("{error:#}"));
        cluster
    }

    fn script(&self, command: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/cluster.sh");
        let mut call = Command::new(script);
        call.arg(command).args(["--prefix", &self.prefix]);
        call
    }

    /// The number of nodes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The name of the node with this number, counted from 0.
    pub fn host(&self, node: usize) -> String {
        format!("{}{}", self.prefix, node + 1)
    }

    /// The names of the first `count` nodes.
    pub fn hosts(&self, count: usize) -> Vec<String> {
        (0..count).map(|node| self.host(node)).collect()
    }

    /// A directory that all nodes see, and of which they also see what is mounted in it later.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Serves the tree `source` from a slow origin at `place()/name`, seen by all nodes.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn origin(&self, name: &str, source: &Path) -> SlowOrigin {
        origin::slow(source, &self.place().join(name), &Load::none())
    }

    /// The same, with a mount of its own for each of the first `count` nodes.
    ///
    /// # Panics
    /// When one cannot be mounted.
    pub fn own_mounts(&self, name: &str, source: &Path, count: usize) -> OwnMounts {
        OwnMounts::make(self, name, source, count)
    }

    /// A command that runs `program` on a node, with the process id of the command itself, in the
    /// directory `place()`. The environment of the command is that of the program.
    pub fn command(&self, node: usize, program: impl AsRef<OsStr>) -> Command {
        let host = self.host(node);
        let state = Path::new("/run/copper-cluster").join(&host);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{host}"))
            .arg(format!("--mount={}", state.join("mnt").display()))
            .arg(format!("--uts={}", state.join("uts").display()))
            .arg(format!("--wdns={}", self.place().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a shell script on a node, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, node: usize, script: &str) -> String {
        let mut shell = self.command(node, "sh");
        run(shell.args(["-e", "-c", script])).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Plugs the cable of a node's first card in or pulls it, as its switch sees it.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn set_link(&self, node: usize, up: bool) {
        let mut link = self.script("link");
        link.arg(self.host(node))
            .arg(if up { "up" } else { "down" });
        run(&mut link).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// The ids of the processes of a node whose program has the name `name`.
    ///
    /// # Panics
    /// When they cannot be listed.
    pub fn processes(&self, node: usize, name: &str) -> Vec<u32> {
        let listing = run(&mut self.script("ps")).unwrap_or_else(|error| panic!("{error:#}"));
        let host = self.host(node);
        listing
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let (on, pid, program) = (words.next()?, words.next()?, words.next()?);
                let named = Path::new(program).file_name() == Some(OsStr::new(name));
                (on == host && named).then(|| pid.parse().ok())?
            })
            .collect()
    }

    /// A file of the release build, copied to where every user can reach it.
    ///
    /// # Panics
    /// When it has not been built.
    pub fn built(&self, name: &str) -> PathBuf {
        let bin = self.place().join("bin");
        let copy = bin.join(name);
        if !copy.exists() {
            std::fs::create_dir_all(&bin).expect("the place is ours");
            // Copied by another process: a descriptor of ours, open for writing, could be inherited
            // by a child that another thread starts, and keep the program from being executed.
            let mut copying = Command::new("cp");
            run(copying.arg(environment::built(name)).arg(&bin))
                .unwrap_or_else(|error| panic!("{error:#}"));
        }
        copy
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = run(&mut self.script("down")) {
            eprintln!("the cluster {} stays: {error:#}", self.prefix);
        }
    }
}

/// Runs a command that must succeed; returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
