//! Where the store, the view and the runtime directory would lie.
#![forbid(unsafe_code)]

use super::Finding;
use crate::client;
use crate::runtime::{Note, Runtime, default_directory, own_uid};
use crate::size;
use crate::store::place;
use crate::view;
use anyhow::{Result, ensure};
use copper_core::location::{RUNTIME_VARIABLE, VIEW_VARIABLE};
use rustix::fs::{Access, access};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The shim passes everything through where the runtime directory's path is longer.
const LONGEST_RUNTIME: usize = 89;

/// A store smaller than this does not hold the libraries of a Python environment.
const SMALL_STORE: u64 = 2 << 30;

const STORE: &str = "store";
const VIEW: &str = "view";
const RUNTIME: &str = "runtime";

/// The places for the store, and which of them would be taken.
pub(super) fn check_stores(asked: Option<&Path>) -> Vec<Finding> {
    let places = match asked {
        Some(directory) => vec![directory.to_owned()],
        None => place::usual_places(),
    };
    judge_stores(places.into_iter().map(|place| {
        let free = place::free_space(&place);
        (place, free)
    }))
}

fn judge_stores(places: impl Iterator<Item = (PathBuf, Result<u64>)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut taken = false;
    let mut refused = Vec::new();
    for (place, free) in places {
        match free {
            Ok(free) => {
                findings.push(judge_store(&place, free, taken));
                taken = true;
            }
            Err(reason) => refused.push(first_part(&reason)),
        }
    }
    for reason in refused {
        let finding = match taken {
            true => Finding::ok(
                STORE,
                format!("{reason} (not needed, another place serves)"),
            ),
            false => Finding::problem(
                STORE,
                reason,
                "mount a tmpfs that allows execution, and name it with --store DIR",
            ),
        };
        findings.push(finding);
    }
    findings
}

/// The reason alone, without its advice.
fn first_part(reason: &anyhow::Error) -> String {
    let text = format!("{reason:#}");
    text.split(';').next().unwrap_or_default().to_owned()
}

fn judge_store(place: &Path, free: u64, taken: bool) -> Finding {
    let found = format!(
        "{}: {} free on tmpfs{}",
        place.display(),
        size::show(free),
        if taken { ", not needed" } else { ", taken" }
    );
    if access(place, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::problem(
            STORE,
            format!("{found}, but you may not write there"),
            "have it made writable, or give --store DIR",
        );
    }
    if !taken && free < SMALL_STORE {
        return Finding::note(
            STORE,
            found,
            "files that do not fit are read from the origin; make room or give --store DIR",
        );
    }
    Finding::ok(STORE, found)
}

/// Whether the view can be made.
pub(super) fn check_view(asked: Option<&Path>) -> Vec<Finding> {
    let advice = format!("give --view DIR or set {VIEW_VARIABLE}");
    let finding = match view::directory(asked).and_then(|view| judge_view(&view)) {
        Ok(found) => Finding::ok(VIEW, found),
        Err(error) => Finding::problem(VIEW, format!("{error:#}"), advice),
    };
    vec![finding]
}

