//! The profile of a job: what was asked for most and what took longest, as files of each node and
//! merged for all of them (`copper start --profile`, `copper profile`).
//!
//! | in the directory | what |
//! |---|---|
//! | `final/NODE-PID-profiling_aggregate.csv` | sums of the node: `metric,value` |
//! | `final/NODE-PID-profiling_operations.csv` | by operation, how many and how long |
//! | `final/NODE-PID-profiling_top_paths.csv` | with `-N` or `-A`: by path |
//! | `final/NODE-PID-profiling_summary.md` | the same for people |
//! | `final/NODE-PID-profile.json` | what these were made of, for `copper report` |
//! | `snapshot-N/NODE-PID-snapshot-N-...` | with `-I`: the same while the job ran |
//! | `cluster/cluster-...` | after `copper profile --merge`: the same of all nodes together |
//!
//! Names and columns are those of Copper's profiles; `docs/SLOW_IMPORT.md` says what they mean here.
#![forbid(unsafe_code)]

mod merge;
mod recorder;
mod tables;

pub(crate) use recorder::Recorder;

use crate::cli::ProfileOptions;
use crate::client::connect;
use crate::commands;
use crate::job::Job;
use crate::journal::{Excerpt, LONG, SHORT};
use crate::runtime::Runtime;
use anyhow::{Context, Result, bail};
use copper_core::request::Operation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tables::Tables;

/// Version of the JSON files.
const VERSION: u32 = 1;
/// Objects of a node that are written where only sums are wanted: enough to show the slowest.
const FEW: usize = 64;
/// The directory of a profile, unless the user names another.
pub(crate) const DIRECTORY: &str = "copper-profile";
/// How long the helpers of a job that has ended may take to write their files.
const WRITING_TIME: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
const PAUSE: Duration = Duration::from_millis(100);
/// Where a node's last files are.
const FINAL: &str = "final";
/// End of the name of a node's JSON file.
const JSON: &str = "profile.json";

/// What one node has to say.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Profile {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The node's name.
    pub(crate) host: String,
    /// The helper's process id.
    pub(crate) pid: u32,
    /// When this was said, in milliseconds since 1970.
    pub(crate) taken_unix_ms: u64,
    /// The job's trees, where it has several nodes.
    #[serde(default)]
    pub(crate) shape: Option<Shape>,
    /// The helper's status, as `copper status --json` gives it.
    pub(crate) status: Value,
    /// What it obtained and what it left to the origin.
    pub(crate) journal: Excerpt,
}

/// The trees of a job.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Shape {
    /// Nodes.
    pub(crate) nodes: u32,
    /// Trees.
    pub(crate) trees: u16,
    /// Children of a node in a tree.
    pub(crate) fan_out: u32,
}

impl Shape {
    /// The trees of this job.
    pub(crate) fn of(job: &Job) -> Shape {
        Shape {
            nodes: u32::try_from(job.hosts.len()).unwrap_or(u32::MAX),
            trees: job.trees,
            fan_out: job.fan_out,
        }
    }
}

impl Profile {
    /// What the node `host` has to say now.
    pub(crate) fn new(
        host: &str,
        shape: Option<Shape>,
        status: Value,
        journal: Excerpt,
    ) -> Profile {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Profile {
            version: VERSION,
            host: host.to_owned(),
            shape,
            pid: std::process::id(),
            taken_unix_ms: now.unwrap_or_default().as_millis() as u64,
            status,
            journal,
        }
    }

    /// The node's rank in its job; 0 where it is alone.
    pub(crate) fn rank(&self) -> u32 {
        let rank = self.status.pointer("/peers/rank").and_then(Value::as_u64);
        rank.and_then(|rank| u32::try_from(rank).ok()).unwrap_or(0)
    }
}

impl ProfileOptions {
    /// Whether a profile is wanted.
    pub(crate) fn is_on(&self) -> bool {
        self.profile
            || self.profile_paths
            || self.profile_top.is_some()
            || self.profile_interval.is_some()
    }

