//! Writes a node's profile: at the helper's end, and at intervals while it runs.
#![forbid(unsafe_code)]

use super::tables::Tables;
use super::{FEW, FINAL, JSON, Profile, ask};
use crate::cli::ProfileOptions;
use crate::runtime::Runtime;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Objects of a snapshot, the slowest: the helper's event loop makes the answer, so it must be short.
const MOST_OF_SNAPSHOT: usize = 40_000;

/// Where and how a helper writes its profile.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    options: ProfileOptions,
    directory: PathBuf,
}

impl Recorder {
    /// A recorder as `options` wish, if they wish one; its directory is made, so that a place where
    /// nothing can be written is known at the start.
    pub(crate) fn new(options: &ProfileOptions) -> Result<Option<Recorder>> {
        let Some(directory) = options.directory() else {
            return Ok(None);
        };
        let last = directory.join(FINAL);
        fs::create_dir_all(&last).with_context(|| {
            format!(
                "the profile's directory {} cannot be made; name another with --profile-directory",
                last.display()
            )
        })?;
        Ok(Some(Recorder {
            options: options.clone(),
            directory,
        }))
    }

    /// How many objects the last files are made of.
    pub(crate) fn wanted(&self) -> usize {
        self.options.kept_objects()
    }

    /// Writes a snapshot whenever the interval is over, until the helper has gone. The helper is
    /// asked by its socket as anybody else would, so that its event loop knows nothing of files.
    pub(crate) fn begin_snapshots(&self, runtime: &Runtime) -> Result<()> {
        let Some(seconds) = self.options.profile_interval else {
            return Ok(());
        };
        let (recorder, runtime) = (self.clone(), runtime.clone());
        let snapshots = move || {
            for number in 1u32.. {
                std::thread::sleep(Duration::from_secs(seconds.into()));
                match ask(&runtime, recorder.wanted().min(MOST_OF_SNAPSHOT)) {
                    Ok(Some(profile)) => {
                        let tag = format!("snapshot-{number}");
                        if let Err(error) = recorder.write(&tag, Some(&tag), profile) {
                            tracing::warn!("a snapshot was not written: {error:#}");
                        }
                    }
                    Ok(None) => return,
                    Err(error) => tracing::debug!("no snapshot: {error:#}"),
                }
            }
        };
        std::thread::Builder::new()
            .name("profile".to_owned())
            .spawn(snapshots)
            .context("cannot start a thread for the profile's snapshots")?;
        Ok(())
    }

    /// Writes the files of the helper's end.
    pub(crate) fn write_last(&self, profile: Profile) -> Result<()> {
        self.write(FINAL, None, profile)
    }

    fn write(&self, place: &str, tag: Option<&str>, mut profile: Profile) -> Result<()> {
        let place = self.directory.join(place);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let tables = Tables::of(&profile);
        let listed = self.options.listed();
        let host = file_name_part(&profile.host);
        let base = match tag {
            Some(tag) => format!("{host}-{}-{tag}", profile.pid),
            None => format!("{host}-{}", profile.pid),
        };
        let mode = format!("- Profiling mode: `{}`", self.options.mode());
        let title = format!("Copper profile of {}", profile.host);
        let summary = tables.summary(&title, &[mode], listed);
        save(
            &place,
            &base,
            "profiling_aggregate.csv",
            &tables.aggregate_csv()?,
        )?;
        save(
            &place,
            &base,
            "profiling_operations.csv",
            &tables.operations_csv()?,
        )?;
        if listed.is_some() {
            save(
                &place,
                &base,
                "profiling_top_paths.csv",
                &tables.paths_csv(listed)?,
            )?;
        }
        save(&place, &base, "profiling_summary.md", summary.as_bytes())?;
        if listed.is_none() {
            let journal = &mut profile.journal;
            journal.left_out += journal.obtained.len().saturating_sub(FEW) as u64;
            journal.obtained.truncate(FEW);
            journal.hot.truncate(FEW);
        }
        save(&place, &base, JSON, &serde_json::to_vec(&profile)?)
    }
}

/// A host's name for the first part of a file's name, which ends at the first `-`.
fn file_name_part(host: &str) -> String {
    host.replace(['-', '/'], "_")
}

/// Writes a file that appears whole.
pub(super) fn save(place: &Path, base: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let path = place.join(format!("{base}-{name}"));
    let aside = place.join(format!(".{base}-{name}"));
    fs::write(&aside, bytes)
        .and_then(|()| fs::rename(&aside, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}
