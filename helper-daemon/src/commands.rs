//! `copper start`, `stop`, `status`, `env` and `refresh`.
#![forbid(unsafe_code)]

use crate::cli::Service;
use crate::client::connect;
use crate::environment;
use crate::helper::covered_prefixes;
use crate::launch::{self, Launch};
use crate::runtime::Runtime;
use crate::status::Status;
use anyhow::{Context, Result, bail};
use copper_core::request::Operation;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const NO_HELPER: &str = "no helper of yours is running for this job; start one with: copper start";

fn print(text: &[u8]) -> Result<()> {
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

/// `copper start`.
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
fn refuse_other_wishes(status: &Status, service: &Service, wanted: &[Vec<u8>]) -> Result<()> {
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
        "copper's helper {state} (pid {})\n\
         view      {} (every absolute path appears below it)\n\
         covered   {}\n\
         to use it in this shell:   eval \"$(copper env)\"\n\
         for one command:           LD_PRELOAD=$(copper env --lib) command\n\
         to see what it does:       copper status\n\
         to end it:                 copper stop\n",
        status.pid,
        status.view,
        describe_covered(status)
    )
}

fn running() -> Result<Runtime> {
    Runtime::find()?.context(NO_HELPER)
}

/// `copper stop`.
pub(crate) fn stop() -> Result<()> {
    let stopped = match Runtime::find()? {
        None => None,
        Some(runtime) => match connect(&runtime)? {
            None => None,
            Some(connection) => connection.ask(Operation::Stop, b"")?,
        },
    };
    match stopped {
        Some(_) => Ok(()),
        None => print(b"no helper of yours is running for this job\n"),
    }
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

/// `copper env`.
pub(crate) fn env(lib: bool) -> Result<()> {
    if lib {
        let library = environment::library()?;
        return print(&[library.as_os_str().as_bytes(), b"\n"].concat());
    }
    let runtime = Runtime::make()?;
    let covered: Vec<Vec<u8>> = match ask_status(&runtime)? {
        Some((status, _)) => status.covered.into_iter().map(String::into_bytes).collect(),
        None => Vec::new(),
    };
    for (name, value) in environment::variables(&runtime, &covered)? {
        let value = environment::quote(&value);
        print(&[b"export ", name.as_bytes(), b"=", value.as_bytes(), b"\n"].concat())?;
    }
    Ok(())
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
