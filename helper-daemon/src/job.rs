//! The description of a job of several nodes: who takes part, and how. Every node has the same.
//!
//! It holds the job's key, so it travels on standard input only and lies in the runtime directory
//! as a file that nobody else can read.
#![forbid(unsafe_code)]

use crate::meeting::JobKey;
use crate::runtime::{Runtime, own_uid};
use anyhow::{Context, Result, bail, ensure};
use copper_core::tree::Topology;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

/// Version of the description.
pub(crate) const JOB_VERSION: u32 = 1;
/// Name of the description in the runtime directory.
pub(crate) const JOB_FILE: &str = "job";

/// Most nodes of a job.
const MOST_HOSTS: usize = 200_000;
/// Longest host name, in bytes.
const MOST_NAME: usize = 255;
/// Hexadecimal digits of a proof.
const PROOF_DIGITS: usize = 16;
/// Longest description, in bytes.
const MOST_BYTES: u64 = 64 << 20;

/// How bytes of files travel between helpers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transfer {
    /// The receiver reads the sender's memory.
    #[default]
    Rma,
    /// In messages.
    Rpc,
}

/// A job of several nodes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// [`JOB_VERSION`].
    pub(crate) version: u32,
    /// The key in hexadecimal digits.
    pub(crate) key: String,
    /// The nodes; a node's rank is its place.
    pub(crate) hosts: Vec<String>,
    /// Where every helper listens for others.
    pub(crate) port: u16,
    /// Number of trees.
    pub(crate) trees: u16,
    /// Children of a node in a tree.
    pub(crate) fan_out: u32,
    /// libfabric's provider; the best that there is if not given.
    pub(crate) provider: Option<String>,
    /// Network interfaces or devices to use; the one that the host name leads to if empty.
    pub(crate) interfaces: Vec<String>,
    /// How bytes of files travel.
    pub(crate) transfer: Transfer,
}

impl fmt::Debug for Job {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("nodes", &self.hosts.len())
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// Checks every field.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.version == JOB_VERSION,
            "the job was described by another version of copper ({}, not {JOB_VERSION}); install \
             the same on all nodes",
            self.version
        );
        ensure!(
            JobKey::parse(&self.key).is_some(),
            "the job's description holds no key"
        );
        ensure!(!self.hosts.is_empty(), "the job has no nodes");
        ensure!(
            self.hosts.len() <= MOST_HOSTS,
            "{} nodes are more than {MOST_HOSTS}",
            self.hosts.len()
        );
        ensure!(self.port != 0, "the job's port is 0; give one from 1 on");
        let mut seen = HashSet::with_capacity(self.hosts.len());
        for host in &self.hosts {
            let plain = |byte: u8| byte.is_ascii_graphic();
            ensure!(
                !host.is_empty() && host.len() <= MOST_NAME && host.bytes().all(plain),
                "'{}' is not a host name",
                host.escape_debug()
            );
            ensure!(seen.insert(host), "host {host} is listed twice");
        }
        self.topology().map(|_| ())
    }

    /// What shows that a node has this very description, key and all, and gives nothing of the key
    /// away.
    pub(crate) fn proof(&self) -> Result<String> {
        let key = JobKey::parse(&self.key).context("the job's description holds no key")?;
        let mut hasher = blake3::Hasher::new_keyed(key.bytes());
        hasher.update(b"copper joined");
        hasher.update(&serde_json::to_vec(self)?);
        let hash = hasher.finalize().to_hex();
        Ok(hash[..PROOF_DIGITS].to_owned())
    }

    /// The trees of the job.
    pub(crate) fn topology(&self) -> Result<Topology> {
        Ok(Topology::fitted(
            u32::try_from(self.hosts.len())?,
            self.trees,
            self.fan_out,
        )?)
    }

    /// The description in the runtime directory, if there is one.
    pub(crate) fn read(runtime: &Runtime) -> Result<Option<Job>> {
        let path = runtime.directory().join(JOB_FILE);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => bail!("cannot open {}: {error}", path.display()),
        };
        let found = file.metadata()?;
        ensure!(
            found.is_file() && found.uid() == own_uid() && found.mode() & 0o077 == 0,
            "{} must be a plain file of yours that nobody else can read or write (it has mode \
             {:o} and owner {}); remove it and start the job anew",
            path.display(),
            found.mode() & 0o7777,
            found.uid()
        );
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text)?;
        let job = Job::parse(&text).with_context(|| format!("cannot use {}", path.display()))?;
        Ok(Some(job))
    }

    /// Reads a description and checks it.
    pub(crate) fn parse(text: &str) -> Result<Job> {
        let job: Job =
            serde_json::from_str(text).context("this is no description of a copper job")?;
        job.check()?;
        Ok(job)
    }

    /// Puts the description into the runtime directory, at once.
    pub(crate) fn write(&self, runtime: &Runtime) -> Result<()> {
        let (path, aside) = (
            runtime.directory().join(JOB_FILE),
            runtime.directory().join("job.new"),
        );
        let _ = std::fs::remove_file(&aside);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&aside, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("cannot write {}", aside.display()))?;
        File::from(file).write_all(serde_json::to_string(self)?.as_bytes())?;
        std::fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(hosts: &[&str]) -> Job {
        Job {
            version: JOB_VERSION,
            key: "5a".repeat(32),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            port: 17_000,
            trees: 8,
            fan_out: 8,
            provider: None,
            interfaces: Vec::new(),
            transfer: Transfer::Rma,
        }
    }

    #[test]
    fn a_good_description_survives_the_way() {
        let good = job(&["a", "b.example"]);
        let again = Job::parse(&serde_json::to_string(&good).unwrap()).unwrap();
        assert_eq!(again.hosts, good.hosts);
        assert_eq!(again.topology().unwrap().trees(), 2, "fitted to the job");
    }

    #[test]
    fn another_description_has_another_proof() {
        let good = job(&["a", "b"]);
        let proof = good.proof().unwrap();
        let mut other = good.clone();
        other.key = "5b".repeat(32);
        assert_ne!(other.proof().unwrap(), proof);
        assert_ne!(job(&["b", "a"]).proof().unwrap(), proof);
        let again = Job::parse(&serde_json::to_string(&good).unwrap()).unwrap();
        assert_eq!(again.proof().unwrap(), proof);
    }

    #[test]
    fn bad_descriptions_say_what_is_wrong() {
        let refused = |change: &dyn Fn(&mut Job)| {
            let mut bad = job(&["a", "b"]);
            change(&mut bad);
            bad.check().unwrap_err().to_string()
        };
        assert!(refused(&|job| job.hosts.push("a".to_owned())).contains("a is listed twice"));
        assert!(refused(&|job| job.hosts.clear()).contains("no nodes"));
        assert!(refused(&|job| job.hosts.push("x y".to_owned())).contains("'x y'"));
        assert!(refused(&|job| job.key.push('0')).contains("no key"));
        assert!(refused(&|job| job.port = 0).contains("port"));
        assert!(refused(&|job| job.version = 2).contains("another version"));
        assert!(refused(&|job| job.trees = 0).contains("trees"));
        let extra = serde_json::to_string(&job(&["a"])).unwrap();
        assert!(Job::parse(&extra.replacen('{', "{\"more\":1,", 1)).is_err());
    }
}
