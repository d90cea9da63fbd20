//! A job: helpers on the nodes of a cluster, started by `copper start`, and ranks under the shim.

use super::{Cluster, run};
use crate::compare::Outcome;
use crate::python;
use crate::session::{is_alive, wait_until};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How a job is to be.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Its number among the user's jobs.
    pub name: String,
    /// The nodes it uses; the first of the cluster, from 0. All where it is 0.
    pub nodes: usize,
    /// Further arguments of `copper start`.
    pub arguments: Vec<String>,
    /// Who runs it; root where nobody is named.
    pub user: Option<u32>,
}

impl Wishes {
    /// A job on all nodes with these arguments of `copper start`.
    pub fn arguments(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            ..Self::default()
        }
    }
}

/// Helpers on nodes, and the ranks they serve. The helpers go with the cluster at the latest.
#[derive(Debug)]
pub struct Job<'a> {
    cluster: &'a Cluster,
    wishes: Wishes,
    covered: Vec<PathBuf>,
    helpers: Vec<u32>,
}

impl<'a> Job<'a> {
    /// A job that covers `covered`, not started yet.
    pub fn prepare(cluster: &'a Cluster, covered: &[&Path], wishes: Wishes) -> Self {
        let mut wishes = wishes;
        if wishes.nodes == 0 {
            wishes.nodes = cluster.count();
        }
        Self {
            cluster,
            wishes,
            covered: covered.iter().map(|path| path.to_path_buf()).collect(),
            helpers: Vec::new(),
        }
    }

