//! The helper's status as a text file in Prometheus' exposition format, for node_exporter's
//! textfile collector.
//!
//! A thread asks the helper as any command does and puts the file in place whole, so nobody ever
//! reads half of one. The event loop does not know of it, and never waits for that file system.
#![forbid(unsafe_code)]

use crate::commands::ask_status;
use crate::runtime::Runtime;
use crate::runtime::of_this_host;
use crate::status::Status;
use anyhow::{Context, Result};
use std::fmt::{Display, Write};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two files.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the helper looks, as it ends, whether the file can be removed.
const TRIES: u32 = 500;

/// The file, written until this is dropped, and then removed.
pub(crate) struct MetricsFile {
    path: PathBuf,
    /// Whether it has been removed for good.
    ended: Arc<Mutex<bool>>,
}

impl MetricsFile {
    /// Begins to write the file.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(crate) fn begin(path: &Path, runtime: &Runtime) -> Result<MetricsFile> {
        let path = of_this_host(path);
        let ended = Arc::new(Mutex::new(false));
        let (file, over, runtime) = (path.clone(), ended.clone(), runtime.clone());
        let go_on = move || {
            let mut complained = false;
            while let Ok(Some((status, _))) = ask_status(&runtime) {
                let over = over.lock().unwrap_or_else(PoisonError::into_inner);
                if *over {
                    return;
                }
                if let Err(error) = put(&file, &exposition(&status))
                    && !std::mem::replace(&mut complained, true)
                {
                    tracing::warn!("{error:#}");
                }
                drop(over);
                std::thread::sleep(PAUSE);
            }
        };
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(go_on)
            .context("cannot make a thread")?;
        Ok(MetricsFile { path, ended })
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        // A write that hangs must not keep the helper from ending.
        for _ in 0..TRIES {
            if let Ok(mut ended) = self.ended.try_lock() {
                *ended = true;
                let _ = fs::remove_file(&self.path);
                return;
            }
            std::thread::sleep(PAUSE / TRIES);
        }
    }
}

/// Puts the file in place of the last one, at once.
fn put(path: &Path, text: &str) -> Result<()> {
    // The collector reads files by their ending alone.
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&aside, text)
        .and_then(|()| fs::rename(&aside, path))
        .with_context(|| {
            let _ = fs::remove_file(&aside);
            format!("cannot write the metrics to {}", path.display())
        })
}

/// Metrics in the order in which they are written.
struct Text(String);

impl Text {
    /// Begins a metric.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of the metric, with labels, whose values hold nothing that must be escaped.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    /// A metric with one value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A metric with a value for each value of one label.
    fn labelled(&mut self, name: &str, kind: &str, help: &str, label: &str, of: &[(&str, u64)]) {
        self.metric(name, kind, help);
        for (text, value) in of {
            self.sample(name, &[(label, text)], value);
        }
    }
}

/// The status in the exposition format.
fn exposition(status: &Status) -> String {
    let mut text = Text(String::new());
    text.metric("copper_info", "gauge", "Version of the helper.");
    text.sample("copper_info", &[("version", &status.version)], 1);
    let uptime = status.uptime_seconds;
    text.single(
        "copper_uptime_seconds",
        "gauge",
        "Age of the helper.",
        uptime,
    );
    add_calls(&mut text, status);
    add_waits(&mut text, status);
    add_stock(&mut text, status);
    add_service(&mut text, status);
    text.0
}

fn add_calls(text: &mut Text, status: &Status) {
    let calls = &status.calls;
    let name = "copper_calls_total";
    text.metric(
        name,
        "counter",
        "Calls of programs by how they were answered.",
    );
    for (family, of) in &calls.families {
        let answered = [("hit", of.hit), ("absent", of.absent), ("asked", of.asked)];
        let passed = of.passed.iter().map(|(why, &calls)| (why.as_str(), calls));
        for (outcome, value) in answered.into_iter().chain(passed) {
            text.sample(name, &[("family", family), ("outcome", outcome)], value);
        }
    }
    let help = "Sizes of the files that programs opened in the store.";
    text.single(
        "copper_served_bytes_total",
        "counter",
        help,
        calls.bytes_served,
    );
    let help = "Programs that were counted.";
    text.single("copper_processes_total", "counter", help, calls.processes);
    let help = "Programs that run.";
    text.single("copper_processes_running", "gauge", help, calls.running);
}

fn add_waits(text: &mut Text, status: &Status) {
    let calls = &status.calls;
    let name = "copper_wait_seconds";
    text.metric(name, "histogram", "Waits of programs for the helper.");
    let bucket = format!("{name}_bucket");
    let mut sum = 0_u64;
    for (at, waits) in calls.waits.iter().enumerate() {
        sum = sum.saturating_add(*waits);
        if at + 1 < calls.waits.len() {
            let limit = (2_u64 << at) as f64 / 1e6;
            text.sample(&bucket, &[("le", &limit.to_string())], sum);
        }
    }
    text.sample(&bucket, &[("le", "+Inf")], sum);
    text.sample(&format!("{name}_sum"), &[], calls.waited() as f64 / 1e6);
    text.sample(&format!("{name}_count"), &[], sum);
}

