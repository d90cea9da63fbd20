//! `copper control`: what is cached and counted is dumped, cleared and set back, here or on all
//! nodes.
#![forbid(unsafe_code)]

use super::{NO_HELPER, print, running, survey};
use crate::cli::{self, ControlAction};
use crate::client::connect;
use crate::job::Job;
use crate::runtime::Runtime;
use crate::status::Survey;
use anyhow::{Context, Result, bail, ensure};
use copper_core::control::{Action, Control};
use copper_core::request::Operation;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the nodes may take to write what they were told to.
const WRITING: Duration = Duration::from_secs(60);
/// Between two questions whether they have.
const PAUSE: Duration = Duration::from_millis(50);
/// How long each of these waits for nodes that do not reply, in seconds.
const SURVEY_TIME: u32 = 5;

/// `copper control`.
pub(crate) fn control(arguments: &cli::Control) -> Result<()> {
    let control = find(arguments.action, arguments.what.as_deref())?;
    let dumps = control.action() == Action::Dump;
    ensure!(
        dumps || arguments.to.is_none(),
        "--to says where dumps are written to; this dumps nothing"
    );
    let directory = match &arguments.to {
        None if dumps && arguments.all => Some(std::env::current_dir()?),
        None => None,
        Some(directory) => Some(std::path::absolute(directory)?),
    };
    if let Some(directory) = &directory {
        ensure!(
            directory.is_dir(),
            "{} is not a directory",
            directory.display()
        );
    }
    let runtime = running()?;
    if arguments.all {
        return on_all(&runtime, control, directory);
    }
    let said = ask(&runtime, Operation::Control, control, directory.as_deref())?;
    print(&said)
}

fn find(action: ControlAction, what: Option<&str>) -> Result<Control> {
    let (action, default) = match action {
        ControlAction::Dump => (Action::Dump, "all"),
        ControlAction::Clear => (Action::Clear, "tables"),
        ControlAction::Reset => (Action::Reset, "all"),
    };
    let what = what.unwrap_or(default);
    let possible = || {
        let all = Control::ALL
            .iter()
            .filter(|control| control.action() == action);
        let subjects: Vec<&str> = all.map(|control| control.subject()).collect();
        format!(
            "no such thing as '{what}'; name one of: {}",
            subjects.join(", ")
        )
    };
    Control::named(action, what).with_context(possible)
}

fn ask(
    runtime: &Runtime,
    operation: Operation,
    control: Control,
    directory: Option<&Path>,
) -> Result<Vec<u8>> {
    let number = control.number().to_string();
    let directory = directory.map_or(&b""[..], |directory| directory.as_os_str().as_bytes());
    let connection = connect(runtime)?.context(NO_HELPER)?;
    connection
        .ask_about(operation, [number.as_bytes(), directory])?
        .context("the helper ended meanwhile")
}

fn on_all(runtime: &Runtime, control: Control, directory: Option<PathBuf>) -> Result<()> {
    let before = look(runtime)?;
    if control.clears() {
        let connection = connect(runtime)?.context(NO_HELPER)?;
        connection
            .ask(Operation::Refresh, b"/")?
            .context("the helper ended meanwhile")?;
    }
    let told = ask(
        runtime,
        Operation::ControlAll,
        control,
        directory.as_deref(),
    )?;
    let told = survey::parse(&told)?;
    let deadline = Instant::now() + WRITING;
    let mut after = look(runtime)?;
    while after.controls_pending > 0 && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
        after = look(runtime)?;
    }
    let missing = told.missing.len() as u64 + u64::from(told.unnamed);
    let failed = after.controls_failed.saturating_sub(before.controls_failed);
    let done = u64::from(told.reached).saturating_sub(failed + after.controls_pending);
    print(format!("done on {done} of {} nodes\n", told.nodes).as_bytes())?;
    if missing > 0 {
        let names = match Job::read(runtime)? {
            Some(job) => told.missing_names(&job),
            None => format!("{missing} nodes"),
        };
        bail!("not reached: {names}");
    }
    if let Some(directory) = directory.filter(|_| failed > 0 || after.controls_pending > 0) {
        bail!(
            "{failed} nodes could not write to {}, {} are still writing; see their logs (copper \
             start --log FILE)",
            directory.display(),
            after.controls_pending
        );
    }
    Ok(())
}

fn look(runtime: &Runtime) -> Result<Survey> {
    survey::parse(&survey::ask_now(runtime, SURVEY_TIME)?)
}