    /// A job that covers `covered`, with all its helpers ready.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(cluster: &'a Cluster, covered: &[&Path], wishes: Wishes) -> Self {
        let mut job = Self::prepare(cluster, covered, wishes);
        job.try_start().unwrap_or_else(|error| panic!("{error:#}"));
        job
    }

    /// `copper start` as this job is started, on its first node.
    pub fn start_command(&self) -> Command {
        let mut start = self.copper(0);
        start.args(["start", "--launcher", "local"]);
        start
            .arg("--hosts")
            .arg(self.cluster.hosts(self.nodes()).join(","));
        self.add_service(&mut start);
        start
    }

    /// Adds what the job covers and the further arguments.
    pub fn add_service(&self, start: &mut Command) {
        for covered in &self.covered {
            start.arg("--cover").arg(covered);
        }
        start.args(&self.wishes.arguments);
    }

    /// Starts the helpers, or says why not.
    ///
    /// # Errors
    /// What `copper start` said, when it failed.
    pub fn try_start(&mut self) -> Result<()> {
        let started = Outcome::of(&mut self.start_command());
        ensure!(started.status.success(), "copper start: {started:?}");
        self.note_helpers()
    }

    /// Asks who the helpers are; for a job that was started in another way.
    ///
    /// # Errors
    /// When a node has none.
    pub fn note_helpers(&mut self) -> Result<()> {
        self.helpers = (0..self.nodes())
            .map(|node| {
                let status = self.status(node)?;
                Ok(status["pid"].as_u64().context("no pid in status")? as u32)
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// The number of nodes it uses.
    pub fn nodes(&self) -> usize {
        self.wishes.nodes
    }

    /// The process id of a node's helper, as it was after the start.
    pub fn helper(&self, node: usize) -> u32 {
        self.helpers[node]
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let covered: Vec<_> = self.covered.iter().map(|path| path.as_os_str()).collect();
        vec![
            ("COPPER_JOB", self.wishes.name.clone().into()),
            ("COPPER_PATHS", covered.join(OsStr::new(":"))),
        ]
    }

    /// A command of the job's user on a node; the preload goes around `nsenter` and to `program`
    /// alone.
    fn on_node(&self, node: usize, shimmed: bool, program: &OsStr) -> Command {
        let mut command = self.cluster.command(node, "env");
        for name in [
            "LD_PRELOAD",
            "COPPER_RUNTIME_DIR",
            "COPPER_VIEW",
            "COPPER_DISABLE",
        ] {
            command.arg("-u").arg(name);
        }
        let mut set = |name: &str, value: &OsStr| {
            let mut pair = OsString::from(name);
            pair.push("=");
            pair.push(value);
            command.arg(pair);
        };
        set("LC_ALL", OsStr::new("C.UTF-8"));
        if shimmed {
            for (name, value) in self.environment() {
                set(name, &value);
            }
        }
        if let Some(user) = self.wishes.user {
            command
                .arg("setpriv")
                .args([format!("--reuid={user}"), format!("--regid={user}")])
                .args(["--clear-groups", "--", "env"]);
        }
        if shimmed {
            let mut preload = OsString::from("LD_PRELOAD=");
            preload.push(self.cluster.built("libcopper.so"));
            command.arg(preload);
        }
        command.arg(program);
        command
    }

    /// A command that runs `program` on a node as a rank of this job.
    pub fn rank(&self, node: usize, program: impl AsRef<OsStr>) -> Command {
        self.on_node(node, true, program.as_ref())
    }

    /// A command that runs `program` on a node without Copper.
    pub fn plain(&self, node: usize, program: impl AsRef<OsStr>) -> Command {
        self.on_node(node, false, program.as_ref())
    }

    /// The sums of all files in `directory`, as `node` sees them with or without the shim.
    pub fn checksums(&self, node: usize, shimmed: bool, directory: &Path) -> Command {
        let mut shell = if shimmed {
            self.rank(node, "sh")
        } else {
            self.plain(node, "sh")
        };
        shell.args(["-c", "cksum \"$0\"/*"]).arg(directory);
        shell
    }

    /// Python on a node as a rank of this job, or plain; it finds packages in `packages`.
    pub fn python(&self, node: usize, shimmed: bool, packages: &Path, code: &str) -> Command {
        let mut command = self.on_node(node, shimmed, python::interpreter().as_os_str());
        command.args(["-c", code]).env("PYTHONPATH", packages);
        python::settle(&mut command);
        command
    }

    /// The `copper` command on a node.
    pub fn copper(&self, node: usize) -> Command {
        let mut command = self.on_node(node, false, OsStr::new("env"));
        let mut job = OsString::from("COPPER_JOB=");
        job.push(&self.wishes.name);
        command.arg(job).arg(self.cluster.built("copper"));
        // So that the helper finds the shim beside it, and `copper env --lib` too.
        self.cluster.built("libcopper.so");
        command
    }

    fn ask(&self, node: usize, arguments: &[&str]) -> Result<Value> {
        let said = run(self.copper(node).args(arguments))?;
        serde_json::from_str(&said)
            .with_context(|| format!("copper {} printed {said}", arguments.join(" ")))
    }

    /// The status of one node's helper.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn status(&self, node: usize) -> Result<Value> {
        self.ask(node, &["status", "--json"])
    }

    /// The status of the whole job, asked on a node.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn status_all(&self, node: usize) -> Result<Value> {
        self.ask(node, &["status", "--all", "--json"])
    }

    /// The hosts that the whole job's status, asked on a node, calls missing.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn missing(&self, node: usize) -> Vec<String> {
        let status = self
            .status_all(node)
            .unwrap_or_else(|error| panic!("{error:#}"));
        let hosts = status["missing_hosts"].as_array().cloned();
        hosts
            .unwrap_or_else(|| panic!("no missing_hosts in {status}"))
            .iter()
            .map(|host| host.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Forgets what is known of a path, and waits until all nodes have.
    ///
    /// # Panics
    /// When that fails.
    pub fn refresh(&self, node: usize, path: &Path) {
        let mut refresh = self.copper(node);
        run(refresh.arg("refresh").arg(path)).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Sends a signal to a node's helper.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, node: usize, signal: Signal) {
        let pid = Pid::from_raw(self.helper(node) as i32).expect("a process id");
        kill_process(pid, signal).expect("the helper takes signals");
    }

    /// Ends a node's helper at once, as a crash would.
    ///
    /// # Panics
    /// When it stays alive.
    pub fn kill(&self, node: usize) {
        self.signal(node, Signal::KILL);
        let helper = self.helper(node);
        assert!(
            wait_until(Duration::from_secs(5), || !is_alive(helper)),
            "helper survives SIGKILL"
        );
    }

    /// Ends the job from a node, and checks that all its helpers are gone.
    ///
    /// # Errors
    /// When `copper stop` fails or a helper stays.
    pub fn stop(&self, node: usize) -> Result<()> {
        run(self.copper(node).arg("stop"))?;
        for (node, &helper) in self.helpers.iter().enumerate() {
            ensure!(
                wait_until(Duration::from_secs(5), || !is_alive(helper)),
                "the helper of node {node} stays after copper stop"
            );
        }
        Ok(())
    }
}