    /// Where it goes, if one is wanted.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        let named = self.profile_directory.clone();
        self.is_on()
            .then(|| named.unwrap_or_else(|| PathBuf::from(DIRECTORY)))
    }

    /// How many objects the journal keeps.
    pub(crate) fn kept_objects(&self) -> usize {
        match self.journal_limit {
            Some(limit) => limit as usize,
            None if self.profile_paths => LONG,
            None => SHORT,
        }
    }

    /// How many paths of each kind are listed; none where only sums are wanted.
    fn listed(&self) -> Option<usize> {
        match (self.profile_paths, self.profile_top) {
            (true, _) => Some(usize::MAX),
            (false, Some(top)) => Some(top as usize),
            (false, None) => None,
        }
    }

    /// In words.
    fn mode(&self) -> &'static str {
        match (self.profile_paths, self.profile_top) {
            (true, _) => "full-path",
            (false, Some(_)) => "top-path",
            (false, None) => "aggregate-only",
        }
    }
}

/// Asks this node's helper for its profile, with up to `most` objects.
pub(crate) fn ask(runtime: &Runtime, most: usize) -> Result<Option<Profile>> {
    let Some(connection) = connect(runtime)? else {
        return Ok(None);
    };
    let Some(body) = connection.ask(Operation::Journal, most.to_string().as_bytes())? else {
        return Ok(None);
    };
    let profile = serde_json::from_slice(&body)
        .context("the helper's profile cannot be read; is it of another version?")?;
    Ok(Some(profile))
}

/// `copper profile`: this node's profile as it is now, for people.
pub(crate) fn show(top: u32) -> Result<()> {
    let runtime = commands::running()?;
    let profile = ask(&runtime, SHORT)?.context(commands::NO_HELPER)?;
    let tables = Tables::of(&profile);
    let title = format!("Copper profile of {}", profile.host);
    let text = tables.summary(&title, &[], Some(top as usize));
    commands::print(text.as_bytes())
}

/// `copper profile --merge`.
pub(crate) fn merge(directory: &Path) -> Result<()> {
    let merged = merge::merge(directory)?;
    commands::print(merged.as_bytes())
}

/// The profiles of all nodes that left one in `directory`, in the order of their ranks.
pub(crate) fn read_all(directory: &Path) -> Result<Vec<Profile>> {
    let mut profiles = Vec::new();
    for path in files_of_nodes(directory)? {
        profiles.push(read(&path)?);
    }
    profiles.sort_by(|one: &Profile, other| {
        let ranks = one.rank().cmp(&other.rank());
        ranks.then_with(|| one.host.cmp(&other.host))
    });
    Ok(profiles)
}

fn read(path: &Path) -> Result<Profile> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let profile: Profile = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no profile of copper's", path.display()))?;
    if profile.version != VERSION {
        bail!(
            "{} was written by another version of copper; use that one",
            path.display()
        );
    }
    Ok(profile)
}

/// The JSON files that nodes wrote into the directory, or into `final` in it. Helpers of a job that
/// was stopped just now may still be writing; they are waited for.
fn files_of_nodes(directory: &Path) -> Result<Vec<PathBuf>> {
    let until = Instant::now() + WRITING_TIME;
    loop {
        let files = files_now(directory)?;
        let shape = read(&files[0])?.shape;
        let all = shape.map_or(1, |shape| shape.nodes as usize);
        if files.len() >= all || Instant::now() >= until {
            return Ok(files);
        }
        std::thread::sleep(PAUSE);
    }
}

fn files_now(directory: &Path) -> Result<Vec<PathBuf>> {
    let last = directory.join(FINAL);
    let place = if last.is_dir() { &last } else { directory };
    let entries = fs::read_dir(place)
        .with_context(|| format!("cannot read the profile in {}", place.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(&format!("-{JSON}")) && !name.starts_with('.')
        })
        .collect();
    files.sort();
    if files.is_empty() {
        bail!(
            "there is no profile in {}: was the job started with --profile, and has it been \
             stopped? (files are written when the helpers end, or every --profile-interval)",
            directory.display()
        );
    }
    Ok(files)
}
