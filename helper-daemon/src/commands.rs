//! `copper start`, `stop`, `status`, `env`, `refresh` and `control`.
#![forbid(unsafe_code)]

pub(crate) mod control;
pub(crate) mod survey;

use crate::audit;
use crate::cli::{Format, Service};
use crate::client::connect;
use crate::environment;
use crate::helper::covered_prefixes;
use crate::job::Job;
use crate::launch::{self, Launch};
use crate::launch_line;
use crate::runtime::Runtime;
use crate::start;
use crate::status::{Status, Survey};
use anyhow::{Context, Result, bail};
use copper_core::request::Operation;
use serde::Deserialize;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What to say where there is no helper.
pub(crate) const NO_HELPER: &str =
    "no helper of yours is running for this job; start one with: copper start";

const NONE_TO_STOP: &[u8] = b"no helper of yours is running for this job\n";

/// How long `copper status --all` waits for the other nodes, in seconds.
const SURVEY_TIME: u32 = 5;

/// Prints on standard output.
pub(crate) fn print(text: &[u8]) -> Result<()> {
    std::io::stdout().write_all(text).context("cannot print")
}

/// The status of the helper, if there is one.
pub(crate) fn ask_status(runtime: &Runtime) -> Result<Option<(Status, Vec<u8>)>> {
    let Some(connection) = connect(runtime)? else {
        return Ok(None);
    };
    let Some(body) = connection.ask(Operation::Status, b"")? else {
        return Ok(None);
    };
    let status = serde_json::from_slice(&body)
        .context("the helper's status cannot be read; is it of another version?")?;
    Ok(Some((status, body)))
}

/// The status of this node's helper, if there is one.
pub(crate) fn ask_own_status() -> Result<Option<(Status, Vec<u8>)>> {
    match Runtime::find()? {
        None => Ok(None),
        Some(runtime) => ask_status(&runtime),
    }
}

/// `copper start` on this node alone.
pub(crate) fn start(launch: &Launch<'_>) -> Result<()> {
    let wanted = covered_prefixes(&launch.service.cover)?;
    let runtime = Runtime::make()?;
    let starting = runtime.lock_starting()?;
    let (status, fresh) = match ask_status(&runtime)? {
        Some((status, _)) => (status, false),
        None => {
            launch::start(&runtime, launch)?;
            let (status, _) = ask_status(&runtime)?.context("the helper ended at once")?;
            (status, true)
        }
    };
    drop(starting);
    if !fresh {
        refuse_other_wishes(&status, launch.service, &wanted)?;
    }
    print(describe(&status, fresh).as_bytes())
}

/// A helper that is there already must be what was asked for.
pub(crate) fn refuse_other_wishes(
    status: &Status,
    service: &Service,
    wanted: &[Vec<u8>],
) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .map(|prefix| String::from_utf8_lossy(prefix))
        .filter(|prefix| !status.covered.iter().any(|covered| covered == prefix))
        .collect();
    let other_view = service
        .view
        .as_deref()
        .is_some_and(|view| view != Path::new(&status.view));
    if !missing.is_empty() || other_view {
        bail!(
            "a helper (pid {}) is running already, with view {} and covering {}; run copper stop \
             first",
            status.pid,
            status.view,
            describe_covered(status)
        );
    }
    Ok(())
}

fn describe_covered(status: &Status) -> String {
    if status.covered.is_empty() {
        "nothing but the view".to_owned()
    } else {
        status.covered.join(", ")
    }
}

fn describe(status: &Status, fresh: bool) -> String {
    let state = if fresh {
        "started"
    } else {
        "was running already"
    };
    format!(
        "copper's helper {state} (pid {})\n{}",
        status.pid,
        how_to_use(status, "copper status")
    )
}

/// What a user does next.
pub(crate) fn how_to_use(status: &Status, to_see: &str) -> String {
    format!(
        "view      {} (every absolute path appears below it)\n\
         covered   {}\n\
         to use it in this shell:   eval \"$(copper env)\"\n\
         for one command:           LD_PRELOAD=$(copper env --lib) command\n\
         to see what it does:       {to_see}\n\
         to end it:                 copper stop\n",
        status.view,
        describe_covered(status)
    )
}

