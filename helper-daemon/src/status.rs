//! What `copper status` says.
#![forbid(unsafe_code)]

mod calls;
mod paths;

pub(crate) use calls::{Calls, FamilyCalls, Saved, Served, SlowNode};
pub(crate) use paths::{Directory, HotCalls, NamedPaths, about};

use crate::size::show;
use copper_core::tree::Counters;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The state of a helper; the same as JSON for programs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Status {
    /// Process id.
    pub(crate) pid: u32,
    /// Version of the helper.
    pub(crate) version: String,
    /// Where every path appears again.
    pub(crate) view: String,
    /// Covered prefixes.
    pub(crate) covered: Vec<String>,
    /// Where helper, shim and command find each other.
    pub(crate) runtime_dir: String,
    /// Where the cached files lie.
    pub(crate) store: String,
    /// What is cached.
    pub(crate) cached: Cached,
    /// What it takes.
    pub(crate) memory: Memory,
    /// How much was asked of the helper.
    pub(crate) asked: AskedCounts,
    /// How much was asked of the origin.
    pub(crate) origin: OriginCounts,
    /// What programs of this node asked of the shim.
    #[serde(default)]
    pub(crate) calls: Calls,
    /// Paths that stand out.
    #[serde(default)]
    pub(crate) paths: NamedPaths,
    /// What that saved the origin.
    #[serde(default)]
    pub(crate) saved: Saved,
    /// What the helper did.
    #[serde(default)]
    pub(crate) served: Served,
    /// Files that had to go for others.
    pub(crate) evictions: u64,
    /// Files that were fetched before a program asked for them.
    #[serde(default)]
    pub(crate) read_ahead: u64,
    /// Age of the helper.
    pub(crate) uptime_seconds: u64,
    /// The other helpers, where the job has several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peers: Option<PeersStatus>,
}

/// How the helper and the others of its job get on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct PeersStatus {
    /// This helper's rank.
    pub(crate) rank: u32,
    /// Nodes of the job.
    pub(crate) nodes: u32,
    /// The libfabric provider, and the interfaces in use.
    pub(crate) provider: String,
    /// Helpers that this one is connected with.
    pub(crate) connected: u64,
    /// Messages from them.
    pub(crate) messages_received: u64,
    /// Messages to them.
    pub(crate) messages_sent: u64,
    /// Messages that could not leave in time.
    pub(crate) messages_expired: u64,
    /// Frames that were not believed.
    pub(crate) frames_rejected: u64,
    /// Bytes of files fetched from them.
    pub(crate) bytes_fetched: u64,
}

/// How all helpers of a job are, as JSON for programs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Survey {
    /// Nodes of the job.
    pub(crate) nodes: u32,
    /// Trees that they form.
    pub(crate) trees: u16,
    /// Children of a node in a tree.
    pub(crate) fan_out: u32,
    /// Hops from a root to the farthest node.
    pub(crate) depth: u32,
    /// Nodes that answered.
    pub(crate) reached: u32,
    /// Those that are ready.
    pub(crate) ready: u32,
    /// Ranks of those that did not answer, as far as they were named.
    pub(crate) missing: Vec<u32>,
    /// How many more did not.
    pub(crate) unnamed: u32,
    /// What all of them have counted.
    pub(crate) counters: Counters,
    /// What programs asked of the shim on all nodes.
    pub(crate) calls: Calls,
    /// What that saved the origin.
    pub(crate) saved: Saved,
    /// What the helpers did.
    pub(crate) served: Served,
    /// How much was asked of the origin.
    pub(crate) origin: OriginCounts,
    /// What is cached, each node's counted.
    pub(crate) cached: Cached,
    /// What it takes.
    pub(crate) memory: Memory,
    /// Questions of programs and commands to their helpers.
    pub(crate) questions: u64,
    /// Of these, those that only the origin could answer.
    pub(crate) passed_through: u64,
    /// The nodes whose programs wait longest for their helper.
    pub(crate) slowest: Vec<SlowNode>,
    /// Paths that stand out, of all nodes.
    pub(crate) paths: NamedPaths,
    /// Controls of all nodes that helpers have not carried out yet.
    pub(crate) controls_pending: u64,
    /// Controls of all nodes that helpers could not carry out.
    pub(crate) controls_failed: u64,
    /// How long it took to ask.
    pub(crate) seconds: f64,
}

