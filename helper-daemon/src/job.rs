//! A job: the helpers that form one tree, as each of them finds it in its runtime directory.
#![forbid(unsafe_code)]

use crate::runtime::Runtime;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Version of the job file.
pub(crate) const JOB_VERSION: u32 = 1;
const KEY_DIGITS: usize = 64;
const MOST_HOSTS: usize = 200_000;

/// How bodies travel from parent to child.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transfer {
    /// The child reads them from the parent's memory.
    #[default]
    Rma,
    /// The parent sends them in messages.
    Rpc,
}

/// What all helpers of a job know of it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// [`JOB_VERSION`].
    pub(crate) version: u32,
    /// The key, as 64 hexadecimal digits.
    pub(crate) key: String,
    /// The nodes' names; a node's rank is its place here.
    pub(crate) hosts: Vec<String>,
    /// Where the helpers meet (TCP).
    pub(crate) port: u16,
    /// Number of trees.
    pub(crate) trees: u16,
    /// Children of an interior node.
    pub(crate) fan_out: u32,
    /// The libfabric provider, where one was named.
    pub(crate) provider: Option<String>,
    /// The network interfaces, where some were named.
    pub(crate) interfaces: Vec<String>,
    /// How bodies travel.
    pub(crate) transfer: Transfer,
}

impl Job {
    /// Checks everything that can be checked without the network.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.version == JOB_VERSION,
            "the job is of version {}, this copper of {JOB_VERSION}; use one copper on all nodes",
            self.version
        );
        let digits = self.key.bytes().all(|digit| digit.is_ascii_hexdigit());
        ensure!(
            self.key.len() == KEY_DIGITS && digits,
            "the job's key is malformed"
        );
        ensure!(!self.hosts.is_empty(), "the job has no hosts");
        ensure!(
            self.hosts.len() <= MOST_HOSTS,
            "{} hosts are too many (at most {MOST_HOSTS})",
            self.hosts.len()
        );
        let mut seen = HashSet::new();
        for host in &self.hosts {
            ensure!(seen.insert(host), "host {host} is listed twice");
        }
        Ok(())
    }

    /// The job of this runtime directory, if its helper is one of several.
    pub(crate) fn read(runtime: &Runtime) -> Result<Option<Job>> {
        let path = runtime.job_file();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let job: Job = serde_json::from_slice(&text)
            .with_context(|| format!("{} is malformed", path.display()))?;
        job.check()?;
        Ok(Some(job))
    }

    /// Writes the job where its helper will look; whole or not at all, for its user alone.
    pub(crate) fn write(&self, runtime: &Runtime) -> Result<()> {
        let path = runtime.job_file();
        let aside = path.with_extension("new");
        let _ = fs::remove_file(&aside);
        let write = || -> Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            Ok(fs::rename(&aside, &path)?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}
