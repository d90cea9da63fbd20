//! Questions about all helpers of a job, which this node's helper answers through the tree.
#![forbid(unsafe_code)]

use crate::client::connect;
use crate::job::Job;
use crate::runtime::Runtime;
use crate::size::show;
use crate::status::{SlowNode, Stopped, Survey};
use anyhow::{Context, Result, ensure};
use copper_core::request::Operation;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two questions whether all are ready.
const PAUSE: Duration = Duration::from_millis(100);
/// The helper has so long to ask the others however late it is, in seconds.
const SHORTEST_WAIT: f64 = 0.5;
/// Long enough for a helper to give up those that are silent, in seconds.
const ABSENT_WAIT: f64 = 5.0;

/// Asks all helpers how they are; waits up to `seconds` for their answers. The answer is the JSON
/// of a [`Survey`].
pub(crate) fn ask_now(runtime: &Runtime, seconds: u32) -> Result<Vec<u8>> {
    ask(runtime, &format!("now {seconds}"), &|| Ok(()))
}

/// For whom and how long to wait.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    /// Until when.
    pub(crate) deadline: Instant,
    /// Set by a signal.
    pub(crate) interrupted: &'a AtomicBool,
    /// Nodes that will not come.
    pub(crate) absent: HashSet<u32>,
}

impl Wait<'_> {
    fn is_enough(&self, survey: &Survey) -> bool {
        survey.all_ready()
            || survey.unnamed == 0
                && survey.ready as usize + survey.missing.len() == survey.nodes as usize
                && survey.missing.iter().all(|rank| self.absent.contains(rank))
    }

    fn question(&self, left: Duration) -> String {
        // For nodes that are absent a helper waits as long as it may until they are ready.
        match self.absent.is_empty() {
            true => format!("ready {:.3}", left.as_secs_f64().max(SHORTEST_WAIT)),
            false => format!("now {ABSENT_WAIT}"),
        }
    }
}

/// Waits until all helpers are ready, or the deadline has come, or a signal. A helper may answer
/// before either: it waits for a bounded time, and may take one for lost that is yet to come.
pub(crate) fn until_ready(runtime: &Runtime, wait: &Wait<'_>) -> Result<Survey> {
    let go_on = || {
        ensure!(!wait.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    };
    loop {
        let left = wait.deadline.saturating_duration_since(Instant::now());
        let survey = parse(&ask(runtime, &wait.question(left), &go_on)?)?;
        if wait.is_enough(&survey) || left <= PAUSE {
            return Ok(survey);
        }
        go_on()?;
        std::thread::sleep(PAUSE);
    }
}

fn ask(runtime: &Runtime, question: &str, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<u8>> {
    let connection = connect(runtime)?.context(super::NO_HELPER)?;
    connection
        .ask_while(Operation::Survey, question.as_bytes(), go_on)?
        .context("this node's helper has ended; see its log (--log FILE --log-level debug)")
}

/// Reads the helper's answer.
pub(crate) fn parse(body: &[u8]) -> Result<Survey> {
    serde_json::from_slice(body)
        .context("the helper's answer cannot be read; is it of another version?")
}

/// Ends all helpers of the job; `None` where this node's was ending already.
pub(crate) fn stop_all(runtime: &Runtime) -> Result<Option<Stopped>> {
    let Some(connection) = connect(runtime)? else {
        return Ok(None);
    };
    let Some(body) = connection.ask(Operation::StopAll, b"")? else {
        return Ok(None);
    };
    let stopped = serde_json::from_slice(&body)
        .context("the helper's answer cannot be read; is it of another version?")?;
    Ok(Some(stopped))
}

/// The names of nodes and how many more there are, for people.
pub(crate) fn list(job: &Job, ranks: &[u32], unnamed: u32) -> String {
    let named = names(job, ranks).join(", ");
    match (ranks.is_empty(), unnamed) {
        (_, 0) => named,
        (true, unnamed) => format!("{unnamed} nodes"),
        (false, unnamed) => format!("{named} and {unnamed} more"),
    }
}

/// The names of nodes.
pub(crate) fn names(job: &Job, ranks: &[u32]) -> Vec<String> {
    let name = |&rank: &u32| match job.hosts.get(rank as usize) {
        Some(host) => host.clone(),
        None => format!("rank {rank}"),
    };
    ranks.iter().map(name).collect()
}

/// The job's trees, in words.
pub(crate) fn shape(job: &Job) -> String {
    let Ok(topology) = job.topology() else {
        return "no tree".to_owned();
    };
    format!(
        "{} tree{} of fan-out {}, depth {}",
        topology.trees(),
        if topology.trees() == 1 { "" } else { "s" },
        job.fan_out,
        topology.depth()
    )
}

impl Stopped {
    /// How many neither ended nor were named as lost.
    pub(crate) fn unnamed(&self) -> u32 {
        let lost = u32::try_from(self.lost.len()).unwrap_or(u32::MAX);
        self.nodes.saturating_sub(self.ended.saturating_add(lost))
    }
}

impl Survey {
    /// Whether every node is ready.
    pub(crate) fn all_ready(&self) -> bool {
        self.missing.is_empty() && self.unnamed == 0 && self.ready == self.nodes
    }

    /// The nodes that did not answer.
    pub(crate) fn missing_names(&self, job: &Job) -> String {
        list(job, &self.missing, self.unnamed)
    }

    /// The survey for people.
    pub(crate) fn describe(&self, job: &Job) -> String {
        let mut text = String::new();
        let counters = &self.counters;
        let missing = match self.missing.is_empty() && self.unnamed == 0 {
            true => "none".to_owned(),
            false => self.missing_names(job),
        };
        let lines = [
            format!(
                "nodes     {} of {} ready, {} reached in {:.2} s",
                self.ready, self.nodes, self.reached, self.seconds
            ),
            format!("missing   {missing}"),
            format!("tree      {}", shape(job)),
            format!(
                "origin    {} looks, {} reads",
                counters.origin_looks, counters.origin_reads
            ),
            format!(
                "asked     {} requests on all nodes, {} of them not answered in time",
                counters.asks, counters.timeouts
            ),
            format!(
                "received  {} objects made known, {} chunks of long files",
                counters.published, counters.chunks
            ),
            format!(
                "faults    {} helpers lost, {} messages dropped, {} refused",
                counters.losses, counters.dropped, counters.refused
            ),
            self.describe_stock(),
            self.calls.describe(&self.saved),
            self.paths.describe(),
            self.served.describe(),
            self.describe_slowest(),
        ];
        for line in lines.iter().filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn describe_stock(&self) -> String {
        format!(
            "cached    {} files ({}), {} directories, {} paths, the sum of all nodes\n\
             memory    stores {}, catalogs {}, helpers {}",
            self.cached.files,
            show(self.cached.bytes),
            self.cached.directories,
            self.cached.entries,
            show(self.memory.store_bytes),
            show(self.memory.catalog_bytes),
            show(self.memory.resident_bytes)
        )
    }

    fn describe_slowest(&self) -> String {
        let slow = |node: &SlowNode| format!("{} ({} us)", node.host, node.mean_microseconds);
        let slowest: Vec<String> = self.slowest.iter().map(slow).collect();
        match slowest.is_empty() {
            true => "slowest   none has waited".to_owned(),
            false => format!("slowest   mean wait on {}", slowest.join(", ")),
        }
    }
}