/// How all helpers of a job ended, as JSON for programs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Stopped {
    /// Nodes of the job.
    pub(crate) nodes: u32,
    /// Those whose helpers have ended.
    pub(crate) ended: u32,
    /// Ranks of those that were lost, as far as they were named.
    pub(crate) lost: Vec<u32>,
}

/// What is cached.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Cached {
    /// Files in the store.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Directories known whole.
    pub(crate) directories: u64,
    /// Paths known, the absent ones included.
    pub(crate) entries: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Memory {
    /// Of the store's files.
    pub(crate) store_bytes: u64,
    /// Of the catalog.
    pub(crate) catalog_bytes: u64,
    /// Of the helper's process, its part of the catalog included.
    pub(crate) resident_bytes: u64,
    /// What the store's files may take.
    pub(crate) budget_bytes: u64,
}

/// Questions of clients.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct AskedCounts {
    /// All of them.
    pub(crate) total: u64,
    /// Paths to resolve.
    pub(crate) entries: u64,
    /// Directories to list.
    pub(crate) directories: u64,
    /// Files to store.
    pub(crate) contents: u64,
    /// Libraries to store with what they need.
    pub(crate) closures: u64,
    /// Changes and refreshes.
    pub(crate) invalidations: u64,
    /// Questions that only the origin could answer.
    pub(crate) passed_through: u64,
}

/// Operations on the origin.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct OriginCounts {
    /// Attributes read.
    pub(crate) stats: u64,
    /// Directories listed.
    pub(crate) listings: u64,
    /// Files opened.
    pub(crate) opens: u64,
    /// Bytes read.
    pub(crate) bytes_read: u64,
    /// Links read.
    pub(crate) readlinks: u64,
}

impl Status {
    /// The same for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        let covered = if self.covered.is_empty() {
            "nothing but the view".to_owned()
        } else {
            self.covered.join(", ")
        };
        let lines = [
            format!(
                "copper {}, pid {}, up {} s",
                self.version, self.pid, self.uptime_seconds
            ),
            format!("view      {}", self.view),
            format!("covered   {covered}"),
            format!(
                "cached    {} files ({}), {} directories, {} paths; {} evicted",
                self.cached.files,
                show(self.cached.bytes),
                self.cached.directories,
                self.cached.entries,
                self.evictions
            ),
            format!(
                "memory    store {} of {}, catalog {}, helper {}",
                show(self.memory.store_bytes),
                show(self.memory.budget_bytes),
                show(self.memory.catalog_bytes),
                show(self.memory.resident_bytes)
            ),
            format!(
                "asked     {} ({} paths, {} listings, {} files, {} libraries, {} changes); \
                 {} left to the origin",
                self.asked.total,
                self.asked.entries,
                self.asked.directories,
                self.asked.contents,
                self.asked.closures,
                self.asked.invalidations,
                self.asked.passed_through
            ),
            format!(
                "origin    {} stats, {} listings, {} opens, {} links, {} read; {} files read ahead",
                self.origin.stats,
                self.origin.listings,
                self.origin.opens,
                self.origin.readlinks,
                show(self.origin.bytes_read),
                self.read_ahead
            ),
            self.calls.describe(&self.saved),
            self.paths.describe(),
            self.served.describe(),
            self.describe_peers(),
            format!("store     {}", self.store),
            format!("runtime   {}", self.runtime_dir),
        ];
        for line in lines.iter().filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn describe_peers(&self) -> String {
        let Some(peers) = &self.peers else {
            return String::new();
        };
        format!(
            "peers     rank {} of {}, {} connected over {}; {} messages in, {} out, {} lost, \
             {} frames refused, {} fetched",
            peers.rank,
            peers.nodes,
            peers.connected,
            peers.provider,
            peers.messages_received,
            peers.messages_sent,
            peers.messages_expired,
            peers.frames_rejected,
            show(peers.bytes_fetched)
        )
    }
}
