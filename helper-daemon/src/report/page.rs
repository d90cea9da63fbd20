//! The report's numbers and tables, and the page that shows them.
#![forbid(unsafe_code)]

use super::advice::{self, Facts};
use super::gather::{Gathered, State};
use super::plots::{self, Plot};
use super::times::{FallRow, StepRow, fall_row, slowest, timeline};
use super::tree::{self, Drawn};
use super::uncovered;
use super::words::{count, ms, several};
use crate::calls::{Ends, add, counted, number};
use crate::journal::{Passed, Source};
use crate::profile::Profile;
use crate::size::show;
use crate::status::{Calls, Directory, HotCalls, NamedPaths, about};
use anyhow::Result;
use askama::Template;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Rows of the table of what was left to the origin.
const MOST_PASSED: usize = 100;
/// Rows of the tables of what programs ask for most.
const MOST_HOT: usize = 16;

/// A number at the top of the page.
pub(super) struct Figure {
    /// What it says.
    pub(super) label: &'static str,
    /// It, for people.
    pub(super) text: String,
    /// More about it.
    pub(super) note: String,
    /// Where it stands in the JSON that it was taken from: `status` or `survey`, and the pointer.
    pub(super) from: String,
    /// As it stands there.
    pub(super) value: u64,
}

/// A row of the nodes' table.
pub(super) struct NodeRow {
    pub(super) rank: u32,
    pub(super) host: String,
    pub(super) ready: bool,
    pub(super) missing: &'static str,
    pub(super) part: String,
    pub(super) start: String,
    pub(super) origin: String,
    pub(super) tree: String,
}

/// A row of the calls' table.
pub(super) struct FamilyRow {
    pub(super) name: String,
    pub(super) covered: String,
    pub(super) hit: String,
    pub(super) absent: String,
    pub(super) asked: String,
    pub(super) escaped: String,
    pub(super) rate: String,
}

/// A row of what was left to the origin.
pub(super) struct PassedRow {
    pub(super) path: String,
    pub(super) why: &'static str,
    pub(super) times: String,
    pub(super) size: String,
}

/// A row of the paths that programs ask for most; calls are estimates.
pub(super) struct HotRow {
    pub(super) path: String,
    pub(super) hit: String,
    pub(super) absent: String,
    pub(super) asked: String,
    pub(super) escaped: String,
}

/// A row of the directories that are not covered.
pub(super) struct UncoveredRow {
    pub(super) path: String,
    pub(super) calls: String,
    pub(super) kinds: String,
}

/// A part of a sentence.
pub(super) struct Part {
    pub(super) text: String,
    /// What a user types, or a name.
    pub(super) is_code: bool,
    /// It is short enough to stand in one line.
    pub(super) is_short: bool,
}

/// Letters that fit into one line of a telephone.
const SHORT: usize = 28;

/// A sentence in which what a user types stands between backquotes.
fn parts_of(sentence: &str) -> Vec<Part> {
    let parts = sentence.split('`').enumerate();
    parts
        .map(|(number, text)| Part {
            text: text.to_owned(),
            is_code: number % 2 == 1,
            is_short: text.len() <= SHORT,
        })
        .collect()
}

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    title: String,
    scope: String,
    version: String,
    covered: String,
    pub(super) advice: Vec<String>,
    advice_parts: Vec<Vec<Part>>,
    figures: Vec<Figure>,
    trees: Vec<Drawn>,
    trees_note: String,
    nodes: Vec<NodeRow>,
    timeline: Option<Plot>,
    timeline_note: String,
    steps: Vec<StepRow>,
    waterfall: Option<Plot>,
    falls: Vec<FallRow>,
    families: Vec<FamilyRow>,
    calls_note: String,
    hot: Vec<HotRow>,
    uncovered: Vec<UncoveredRow>,
    noted_one_in: u64,
    waits: Option<Plot>,
    waits_note: String,
    passed: Vec<PassedRow>,
    passed_note: String,
    data: String,
}

/// Sums of all nodes that said something.
pub(super) struct Sums {
    calls: Option<Calls>,
    passed: Vec<Passed>,
    passed_left_out: u64,
    objects_left_out: u64,
    evictions: u64,
    origin_objects: u64,
    pub(super) first_unix_ms: u64,
    /// Paths that stand out.
    pub(super) paths: NamedPaths,
    /// Directories that are not covered, as far up as they belong together.
    uncovered: Vec<Directory>,
}