fn add_stock(text: &mut Text, status: &Status) {
    let (cached, memory) = (&status.cached, &status.memory);
    text.labelled(
        "copper_cached",
        "gauge",
        "What is cached.",
        "kind",
        &[
            ("files", cached.files),
            ("directories", cached.directories),
            ("paths", cached.entries),
        ],
    );
    text.single(
        "copper_cached_bytes",
        "gauge",
        "Bytes of the cached files.",
        cached.bytes,
    );
    text.labelled(
        "copper_memory_bytes",
        "gauge",
        "Memory in use, and what the store may take.",
        "part",
        &[
            ("store", memory.store_bytes),
            ("catalog", memory.catalog_bytes),
            ("helper", memory.resident_bytes),
            ("budget", memory.budget_bytes),
        ],
    );
    let help = "Files that had to go for others.";
    text.single("copper_evictions_total", "counter", help, status.evictions);
}

fn add_service(text: &mut Text, status: &Status) {
    let (served, origin) = (&status.served, &status.origin);
    text.labelled(
        "copper_origin_operations_total",
        "counter",
        "Operations of the helper on the origin.",
        "operation",
        &[
            ("stat", origin.stats),
            ("list", origin.listings),
            ("open", origin.opens),
            ("readlink", origin.readlinks),
        ],
    );
    text.labelled(
        "copper_received_bytes_total",
        "counter",
        "Bytes that came to this node, by where from.",
        "from",
        &[
            ("origin", served.bytes_from_origin),
            ("tree", served.bytes_from_tree),
        ],
    );
    text.labelled(
        "copper_tree_requests_total",
        "counter",
        "Requests to helpers above and of helpers below.",
        "direction",
        &[("up", served.requests_up), ("down", served.requests_down)],
    );
    let counts = [
        (
            "copper_coalesced_total",
            "Requests that joined one under way.",
            served.coalesced,
        ),
        (
            "copper_retries_total",
            "Requests that were sent again.",
            served.retries,
        ),
        (
            "copper_reparentings_total",
            "How often another helper took the place of a lost one.",
            served.reparentings,
        ),
        (
            "copper_origin_errors_total",
            "Passing errors of the origin.",
            served.errors,
        ),
        (
            "copper_questions_total",
            "Questions of programs to the helper.",
            status.asked.total,
        ),
    ];
    for (name, help, value) in counts {
        text.single(name, "counter", help, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Calls;
    use copper_core::counters::{Family, Outcome, Totals};
    use std::collections::{HashMap, HashSet};

    fn sample() -> Status {
        let mut totals = Totals {
            processes: 2,
            ..Totals::default()
        };
        totals.calls[Family::Open as usize][Outcome::Hit as usize] = 41;
        totals.calls[Family::Stat as usize][Outcome::TooLarge as usize] = 3;
        totals.waits[5] = 2;
        totals.waits[31] = 1;
        totals.waited[2] = 2_500_000;
        Status {
            version: "1.2.3".to_owned(),
            calls: Calls::of(&totals),
            ..Status::default()
        }
    }

    /// The samples by their text up to the value; fails where the format is not kept.
    fn parse(text: &str) -> HashMap<String, f64> {
        let is_name = |name: &str| {
            let mut letters = name.chars();
            letters
                .next()
                .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        };
        let (mut types, mut helps) = (HashMap::new(), HashSet::new());
        let mut samples = HashMap::new();
        assert!(text.ends_with('\n'), "the last line ends as all do");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, _) = help.split_once(' ').expect("a text");
                assert!(helps.insert(name.to_owned()), "{name} is explained twice");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none());
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap_or_default();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let base = name.strip_suffix(end)?;
                (types.get(base).map(String::as_str) == Some("histogram")).then_some(base)
            });
            assert!(
                types.contains_key(base.unwrap_or(name)),
                "{name} has no type"
            );
            assert!(is_name(name), "{name}");
            if let Some((_, labels)) = series.split_once('{') {
                for label in labels.strip_suffix('}').expect("closed").split(',') {
                    let (label, value) = label.split_once('=').expect("a label's value");
                    assert!(is_name(label), "{line}");
                    let value = value
                        .strip_prefix('"')
                        .and_then(|text| text.strip_suffix('"'));
                    assert!(
                        value.is_some_and(|text| !text.contains(['"', '\\'])),
                        "{line}"
                    );
                }
            }
            let value = value.parse().expect("a number");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "{series} twice"
            );
        }
        samples
    }

    #[test]
    fn the_exposition_is_well_formed_and_says_what_status_says() {
        let samples = parse(&exposition(&sample()));
        let value = |series: &str| samples.get(series).copied();
        assert_eq!(value("copper_info{version=\"1.2.3\"}"), Some(1.0));
        let hits = "copper_calls_total{family=\"open\",outcome=\"hit\"}";
        assert_eq!(value(hits), Some(41.0));
        let too_large = "copper_calls_total{family=\"stat\",outcome=\"too_large\"}";
        assert_eq!(value(too_large), Some(3.0));
        assert_eq!(value("copper_processes_total"), Some(2.0));
    }

    #[test]
    fn the_buckets_of_waits_add_up() {
        let samples = parse(&exposition(&sample()));
        let bucket =
            |limit: &str| samples[&format!("copper_wait_seconds_bucket{{le=\"{limit}\"}}")];
        assert_eq!(bucket("0.000032"), 0.0);
        assert_eq!(bucket("0.000064"), 2.0);
        assert_eq!(bucket("+Inf"), 3.0);
        assert_eq!(samples["copper_wait_seconds_count"], 3.0);
        assert_eq!(samples["copper_wait_seconds_sum"], 2.5);
    }

    #[test]
    fn the_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copper.prom");
        for text in ["one\n", "two\n"] {
            put(&path, text).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1);
        assert!(put(&directory.path().join("none/copper.prom"), "").is_err());
    }
}