fn judge_view(view: &Path) -> Result<String> {
    let shown = view.display();
    if let Ok(found) = fs::symlink_metadata(view) {
        ensure!(found.is_dir(), "{shown} is in the way");
        ensure!(
            found.uid() == own_uid(),
            "{shown} belongs to uid {}",
            found.uid()
        );
        let mut entries = fs::read_dir(view)?.flatten();
        let strange = entries.find(|entry| !entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        if let Some(strange) = strange {
            anyhow::bail!("{} is in the way", strange.path().display());
        }
        return Ok(format!("{shown} is a view already"));
    }
    check_writable_above(view)?;
    Ok(format!("{shown} can be made"))
}

/// Whether `path`, which is not there, could be made: the view's own parent may be missing too.
fn check_writable_above(path: &Path) -> Result<()> {
    let above = path.ancestors().skip(1).take(2);
    let there = above.into_iter().find(|above| above.exists());
    let Some(there) = there else {
        anyhow::bail!("there is no directory above {}", path.display());
    };
    ensure!(
        there.is_dir() && access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        "{} cannot be made: you may not write to {}",
        path.display(),
        there.display()
    );
    Ok(())
}

/// Whether the runtime directory can be made, is safe, and what lives in it.
pub(super) fn check_runtime() -> Vec<Finding> {
    let directory = default_directory();
    let finding = match judge_runtime(&directory) {
        Ok(finding) => finding,
        Err(error) => Finding::problem(
            RUNTIME,
            format!("{error:#}"),
            format!("set {RUNTIME_VARIABLE} to a directory of your own, the same on all nodes"),
        ),
    };
    vec![finding]
}

fn judge_runtime(directory: &Path) -> Result<Finding> {
    let shown = directory.display();
    let length = directory.as_os_str().as_bytes().len();
    ensure!(directory.is_absolute(), "'{shown}' is not an absolute path");
    ensure!(
        length <= LONGEST_RUNTIME,
        "{shown} has {length} bytes, more than {LONGEST_RUNTIME}: programs would not use Copper"
    );
    let Some(runtime) = Runtime::find_at(directory.to_owned())? else {
        let above = directory.parent().unwrap_or(Path::new("/"));
        ensure!(
            access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
            "{shown} cannot be made: {} is missing or not writable",
            above.display()
        );
        return Ok(Finding::ok(RUNTIME, format!("{shown} can be made")));
    };
    match client::connect(&runtime) {
        Ok(Some(_)) => Ok(Finding::ok(
            RUNTIME,
            format!("{shown}: a helper is running"),
        )),
        Ok(None) if runtime.noted(Note::Store).is_some() => Ok(Finding::note(
            RUNTIME,
            format!("{shown}: a helper was killed and left its store"),
            "copper start or copper run clears it up",
        )),
        Ok(None) => Ok(Finding::ok(
            RUNTIME,
            format!("{shown} is there, without a helper"),
        )),
        Err(error) => Ok(Finding::problem(
            RUNTIME,
            format!("{shown}: {error:#}"),
            "run copper stop; where that does not help, end the process and remove the directory",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use anyhow::anyhow;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::tempdir;

    #[test]
    fn refused_places_matter_where_no_other_serves() {
        let noexec = || {
            (
                PathBuf::from("/dev/shm"),
                Err(anyhow!("/dev/shm is noexec")),
            )
        };
        let good = tempdir().expect("directory");
        let states = |findings: Vec<Finding>| -> Vec<State> {
            findings.iter().map(|finding| finding.state).collect()
        };
        let alone = judge_stores([noexec()].into_iter());
        assert!(
            alone[0]
                .advice
                .as_deref()
                .expect("advice")
                .contains("--store")
        );
        assert_eq!(states(alone), [State::Problem]);
        let enough = (good.path().to_owned(), Ok(8 << 30));
        assert_eq!(
            states(judge_stores([noexec(), enough].into_iter())),
            [State::Ok, State::Ok]
        );
        let little = (good.path().to_owned(), Ok(32 << 20));
        assert_eq!(states(judge_stores([little].into_iter())), [State::Note]);
    }

    #[test]
    fn a_view_with_other_things_in_it_is_a_problem() {
        let base = tempdir().expect("directory");
        assert!(judge_view(&base.path().join("user/copper")).is_ok());
        assert!(judge_view(&base.path().join("no/such/copper")).is_err());
        fs::write(base.path().join("precious"), "").expect("file");
        let error = judge_view(base.path()).expect_err("in the way").to_string();
        assert!(error.contains("precious"), "{error}");
    }

    #[test]
    fn runtime_directories_must_be_short_and_private() {
        let base = tempdir().expect("directory");
        let open = base.path().join("open");
        fs::create_dir(&open).expect("directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("opened");
        let error = judge_runtime(&open).expect_err("open").to_string();
        assert!(error.contains("chmod 700"), "{error}");
        let long = base.path().join("x".repeat(90));
        let error = judge_runtime(&long).expect_err("long").to_string();
        assert!(error.contains("more than 89"), "{error}");
        assert!(judge_runtime(Path::new("relative")).is_err());
        assert_eq!(
            judge_runtime(&base.path().join("new")).expect("fine").state,
            State::Ok
        );
    }
}