impl Page {
    /// The page of what was gathered.
    pub(super) fn of(gathered: &Gathered) -> Result<Page> {
        let sums = Sums::of(gathered);
        let first = gathered.profiles().next();
        let covered = first.map(covered_of).unwrap_or_default();
        let slow = slowest(gathered, &sums);
        let advice = advice::give(&Facts {
            missing: gathered.missing().into_iter().map(str::to_owned).collect(),
            from_files: gathered.from_files,
            covered: covered.clone(),
            calls: sums.calls.as_ref(),
            passed: sums.passed.iter().collect(),
            more_passed: sums.passed_left_out > 0,
            uncovered: &sums.uncovered,
            evictions: sums.evictions,
            changes: first
                .map(|one| one.journal.questions.change)
                .unwrap_or_default(),
            origin_objects: sums.origin_objects,
            slowest: slow
                .iter()
                .filter(|fall| fall.obtained.from == Source::Origin)
                .map(|fall| (fall.obtained.path.as_str(), fall.obtained.took_ms))
                .max_by(|one, other| one.1.total_cmp(&other.1)),
            objects_left_out: sums.objects_left_out,
        });
        let (timeline, timeline_note, steps) = timeline(gathered, &sums)?;
        let (waits, waits_note) = waits(sums.calls.as_ref())?;
        Ok(Page {
            title: title(gathered),
            scope: scope(gathered),
            version: first.map_or_else(String::new, version_of),
            covered: match covered.is_empty() {
                true => "nothing but the view".to_owned(),
                false => covered.join(", "),
            },
            advice_parts: advice.iter().map(|one| parts_of(one)).collect(),
            advice,
            figures: figures(gathered),
            trees: tree::draw_all(gathered)?,
            trees_note: trees_note(gathered),
            nodes: node_rows(gathered),
            timeline,
            timeline_note,
            steps,
            waterfall: match slow.is_empty() {
                true => None,
                false => Some(plots::waterfall(&slow)?),
            },
            falls: slow.iter().map(fall_row).collect(),
            families: sums.calls.as_ref().map(family_rows).unwrap_or_default(),
            calls_note: calls_note(sums.calls.as_ref()),
            hot: sums.paths.hot.iter().take(MOST_HOT).map(hot_row).collect(),
            uncovered: sums
                .uncovered
                .iter()
                .take(MOST_HOT)
                .map(uncovered_row)
                .collect(),
            noted_one_in: sums.paths.noted_one_in,
            waits,
            waits_note,
            passed: sums
                .passed
                .iter()
                .take(MOST_PASSED)
                .map(passed_row)
                .collect(),
            passed_note: passed_note(&sums),
            data: data(gathered),
        })
    }
}

impl Sums {
    fn of(gathered: &Gathered) -> Sums {
        let mut passed: HashMap<String, Passed> = HashMap::new();
        let mut sums = Sums {
            calls: gathered.survey.as_ref().and_then(counted),
            passed: Vec::new(),
            passed_left_out: 0,
            objects_left_out: 0,
            evictions: 0,
            origin_objects: 0,
            first_unix_ms: u64::MAX,
            paths: NamedPaths::default(),
            uncovered: Vec::new(),
        };
        let named = |json: &Value| NamedPaths::deserialize(json.get("paths")?).ok();
        for profile in gathered.profiles() {
            let journal = &profile.journal;
            sums.first_unix_ms = sums.first_unix_ms.min(journal.started_unix_ms);
            sums.objects_left_out += journal.left_out;
            sums.passed_left_out += journal.passed_left_out;
            sums.evictions += number(&profile.status, "/evictions");
            sums.origin_objects += journal.from_origin.objects;
            if gathered.survey.is_none()
                && let Some(calls) = counted(&profile.status)
            {
                add(sums.calls.get_or_insert_default(), &calls);
            }
            for one in &journal.passed {
                passed
                    .entry(one.path.clone())
                    .and_modify(|known| known.times += one.times)
                    .or_insert_with(|| one.clone());
            }
            if gathered.survey.is_none()
                && let Some(paths) = named(&profile.status)
            {
                sums.paths.add(&paths);
            }
        }
        if let Some(survey) = &gathered.survey {
            sums.evictions = number(survey, "/served/evictions");
            sums.paths = named(survey).unwrap_or_default();
            for slow in &sums.paths.slowest {
                let asked_at = slow.asked_at_unix_ms as u64;
                sums.first_unix_ms = sums.first_unix_ms.min(asked_at);
            }
            // What this node's journal has is among what all nodes said.
            for left in &sums.paths.left {
                if let Some(left) = left.passed() {
                    passed.insert(left.path.clone(), left);
                }
            }
        }
        sums.uncovered = uncovered::group(&sums.paths.uncovered);
        // What was noted once or twice says little.
        let least = 3 * sums.paths.noted_one_in;
        sums.uncovered.retain(|one| one.calls() >= least);
        sums.passed = passed.into_values().collect();
        sums.passed.sort_by(|one, other| {
            let more = other.times.cmp(&one.times);
            more.then_with(|| one.path.cmp(&other.path))
        });
        sums
    }

