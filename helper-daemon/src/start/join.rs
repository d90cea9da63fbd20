//! `copper join` and `copper leave`: one node's part of `copper start`.
//!
//! Each prints one line for the starter: `copper RANK ready`, `copper RANK left`, or
//! `copper RANK failed: REASON`.
#![forbid(unsafe_code)]

use super::invitation::Invitation;
use crate::client::connect;
use crate::launch::{self, Launch, Membership};
use crate::runtime::Runtime;
use anyhow::{Context, Result, bail, ensure};
use copper_core::request::Operation;
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a helper that is there may take to end.
pub(super) const ENDING_TIME: Duration = Duration::from_secs(1);
/// Between two looks whether it has.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What a node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Its helper serves, or has ended, as was asked.
    Done,
    /// It cannot do it.
    Failed(String),
}

/// `copper join`, with the invitation on standard input.
pub(crate) fn join_from_input(rank: u32) -> Result<u8> {
    report(rank, "ready", || join(&read_invitation()?, rank))
}

/// `copper leave`, with the invitation on standard input.
pub(crate) fn leave_from_input(rank: u32) -> Result<u8> {
    report(rank, "left", || leave(&read_invitation()?))
}

fn read_invitation() -> Result<Invitation> {
    Invitation::read(std::io::stdin().lock())
}

fn report(rank: u32, done: &str, action: impl FnOnce() -> Result<()>) -> Result<u8> {
    let (line, status) = match action() {
        Ok(()) => (format!("copper {rank} {done}\n"), 0),
        Err(error) => {
            let reason = format!("{error:#}").replace('\n', "; ");
            (format!("copper {rank} failed: {reason}\n"), 1)
        }
    };
    let mut output = std::io::stdout();
    output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
        .context("cannot tell the starter")?;
    Ok(status)
}

/// What the node of this rank said, among whatever else is in its output (a login shell may greet).
pub(super) fn find_report(output: &str, rank: u32) -> Option<Said> {
    let start = format!("copper {rank} ");
    let words = output.lines().rev().find_map(|line| {
        let at = line.find(&start)?;
        Some(line[at + start.len()..].trim_end())
    })?;
    match words {
        "ready" | "left" => Some(Said::Done),
        words => words
            .strip_prefix("failed: ")
            .map(|reason| Said::Failed(reason.to_owned())),
    }
}

/// Starts this node's helper of the job, and waits until it listens.
pub(super) fn join(invitation: &Invitation, rank: u32) -> Result<()> {
    ensure!(
        (rank as usize) < invitation.job.hosts.len(),
        "the job has {} nodes, so there is none of rank {rank}",
        invitation.job.hosts.len()
    );
    let runtime = Runtime::make_at(invitation.runtime_directory())?;
    let _starting = runtime.lock_starting()?;
    if !is_free(&runtime)? {
        bail!(
            "a helper of yours is running there already (in {}); stop it there with: copper stop",
            runtime.directory().display()
        );
    }
    let environment = invitation.missing_environment();
    let launch = Launch {
        service: &invitation.service,
        log: invitation.log.as_deref(),
        log_level: &invitation.log_level,
        while_attached: false,
        membership: Some(Membership {
            rank,
            environment: &environment,
            patience: invitation.patience(),
        }),
    };
    if let Err(error) = invitation.job.write(&runtime) {
        runtime.remove_as_starter();
        return Err(error);
    }
    launch::start(&runtime, &launch).map(drop)
}

/// Whether there is no helper; one that is ending (its job has just been stopped) is waited for.
fn is_free(runtime: &Runtime) -> Result<bool> {
    let until = Instant::now() + ENDING_TIME;
    while connect(runtime)?.is_some() {
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

/// Ends this node's helper, if it is one of this very job.
pub(super) fn leave(invitation: &Invitation) -> Result<()> {
    let Some(runtime) = Runtime::find_at(invitation.runtime_directory())? else {
        return Ok(());
    };
    // A join that is still at it (its launcher may have been ended) is waited for.
    let _starting = runtime.lock_starting()?;
    if !invitation.is_of(&runtime)? {
        return Ok(());
    }
    if let Some(connection) = connect(&runtime)? {
        connection.ask(Operation::Stop, b"")?;
    }
    runtime.remove_as_starter();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found_among_greetings() {
        let greeted = "Welcome!\nlast login: copper 4\ncopper 3 ready\n";
        assert_eq!(find_report(greeted, 3), Some(Said::Done));
        assert_eq!(find_report(greeted, 4), None);
        let failed = "node3: copper 3 failed: port 17000 is in use: try another\n";
        let reason = "port 17000 is in use: try another".to_owned();
        assert_eq!(find_report(failed, 3), Some(Said::Failed(reason)));
        assert_eq!(find_report("copper 31 ready\n", 3), None);
        assert_eq!(find_report("", 3), None);
    }
}