/// The runtime directory of this user and job, which may hold a running helper.
pub(crate) fn running() -> Result<Runtime> {
    Runtime::find()?.context(NO_HELPER)
}

/// `copper stop`.
pub(crate) fn stop() -> Result<()> {
    let Some(runtime) = Runtime::find()? else {
        return print(NONE_TO_STOP);
    };
    match Job::read(&runtime)? {
        Some(job) => stop_job(&runtime, &job),
        None => stop_one(&runtime),
    }
}

fn stop_one(runtime: &Runtime) -> Result<()> {
    let stopped = match connect(runtime)? {
        None => None,
        Some(connection) => connection.ask(Operation::Stop, b"")?,
    };
    match stopped {
        Some(_) => Ok(()),
        None => print(NONE_TO_STOP),
    }
}

/// Ends all helpers of the job, and says which could not be reached.
fn stop_job(runtime: &Runtime, job: &Job) -> Result<()> {
    let Some(stopped) = survey::stop_all(runtime)? else {
        bail!(
            "this node's helper is gone, so it cannot stop the others; run copper stop on another \
             of the job's nodes: {}",
            start::shorten(&job.hosts)
        );
    };
    let mut text = format!("stopped {} of {} helpers\n", stopped.ended, stopped.nodes);
    if stopped.ended < stopped.nodes {
        text += &format!(
            "lost      {} (if a node is up, run there: copper stop)\n",
            survey::list(job, &stopped.lost, stopped.unnamed())
        );
    }
    print(text.as_bytes())
}

/// `copper status`.
pub(crate) fn status(json: bool) -> Result<()> {
    let (status, body) = ask_status(&running()?)?.context(NO_HELPER)?;
    if json {
        print(&[&body, &b"\n"[..]].concat())
    } else {
        print(status.describe().as_bytes())
    }
}

/// `copper status --all`.
pub(crate) fn status_of_all(json: bool) -> Result<()> {
    let runtime = running()?;
    let job = Job::read(&runtime)?.context(
        "the helper of this node is not one of several; see copper status, or start several with: \
         copper start --hosts",
    )?;
    let value = survey_of_all(&runtime, &job)?;
    if json {
        return print(format!("{value}\n").as_bytes());
    }
    let survey = Survey::deserialize(&value)?;
    print(survey.describe(&job).as_bytes())
}

/// The answer of all nodes as JSON, with the names of those that are missing.
pub(crate) fn survey_of_all(runtime: &Runtime, job: &Job) -> Result<serde_json::Value> {
    let body = survey::ask_now(runtime, SURVEY_TIME)?;
    let survey = survey::parse(&body)?;
    let mut value: serde_json::Value = serde_json::from_slice(&body)?;
    value["missing_hosts"] = survey::names(job, &survey.missing).into();
    value["trees"] = job.trees.into();
    value["fan_out"] = job.fan_out.into();
    Ok(value)
}

/// `copper env --lib`.
pub(crate) fn print_library() -> Result<()> {
    let library = environment::library()?;
    print(&[library.as_os_str().as_bytes(), b"\n"].concat())
}

/// `copper env`.
pub(crate) fn env(format: Format, audit: audit::When) -> Result<()> {
    let runtime = Runtime::make()?;
    let covered: Vec<Vec<u8>> = match ask_status(&runtime)? {
        Some((status, _)) => status.covered.into_iter().map(String::into_bytes).collect(),
        None => Vec::new(),
    };
    let audit = audit::wanted(&runtime, audit)?;
    let variables = environment::variables(&runtime, &covered, audit.as_ref())?;
    print(&launch_line::text(format, &variables)?)
}

/// `copper refresh`.
pub(crate) fn refresh(path: Option<&Path>) -> Result<()> {
    let path = match path {
        None => Path::new("/").to_owned(),
        Some(path) => std::path::absolute(path)?,
    };
    let connection = connect(&running()?)?.context(NO_HELPER)?;
    connection
        .ask(Operation::Refresh, path.as_os_str().as_bytes())?
        .context("the helper ended meanwhile")?;
    Ok(())
}