    /// A time of a helper's, in milliseconds since the first helper's start.
    pub(super) fn since_first(&self, profile: &Profile, at_ms: f64) -> f64 {
        (profile
            .journal
            .started_unix_ms
            .saturating_sub(self.first_unix_ms)) as f64
            + at_ms
    }
}

fn covered_of(profile: &Profile) -> Vec<String> {
    let covered = profile.status.get("covered").and_then(Value::as_array);
    let covered = covered.map(Vec::as_slice).unwrap_or_default();
    let text = covered.iter().filter_map(Value::as_str);
    text.map(str::to_owned).collect()
}

fn version_of(profile: &Profile) -> String {
    let version = profile.status.get("version").and_then(Value::as_str);
    version.unwrap_or_default().to_owned()
}

fn title(gathered: &Gathered) -> String {
    match gathered.nodes.as_slice() {
        [only] => format!("Copper on {}", only.host),
        nodes => format!("Copper on {} nodes", nodes.len()),
    }
}

fn scope(gathered: &Gathered) -> String {
    let said = gathered.profiles().count() as u64;
    match (gathered.from_files, gathered.nodes.len()) {
        (true, _) => format!(
            "Made from the files that {} left.",
            several(said, "node", "nodes")
        ),
        (false, 1) => "Made from what this node's helper said.".to_owned(),
        (false, _) => "Numbers, tree and paths are those of all nodes; the time line is that of the node \
                       on which the report was made. A job that is started with --profile gives it for \
                       all nodes, and longer lists: copper report --profile DIR."
            .to_owned(),
    }
}

/// The JSON that the numbers are taken from, and its name.
fn source(gathered: &Gathered) -> (&'static str, Value) {
    if let Some(survey) = &gathered.survey {
        return ("survey", survey.clone());
    }
    let mut profiles = gathered.profiles();
    match (profiles.next(), profiles.next()) {
        (Some(only), None) => ("status", only.status.clone()),
        _ => ("sum", sum(gathered)),
    }
}

/// The numbers of all nodes' files, added.
fn sum(gathered: &Gathered) -> Value {
    let total = |pointer: &str| -> u64 {
        let all = gathered.profiles();
        all.map(|profile| number(&profile.status, pointer)).sum()
    };
    json!({
        "cached": {
            "files": total("/cached/files"),
            "bytes": total("/cached/bytes"),
            "directories": total("/cached/directories"),
            "entries": total("/cached/entries"),
        },
        "memory": {"resident_bytes": total("/memory/resident_bytes")},
        "origin": {
            "stats": total("/origin/stats"),
            "listings": total("/origin/listings"),
            "opens": total("/origin/opens"),
            "bytes_read": total("/origin/bytes_read"),
        },
        "served": {
            "bytes_from_tree": total("/served/bytes_from_tree"),
            "bytes_from_origin": total("/served/bytes_from_origin"),
            "bytes_local": total("/served/bytes_local"),
        },
        "saved": {"asked": total("/saved/asked"), "made": total("/saved/made"),
                  "operations": total("/saved/operations")},
    })
}

