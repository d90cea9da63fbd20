//! The tables of a profile, with the names and columns of Copper's, as CSV and as Markdown.
#![forbid(unsafe_code)]

use super::Profile;
use crate::calls::{Ends, counted};
use crate::journal::{Excerpt, HotPath, Obtained, Questions, Source, What};
use crate::status::{Calls, about};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Paths of each kind in a summary where only sums are wanted.
const SHOWN: usize = 10;

/// One row of `profiling_operations.csv`.
#[derive(Clone, Copy, Debug, Default)]
struct Operation {
    calls: u64,
    hits: u64,
    misses: u64,
    negative: u64,
    took_us: u64,
}

/// One row of `profiling_top_paths.csv`.
#[derive(Clone, Debug)]
struct Path {
    events: u64,
    /// Answered at once: an estimate where calls were noted, else what the helper was asked for and
    /// knew.
    hits: u64,
    misses: u64,
    negative: u64,
    /// These are estimates.
    is_estimate: bool,
    obtained: Obtained,
}

/// The tables of one node, or of several that were added.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    operations: BTreeMap<String, Operation>,
    /// By category and path.
    paths: HashMap<(&'static str, String), Path>,
    absences: u64,
    absences_served: u64,
    bytes_from_origin: u64,
    bytes_from_tree: u64,
    left_out: u64,
}

/// Which operation of Copper's a family of calls is, and which questions it leads to.
fn operation_of(family: &str) -> &str {
    match family {
        "stat" => "getattr",
        "list" => "readdir",
        other => other,
    }
}

fn category(what: What) -> &'static str {
    match what {
        What::Entry => "metadata",
        What::File => "data",
        What::Directory => "tree",
    }
}

impl Tables {
    /// The tables of one node.
    pub(super) fn of(profile: &Profile) -> Tables {
        let journal = &profile.journal;
        let mut tables = Tables {
            absences: journal.absent,
            bytes_from_origin: journal.from_origin.bytes,
            bytes_from_tree: journal.from_tree.bytes,
            left_out: journal.left_out,
            ..Tables::default()
        };
        match counted(&profile.status) {
            Some(calls) => tables.add_calls(&calls),
            None => tables.add_questions(journal),
        }
        tables.add_waits(journal);
        for obtained in &journal.obtained {
            tables.add_path(obtained);
        }
        for hot in &journal.hot {
            tables.add_hot(hot);
        }
        tables
    }

    fn add_calls(&mut self, calls: &Calls) {
        for (family, outcomes) in &calls.families {
            let row = self.operations.entry(operation_of(family).to_owned());
            let row = row.or_default();
            let ends = Ends::of(outcomes);
            row.calls += ends.covered();
            row.hits += ends.hit;
            row.misses += ends.asked + ends.escaped;
            row.negative += ends.absent;
            self.absences_served += ends.absent;
        }
    }

    /// Where programs' calls are not counted, the questions that reached the helper.
    fn add_questions(&mut self, journal: &Excerpt) {
        for (name, questions) in named(journal) {
            let row = self.operations.entry(name.to_owned()).or_default();
            row.calls += questions.asked;
            row.hits += questions.at_once;
            row.misses += questions.asked - questions.at_once.min(questions.asked);
        }
    }

    fn add_waits(&mut self, journal: &Excerpt) {
        for (name, questions) in named(journal) {
            let row = self.operations.entry(name.to_owned()).or_default();
            row.took_us += questions.took_us;
        }
    }

    fn add_path(&mut self, obtained: &Obtained) {
        let asked = u64::from(obtained.asked);
        let misses = u64::from(obtained.times);
        let negative = if obtained.absent { asked } else { 0 };
        let key = (category(obtained.what), obtained.path.clone());
        let events = asked.max(misses);
        let row = Path {
            events,
            hits: events - misses,
            misses,
            negative,
            is_estimate: false,
            obtained: obtained.clone(),
        };
        self.paths
            .entry(key)
            .and_modify(|known| known.add(&row))
            .or_insert(row);
    }

