//! One profile of all nodes.
#![forbid(unsafe_code)]

use super::recorder::save;
use super::tables::Tables;
use super::{Profile, files_of_nodes, read};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Where the merged files go, and the first part of their names.
const CLUSTER: &str = "cluster";
/// Paths of each kind in the merged tables.
const LISTED: usize = 1000;
/// Paths of each kind in the merged summary.
const SHOWN: usize = 20;

/// Adds up the profiles of all nodes in `directory`; returns what to say of it.
pub(super) fn merge(directory: &Path) -> Result<String> {
    let files = files_of_nodes(directory)?;
    let mut tables = Tables::default();
    let mut nodes = String::from(
        "\n## Nodes\n\n| Node | Rank | Start to ready (ms) | From origin | From tree | Slowest (ms) \
         |\n|---|---:|---:|---:|---:|---:|\n",
    );
    let mut expected = files.len();
    for file in &files {
        let profile = read(file)?;
        if let Some(shape) = &profile.shape {
            expected = expected.max(shape.nodes as usize);
        }
        nodes += &node_row(&profile);
        tables.add(Tables::of(&profile));
    }
    let place = directory.join(CLUSTER);
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let note = format!("- Nodes: `{}`", files.len());
    let title = "Copper profile of all nodes";
    let summary = tables.summary(title, &[note], Some(SHOWN)) + &nodes;
    let listed = Some(LISTED);
    save(
        &place,
        CLUSTER,
        "profiling_aggregate.csv",
        &tables.aggregate_csv()?,
    )?;
    save(
        &place,
        CLUSTER,
        "profiling_operations.csv",
        &tables.operations_csv()?,
    )?;
    save(
        &place,
        CLUSTER,
        "profiling_top_paths.csv",
        &tables.paths_csv(listed)?,
    )?;
    save(&place, CLUSTER, "profiling_summary.md", summary.as_bytes())?;
    let of = match expected - files.len() {
        0 => String::new(),
        missing => format!(" ({missing} nodes of the job have left none)"),
    };
    Ok(format!(
        "merged the profiles of {} nodes{of} into {}\n",
        files.len(),
        place.display()
    ))
}

fn node_row(profile: &Profile) -> String {
    let journal = &profile.journal;
    let mut row = String::new();
    let ready = journal.ready_ms.or(journal.serving_ms).unwrap_or(0.0);
    let slowest = journal.obtained.first().map_or(0.0, |first| first.took_ms);
    let _ = writeln!(
        row,
        "| {} | {} | {ready:.1} | {} | {} | {slowest:.1} |",
        profile.host,
        profile.rank(),
        journal.from_origin.bytes,
        journal.from_tree.bytes
    );
    row
}