fn figures(gathered: &Gathered) -> Vec<Figure> {
    let (name, json) = source(gathered);
    let figure = |label, pointer: &str, bytes: bool, note: String| {
        let value = number(&json, pointer);
        Figure {
            label,
            text: if bytes { show(value) } else { count(value) },
            note,
            from: format!("{name}:{pointer}"),
            value,
        }
    };
    let origin = ["/origin/listings", "/origin/opens"].map(|pointer| number(&json, pointer));
    let local = number(&json, "/served/bytes_local");
    let from_origin = number(&json, "/served/bytes_from_origin");
    let saved = local.saturating_sub(from_origin);
    let asked = number(&json, "/saved/asked");
    let mut figures = vec![
        figure(
            "read from the origin",
            "/origin/bytes_read",
            true,
            match saved {
                0 => String::new(),
                saved => format!("{} less than programs opened", show(saved)),
            },
        ),
        figure(
            "stats on the origin",
            "/origin/stats",
            false,
            format!(
                "{} and {}",
                several(origin[0], "listing", "listings"),
                several(origin[1], "open", "opens")
            ),
        ),
        figure(
            "operations saved",
            "/saved/operations",
            false,
            match asked {
                0 => "programs' calls were not counted".to_owned(),
                asked => format!("of {} that programs asked for", count(asked)),
            },
        ),
        figure(
            "opened from memory",
            "/served/bytes_local",
            true,
            "sizes of the files that programs opened".to_owned(),
        ),
        figure(
            "files in memory",
            "/cached/files",
            false,
            match gathered.nodes.len() {
                1 => format!("{} in all", show(number(&json, "/cached/bytes"))),
                _ => format!("{}, on all nodes", show(number(&json, "/cached/bytes"))),
            },
        ),
    ];
    if gathered.nodes.len() > 1 {
        figures.push(figure(
            "from node to node",
            "/served/bytes_from_tree",
            true,
            "sent through the tree instead of read again".to_owned(),
        ));
    }
    figures
}

fn trees_note(gathered: &Gathered) -> String {
    let Some(topology) = &gathered.topology else {
        return String::new();
    };
    let shape = format!(
        "{} of fan-out {}, depth {}.",
        several(topology.trees().into(), "tree", "trees"),
        topology.fan_out(),
        topology.depth()
    );
    if topology.nodes() > tree::MOST_DRAWN {
        return format!("{shape} The job has too many nodes to be drawn.");
    }
    format!(
        "{shape} A ring marks a root, which asks the origin; a cross a node that does not answer."
    )
}

fn node_rows(gathered: &Gathered) -> Vec<NodeRow> {
    gathered
        .nodes
        .iter()
        .map(|node| {
            let journal = node.profile.as_ref().map(|profile| &profile.journal);
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            NodeRow {
                rank: node.rank,
                host: node.host.clone(),
                ready: node.state == State::Ready,
                missing: match gathered.from_files {
                    true => "left no profile",
                    false => "does not answer",
                },
                part: part_of(gathered, node.rank),
                start: or_dash(
                    journal
                        .and_then(|one| one.ready_ms.or(one.serving_ms))
                        .map(ms),
                ),
                origin: or_dash(journal.map(|one| show(one.from_origin.bytes))),
                tree: or_dash(journal.map(|one| show(one.from_tree.bytes))),
            }
        })
        .collect()
}

/// What a node is in the trees.
fn part_of(gathered: &Gathered, rank: u32) -> String {
    let Some(topology) = &gathered.topology else {
        return "alone".to_owned();
    };
    let roots: Vec<String> = (0..topology.trees())
        .filter(|&tree| topology.root(tree) == rank)
        .map(|tree| (tree + 1).to_string())
        .collect();
    let is_interior = |tree: &u16| topology.children(*tree, rank).next().is_some();
    match (
        roots.is_empty(),
        (0..topology.trees()).any(|tree| is_interior(&tree)),
    ) {
        (false, _) => format!("root of tree {}", roots.join(", ")),
        (true, true) => "interior".to_owned(),
        (true, false) => "leaf".to_owned(),
    }
}

fn family_rows(calls: &Calls) -> Vec<FamilyRow> {
    let row = |name: &str, ends: &Ends| FamilyRow {
        name: name.to_owned(),
        covered: count(ends.covered()),
        hit: count(ends.hit),
        absent: count(ends.absent),
        asked: count(ends.asked),
        escaped: count(ends.escaped),
        rate: ends
            .hit_rate()
            .map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1} %")),
    };
    let mut families: Vec<(&String, Ends)> = calls
        .families
        .iter()
        .map(|(name, family)| (name, Ends::of(family)))
        .filter(|(_, ends)| ends.covered() > 0)
        .collect();
    families.sort_by_key(|(_, ends)| std::cmp::Reverse(ends.covered()));
    let mut rows: Vec<FamilyRow> = families
        .iter()
        .map(|(name, ends)| row(name, ends))
        .collect();
    rows.push(row("all", &Ends::of_all(calls)));
    rows
}

