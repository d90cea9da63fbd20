//! What came when, and what took longest: the job's start and its slowest paths.
#![forbid(unsafe_code)]

use super::gather::Gathered;
use super::page::Sums;
use super::plots::{self, Bar, Fall, Plot};
use super::words::{count, ms};
use crate::journal::{Obtained, Source, What};
use crate::size::show;
use anyhow::Result;
use std::collections::HashMap;

/// A pause of so many milliseconds ends the start of a job.
const PAUSE_MS: f64 = 20_000.0;
/// Bars of the time line.
const BARS: usize = 96;
/// Rows of the waterfall.
const FALLS: usize = 24;

/// A row of the time line's table.
pub(super) struct StepRow {
    pub(super) at: String,
    pub(super) origin: String,
    pub(super) tree: String,
    pub(super) local: String,
}

/// A row of the waterfall's table.
pub(super) struct FallRow {
    pub(super) path: String,
    pub(super) what: String,
    pub(super) host: String,
    pub(super) at: String,
    pub(super) took: String,
    pub(super) size: String,
    pub(super) from: &'static str,
}

/// The bars, what to say of them, and the same as a table.
pub(super) type Timeline = (Option<Plot>, String, Vec<StepRow>);

/// The start of the job: from the first object on, until nothing came for a while.
pub(super) fn timeline(gathered: &Gathered, sums: &Sums) -> Result<Timeline> {
    let mut came: Vec<(f64, Bar)> = Vec::new();
    let mut longest_step = 0.0f64;
    for profile in gathered.profiles() {
        let line = &profile.journal.timeline;
        longest_step = longest_step.max(line.step_ms as f64);
        for (number, step) in line.steps.iter().enumerate() {
            let at = sums.since_first(profile, (number as u64 * line.step_ms) as f64);
            let bar = Bar {
                origin: step.origin,
                tree: step.tree,
                local: step.local,
            };
            if bar.total() > 0 {
                came.push((at, bar));
            }
        }
    }
    came.sort_by(|one, other| one.0.total_cmp(&other.0));
    let Some(&(begin, _)) = came.first() else {
        return Ok((None, "Nothing has come yet.".to_owned(), Vec::new()));
    };
    let pause = came
        .windows(2)
        .position(|pair| pair[1].0 - pair[0].0 > PAUSE_MS.max(4.0 * longest_step));
    let shown = pause.map_or(came.len(), |last| last + 1);
    let end = came[shown - 1].0 + longest_step;
    let step = ((end - begin) / BARS as f64).max(longest_step).max(1.0);
    let mut bars = vec![Bar::default(); ((end - begin) / step).ceil().max(1.0) as usize];
    for (at, bar) in &came[..shown] {
        let place = (((at - begin) / step) as usize).min(bars.len() - 1);
        bars[place].add(bar);
    }
    let first = gathered.profiles().next();
    let marks: Vec<(f64, String)> = first
        .and_then(|profile| {
            let ready = profile.journal.ready_ms?;
            let at = sums.since_first(profile, ready);
            // Long before or after, it would press everything else together.
            (at > begin - (end - begin) / 8.0 && at < end).then(|| vec![(at, "ready".to_owned())])
        })
        .unwrap_or_default();
    let later = came.len() - shown;
    let note = match later {
        0 => format!(
            "From {} to {} after the first helper's start.",
            ms(begin),
            ms(end)
        ),
        _ => format!(
            "From {} to {} after the first helper's start; what came after a pause of {} is left out.",
            ms(begin),
            ms(end),
            ms(PAUSE_MS)
        ),
    };
    let rows = table_of_steps(begin, step, &bars);
    let plot = plots::timeline(begin, step, &bars, &marks)?;
    Ok((Some(plot), note, rows))
}

/// The same in ten rows, for those who do not see the bars.
fn table_of_steps(begin: f64, step: f64, bars: &[Bar]) -> Vec<StepRow> {
    let each = bars.len().div_ceil(10).max(1);
    let rows = bars.chunks(each).enumerate().map(|(number, bars)| {
        let mut sum = Bar::default();
        bars.iter().for_each(|bar| sum.add(bar));
        let from = begin + step * (number * each) as f64;
        StepRow {
            at: format!("{} to {}", ms(from), ms(from + step * bars.len() as f64)),
            origin: count(sum.origin),
            tree: count(sum.tree),
            local: count(sum.local),
        }
    });
    rows.collect()
}

/// The slowest objects of all nodes, each path once, in the order in which they were asked for,
/// with the node where they took longest.
pub(super) fn slowest(gathered: &Gathered, sums: &Sums) -> Vec<Fall> {
    let mut by_path: HashMap<(String, What), Fall> = HashMap::new();
    let mut note = |host: &str, obtained: &Obtained, at_ms: f64| {
        let key = (obtained.path.clone(), obtained.what);
        let known = by_path.get(&key);
        if known.is_none_or(|known| known.obtained.took_ms < obtained.took_ms) {
            let fall = Fall {
                obtained: obtained.clone(),
                host: host.to_owned(),
                at_ms,
            };
            by_path.insert(key, fall);
        }
    };
    for node in &gathered.nodes {
        let Some(profile) = &node.profile else {
            continue;
        };
        let journal = profile.journal.obtained.iter();
        for obtained in journal.filter(|obtained| obtained.asked > 0) {
            let at_ms = sums.since_first(profile, obtained.asked_at_ms);
            note(&node.host, obtained, at_ms);
        }
    }
    for slow in &sums.paths.slowest {
        let obtained = Obtained {
            path: slow.path.clone(),
            what: slow.what,
            from: slow.from,
            asked_at_ms: 0.0,
            took_ms: slow.took_ms,
            bytes: slow.bytes,
            asked: 1,
            times: 1,
            absent: false,
        };
        if let Some(host) = &slow.host {
            note(
                host,
                &obtained,
                slow.asked_at_unix_ms - sums.first_unix_ms as f64,
            );
        }
    }
    let mut all: Vec<_> = by_path.into_values().collect();
    all.sort_by(|one, other| {
        let slower = other.obtained.took_ms.total_cmp(&one.obtained.took_ms);
        slower.then_with(|| one.obtained.path.cmp(&other.obtained.path))
    });
    all.truncate(FALLS);
    all.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
    all
}

/// A row of the table.
pub(super) fn fall_row(fall: &Fall) -> FallRow {
    let Obtained {
        path,
        what,
        from,
        took_ms,
        bytes,
        ..
    } = &fall.obtained;
    FallRow {
        path: path.clone(),
        what: what.to_string(),
        host: fall.host.clone(),
        at: ms(fall.at_ms),
        took: ms(*took_ms),
        size: show(*bytes),
        from: match from {
            Source::Origin => "origin",
            Source::Tree => "tree",
        },
    }
}