    /// Adds estimates of what programs asked for and nobody else was told.
    fn add_hot(&mut self, hot: &HotPath) {
        let at_once = hot.hits + hot.absent;
        if at_once == 0 {
            return;
        }
        let obtained = Obtained {
            path: hot.path.clone(),
            what: hot.what,
            from: Source::Tree,
            asked_at_ms: f64::INFINITY,
            took_ms: 0.0,
            bytes: 0,
            asked: 0,
            times: 0,
            absent: hot.hits == 0,
        };
        let row = Path {
            events: at_once,
            hits: at_once,
            misses: 0,
            negative: hot.absent,
            is_estimate: true,
            obtained,
        };
        self.paths
            .entry((category(hot.what), hot.path.clone()))
            .and_modify(|known| known.add(&row))
            .or_insert(row);
    }

    /// Adds another node's tables.
    pub(super) fn add(&mut self, other: Tables) {
        for (name, one) in other.operations {
            let sum = self.operations.entry(name).or_default();
            sum.calls += one.calls;
            sum.hits += one.hits;
            sum.misses += one.misses;
            sum.negative += one.negative;
            sum.took_us += one.took_us;
        }
        for (key, row) in other.paths {
            self.paths
                .entry(key)
                .and_modify(|known| known.add(&row))
                .or_insert(row);
        }
        self.absences += other.absences;
        self.absences_served += other.absences_served;
        self.bytes_from_origin += other.bytes_from_origin;
        self.bytes_from_tree += other.bytes_from_tree;
        self.left_out += other.left_out;
    }

    fn total(&self) -> Operation {
        let mut total = Operation::default();
        for one in self.operations.values() {
            total.calls += one.calls;
            total.hits += one.hits;
            total.misses += one.misses;
            total.negative += one.negative;
            total.took_us += one.took_us;
        }
        total
    }