fn calls_note(calls: Option<&Calls>) -> String {
    let Some(calls) = calls else {
        return "No program was counted yet.".to_owned();
    };
    let uncovered = Ends::of_all(calls).uncovered;
    let beside = match uncovered {
        0 => String::new(),
        uncovered => format!(
            " {} more calls were on paths that are not covered.",
            count(uncovered)
        ),
    };
    format!(
        "Calls on covered paths of {}.{beside}",
        several(calls.processes, "program", "programs")
    )
}

fn waits(calls: Option<&Calls>) -> Result<(Option<Plot>, String)> {
    let Some(calls) = calls.filter(|calls| calls.waits.iter().any(|&count| count > 0)) else {
        return Ok((None, String::new()));
    };
    let waits: u64 = calls.waits.iter().sum();
    let waited: u64 = calls.waited_microseconds.values().sum();
    let note = format!(
        "Programs waited for their helper {}, {} in the mean. A bar counts waits from the time below \
         it up to twice that.",
        several(waits, "time", "times"),
        ms(waited as f64 / 1e3 / waits as f64)
    );
    Ok((Some(plots::waits(&calls.waits)?), note))
}

fn passed_row(passed: &Passed) -> PassedRow {
    PassedRow {
        path: passed.path.clone(),
        why: passed.why.words(),
        times: count(passed.times),
        size: match passed.bytes {
            0 => "–".to_owned(),
            bytes => show(bytes),
        },
    }
}

fn hot_row(hot: &HotCalls) -> HotRow {
    let text = |calls: u64| match calls {
        0 => "–".to_owned(),
        calls => count(about(calls)),
    };
    HotRow {
        path: hot.path.clone(),
        hit: text(hot.hit),
        absent: text(hot.absent),
        asked: text(hot.asked),
        escaped: text(hot.passed),
    }
}

fn uncovered_row(directory: &Directory) -> UncoveredRow {
    UncoveredRow {
        path: directory.path.clone(),
        calls: count(about(directory.calls())),
        kinds: uncovered::kinds(directory).join(", "),
    }
}

fn passed_note(sums: &Sums) -> String {
    let more = sums.passed.len().saturating_sub(MOST_PASSED) as u64 + sums.passed_left_out;
    match (sums.passed.is_empty(), more) {
        (true, 0) => "Nothing that was asked of a helper was left to the origin.".to_owned(),
        (_, 0) => "Questions that helpers left to the origin. Programs that open such a file again do not \
                   ask again."
            .to_owned(),
        (_, more) => format!("The most frequent; {} more are not listed.", count(more)),
    }
}

/// Objects of all nodes together that are in the page as data.
const MOST_OBJECTS: usize = 4_000;
/// In a larger job only the sums of each node are.
const MOST_NODES: usize = 256;

/// What the page was made of, for programs.
fn data(gathered: &Gathered) -> String {
    let (name, json) = source(gathered);
    let most = MOST_OBJECTS / gathered.nodes.len().max(1);
    let nodes = gathered.nodes.iter().map(|node| {
        let profile = node.profile.as_ref();
        let journal = profile.map(|profile| &profile.journal);
        let whole = profile.filter(|_| gathered.nodes.len() <= MOST_NODES);
        let whole = whole.map(|profile| {
            let mut short = profile.clone();
            let journal = &mut short.journal;
            journal.left_out += journal.obtained.len().saturating_sub(most) as u64;
            journal.obtained.truncate(most);
            short
        });
        json!({
            "rank": node.rank,
            "host": node.host,
            "state": match node.state { State::Ready => "ready", State::Missing => "missing" },
            "ready_ms": journal.and_then(|journal| journal.ready_ms),
            "from_origin": journal.map(|journal| journal.from_origin),
            "from_tree": journal.map(|journal| journal.from_tree),
            "profile": whole,
        })
    });
    let all = json!({name: json, "nodes": nodes.collect::<Vec<_>>()});
    // A path may hold what would end the element.
    all.to_string().replace('<', "\\u003c")
}