    /// The sums, by Copper's names, then those that only this Copper has.
    fn aggregate(&self) -> Vec<(&'static str, String)> {
        let total = self.total();
        let saved = total.hits + total.negative;
        let seconds = format!("{:.6}", total.took_us as f64 / 1e6);
        let counts = [
            ("total_counted_fuse_operations", total.calls),
            ("total_cache_hits", total.hits),
            ("total_cache_misses", total.misses),
            ("total_negative_results", total.negative),
            ("estimated_cache_served_operations_saved_by_copper", saved),
            ("metadata_enoent_ttl_stores", self.absences),
            ("metadata_enoent_ttl_serves", self.absences_served),
            ("metadata_enoent_ttl_expires", 0),
            ("metadata_enoent_ttl_clears_on_success_or_non_enoent", 0),
            (
                "estimated_repeated_metadata_lookups_avoided_by_ttl",
                self.absences_served,
            ),
        ];
        let own = [
            ("bytes_from_origin", self.bytes_from_origin),
            ("bytes_from_tree", self.bytes_from_tree),
        ];
        let text = |(name, count): (&'static str, u64)| (name, count.to_string());
        let mut rows: Vec<_> = counts.into_iter().map(text).collect();
        rows.push(("total_measured_latency_seconds", seconds));
        rows.extend(own.into_iter().map(text));
        rows
    }

    /// `profiling_aggregate.csv`.
    pub(super) fn aggregate_csv(&self) -> Result<Vec<u8>> {
        let rows = self.aggregate();
        let rows = rows
            .iter()
            .map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
        csv(&["metric", "value"], rows)
    }

    fn operation_rows(&self) -> Vec<Vec<String>> {
        let row = |(name, one): (&String, &Operation)| {
            let average = one.took_us as f64 / one.calls.max(1) as f64;
            vec![
                name.clone(),
                one.calls.to_string(),
                one.hits.to_string(),
                one.misses.to_string(),
                one.negative.to_string(),
                format!("{average:.2}"),
                format!("{:.6}", one.took_us as f64 / 1e6),
            ]
        };
        let used = |(_, one): &(&String, &Operation)| one.calls > 0;
        self.operations.iter().filter(used).map(row).collect()
    }

    /// `profiling_operations.csv`.
    pub(super) fn operations_csv(&self) -> Result<Vec<u8>> {
        let columns = [
            "operation",
            "total_calls",
            "cache_hits",
            "cache_misses",
            "negative_results",
            "avg_latency_us",
            "total_latency_s",
        ];
        csv(&columns, self.operation_rows().into_iter())
    }

    /// The rows of one category, the most asked for first, of these the slowest.
    fn paths_of(&self, category: &str, most: usize) -> Vec<&Path> {
        let mut rows: Vec<&Path> = self
            .paths
            .iter()
            .filter(|((of, _), row)| *of == category && row.events > 0)
            .map(|(_, row)| row)
            .collect();
        rows.sort_by(|one, other| {
            let events = other.events.cmp(&one.events);
            let slower = other.obtained.took_ms.total_cmp(&one.obtained.took_ms);
            let names = one.obtained.path.cmp(&other.obtained.path);
            events.then(slower).then(names)
        });
        rows.truncate(most);
        rows
    }

    /// `profiling_top_paths.csv`: Copper's columns, then when a path was first asked for, how long
    /// it took at most, its bytes and where it came from.
    pub(super) fn paths_csv(&self, most: Option<usize>) -> Result<Vec<u8>> {
        let columns = [
            "category",
            "path",
            "total_events",
            "cache_hits",
            "cache_misses",
            "negative_results",
            "ttl_stores",
            "ttl_serves",
            "ttl_expires",
            "ttl_clears",
            "first_asked_ms",
            "took_ms",
            "bytes",
            "source",
        ];
        let most = most.unwrap_or(SHOWN);
        let mut rows = Vec::new();
        for category in ["metadata", "data", "tree"] {
            let paths = self.paths_of(category, most);
            rows.extend(paths.into_iter().map(|path| path.row(category)));
        }
        let absent = self.paths_of("metadata", usize::MAX).into_iter();
        let absent = absent.filter(|path| path.obtained.absent).take(most);
        rows.extend(absent.map(|path| path.row("metadata_ttl")));
        csv(&columns, rows.into_iter())
    }

    /// `profiling_summary.md`.
    pub(super) fn summary(&self, title: &str, notes: &[String], listed: Option<usize>) -> String {
        let mut text = format!("# {title}\n\n");
        for note in notes {
            let _ = writeln!(text, "{note}");
        }
        if !notes.is_empty() {
            text.push('\n');
        }
        text += "## Sums\n\n";
        let sums = self.aggregate().into_iter();
        let sums = sums.map(|(name, value)| vec![format!("`{name}`"), value]);
        text += &table(&["Metric", "Value"], 1, sums);
        text += "\n## Operations\n\n";
        let columns = [
            "Operation",
            "Total Calls",
            "Cache Hits",
            "Cache Misses",
            "Negative Results",
            "Avg Latency (us)",
            "Total Latency (s)",
        ];
        text += &table(&columns, 1, self.operation_rows().into_iter());
        for (category, name) in [
            ("data", "Files"),
            ("tree", "Directories"),
            ("metadata", "Single names"),
        ] {
            let paths = self.paths_of(category, listed.unwrap_or(SHOWN));
            if paths.is_empty() {
                continue;
            }
            let _ = write!(text, "\n## {name} most asked for\n\n");
            let columns = ["Path", "Events", "Slowest (ms)", "Bytes", "From"];
            let rows = paths.into_iter().map(|path| {
                vec![
                    format!("`{}`", path.obtained.path.replace('|', "\\|")),
                    match path.is_estimate {
                        true => format!("about {}", about(path.events)),
                        false => path.events.to_string(),
                    },
                    format!("{:.1}", path.obtained.took_ms),
                    path.obtained.bytes.to_string(),
                    source(&path.obtained).to_owned(),
                ]
            });
            text += &table(&columns, 1, rows);
        }
        if self.left_out > 0 {
            let more = self.left_out;
            let _ = write!(text, "\n{more} more objects are counted but not listed.\n");
        }
        text
    }
}

impl Path {
    fn add(&mut self, other: &Path) {
        self.events += other.events;
        self.hits += other.hits;
        self.misses += other.misses;
        self.negative += other.negative;
        self.is_estimate |= other.is_estimate;
        let (own, other) = (&mut self.obtained, &other.obtained);
        own.took_ms = own.took_ms.max(other.took_ms);
        own.asked_at_ms = own.asked_at_ms.min(other.asked_at_ms);
        own.bytes = own.bytes.max(other.bytes);
        // Who obtained it knows better than who only noted calls.
        own.absent = match (own.times, other.times) {
            (0, 0) => own.absent && other.absent,
            (0, _) => other.absent,
            (_, 0) => own.absent,
            _ => own.absent || other.absent,
        };
        own.times = own.times.saturating_add(other.times);
        if other.from == Source::Origin {
            own.from = Source::Origin;
        }
    }

    fn row(&self, category: &str) -> Vec<String> {
        let of_ttl = category == "metadata_ttl";
        let count = |shown: bool, number: u64| if shown { number } else { 0 }.to_string();
        let (obtained, hits) = (&self.obtained, self.hits);
        let asked_at = obtained.asked_at_ms;
        vec![
            category.to_owned(),
            obtained.path.clone(),
            self.events.to_string(),
            count(!of_ttl && !obtained.absent, hits),
            count(!of_ttl, self.misses),
            count(!of_ttl, self.negative),
            count(of_ttl, self.misses),
            count(of_ttl, hits),
            "0".to_owned(),
            "0".to_owned(),
            match asked_at.is_finite() {
                true => format!("{asked_at:.3}"),
                false => String::new(),
            },
            format!("{:.3}", obtained.took_ms),
            obtained.bytes.to_string(),
            source(obtained).to_owned(),
        ]
    }
}

fn source(obtained: &Obtained) -> &'static str {
    match obtained.from {
        _ if obtained.times == 0 => "memory",
        Source::Origin => "origin",
        Source::Tree => "tree",
    }
}

/// The questions that reached the helper, by the operation that leads to them.
fn named(journal: &Excerpt) -> [(&'static str, Questions); 5] {
    let questions = journal.questions;
    [
        ("getattr", questions.resolve),
        ("readdir", questions.list),
        ("open", questions.content),
        ("dlopen", questions.closure),
        ("change", questions.change),
    ]
}

fn csv(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns)?;
    for row in rows {
        writer.write_record(row)?;
    }
    writer.into_inner().context("cannot write a table")
}

/// A table in Markdown; the first `left` columns are text, the others numbers.
fn table(columns: &[&str], left: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|", columns.join(" | "));
    for column in 0..columns.len() {
        text += if column < left { "---|" } else { "---:|" };
    }
    text.push('\n');
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obtained(path: &str, absent: bool) -> Obtained {
        Obtained {
            path: path.to_owned(),
            what: What::File,
            from: Source::Origin,
            asked_at_ms: 5.0,
            took_ms: 2.0,
            bytes: 10,
            asked: 3,
            times: 1,
            absent,
        }
    }

    fn hot(path: &str, hits: u64, absent: u64) -> HotPath {
        HotPath {
            path: path.to_owned(),
            what: What::File,
            hits,
            absent,
            ..HotPath::default()
        }
    }

    #[test]
    fn what_was_answered_from_memory_is_among_the_paths() {
        let mut tables = Tables::default();
        tables.add_path(&obtained("/read", false));
        tables.add_hot(&hot("/read", 640, 0));
        tables.add_hot(&hot("/none", 0, 128));
        let rows = |tables: &Tables| String::from_utf8(tables.paths_csv(None).unwrap()).unwrap();
        let text = rows(&tables);
        assert!(text.contains("\ndata,/read,643,642,1,0,"), "{text}");
        assert!(text.contains(",5.000,2.000,10,origin\n"), "{text}");
        assert!(text.contains("\ndata,/none,128,0,0,128,"), "{text}");
        assert!(text.contains(",,0.000,0,memory\n"), "{text}");
        let summary = tables.summary("title", &[], None);
        assert!(summary.contains("| `/read` | about 640 |"), "{summary}");
    }

    #[test]
    fn who_obtained_a_path_knows_whether_it_is_there() {
        let mut one = Tables::default();
        one.add_hot(&hot("/late", 0, 64));
        let mut other = Tables::default();
        other.add_path(&obtained("/late", false));
        one.add(other);
        let path = &one.paths[&("data", "/late".to_owned())];
        assert!(!path.obtained.absent);
        assert_eq!((path.events, path.negative), (67, 64));
    }
}
