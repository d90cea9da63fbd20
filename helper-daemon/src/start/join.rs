//! `copper join` and `copper leave`: one node's part of `copper start`.
//!
//! Each prints one line for the starter: `copper RANK ready PROOF`, `copper RANK left`, or
//! `copper RANK failed: REASON`. The proof is that of the job's description as it came here.
#![forbid(unsafe_code)]

use super::invitation::Invitation;
use super::{here, private_file, table};
use crate::cli::Member;
use crate::client::connect;
use crate::launch::{self, Launch, Membership};
use crate::runtime::{Runtime, variable};
use anyhow::{Context, Result, bail, ensure};
use copper_core::request::Operation;
use rustix::process::Pid;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a helper that is there may take to end.
pub(super) const ENDING_TIME: Duration = Duration::from_secs(1);
/// Between two looks whether it has.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What a node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Its helper serves; the proof of the job that it was started for.
    Ready(String),
    /// Its helper has ended.
    Left,
    /// It cannot do it.
    Failed(String),
}

/// `copper join`.
pub(crate) fn join_as_told(member: &Member) -> Result<u8> {
    let mut helper = None;
    let status = report(member, |invitation, rank| {
        let keeper = match member.stay {
            true => Keeper::Launcher,
            false => Keeper::Nobody,
        };
        helper = Some(join(invitation, rank, keeper)?);
        Ok(format!("ready {}", invitation.job.proof()?))
    })?;
    if let Some(helper) = helper.filter(|_| member.stay) {
        wait_for_end(&helper);
    }
    Ok(status)
}

/// `copper leave`.
pub(crate) fn leave_as_told(member: &Member) -> Result<u8> {
    report(member, |invitation, _| {
        leave(invitation).map(|()| "left".to_owned())
    })
}

/// Waits until the other end is closed.
fn wait_for_end(mut helper: &UnixStream) {
    let _ = helper.set_read_timeout(None);
    let mut rest = [0; 64];
    while matches!(helper.read(&mut rest), Ok(length) if length > 0) {}
}

fn read_invitation(member: &Member) -> Result<Invitation> {
    let read = match &member.invitation {
        Some(path) => Invitation::read(private_file::open(path)?),
        None => Invitation::read(std::io::stdin().lock()),
    };
    read.map(Invitation::without_output)
}

fn report(member: &Member, action: impl FnOnce(&Invitation, u32) -> Result<String>) -> Result<u8> {
    let invitation = read_invitation(member);
    let rank = match (member.rank, &invitation) {
        (Some(rank), _) => rank,
        (None, Ok(invitation)) => find_rank(&invitation.job.hosts, &invitation.order)?,
        (None, Err(_)) => return invitation.map(|_| 1),
    };
    let acted = invitation.and_then(|invitation| action(&invitation, rank));
    // Of many tasks of one launcher none may fail: some launchers end the others then.
    let (line, status) = match acted {
        Ok(done) => (format!("copper {rank} {done}\n"), 0),
        Err(error) => {
            let reason = format!("{error:#}").replace('\n', "; ");
            let status = u8::from(member.rank.is_some());
            (format!("copper {rank} failed: {reason}\n"), status)
        }
    };
    let mut output = std::io::stdout();
    output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
        .context("cannot tell the starter")?;
    Ok(status)
}

/// The batch system's own name for this node, which is the only one where several are one machine.
const NAME_VARIABLE: &str = "SLURMD_NODENAME";

/// This node's place among the hosts, for a task that was started as one of many.
fn find_rank(hosts: &[String], order: &[u32]) -> Result<u32> {
    let text = |name: &str| variable(name)?.into_string().ok();
    let named = text(NAME_VARIABLE).and_then(|name| hosts.iter().position(|host| *host == name));
    if let Some(place) = named.or_else(|| here::place_by_name(hosts)) {
        return Ok(place as u32);
    }
    let task = table::place_variables().find_map(|name| text(name)?.parse::<usize>().ok());
    match task.and_then(|task| order.get(task)) {
        Some(&rank) => Ok(rank),
        None => here::rank_of_this_machine(hosts),
    }
}

/// What the node of this rank said, among whatever else is in its output (a login shell may greet).
pub(super) fn find_report(output: &str, rank: u32) -> Option<Said> {
    let mut reports = output.lines().rev().filter_map(read_report);
    reports.find_map(|(of, said)| (of == rank).then_some(said))
}

/// What a node said in a line, after whatever a launcher puts before it (the host's name).
pub(super) fn read_report(line: &str) -> Option<(u32, Said)> {
    const START: &str = "copper ";
    line.match_indices(START).find_map(|(at, _)| {
        let (rank, words) = line[at + START.len()..].split_once(' ')?;
        let said = match words.trim_end() {
            "left" => Said::Left,
            words => match words.split_once(' ')? {
                ("ready", proof) => Said::Ready(proof.to_owned()),
                ("failed:", reason) => Said::Failed(reason.to_owned()),
                _ => return None,
            },
        };
        Some((rank.parse().ok()?, said))
    })
}

/// Who sees to the end of a helper, beside `copper stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The user of the node where the job is started; the job ends with the process, if there is one.
    Starter(Option<Pid>),
    /// The launcher: the helper ends when what `join` returns is closed.
    Launcher,
    /// Nobody.
    Nobody,
}

/// Starts this node's helper of the job, and waits until it listens.
pub(super) fn join(invitation: &Invitation, rank: u32, keeper: Keeper) -> Result<UnixStream> {
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
    let mut service = invitation.service.clone();
    service.cut_off_limit = match (keeper, service.cut_off_limit) {
        (Keeper::Nobody, limit) if limit > 0 => limit.max(invitation.patience_seconds),
        _ => 0,
    };
    let launch = Launch {
        service: &service,
        log: invitation.log.as_deref(),
        log_level: &invitation.log_level,
        log_type: invitation.log_type,
        while_attached: keeper == Keeper::Launcher,
        watched: match keeper {
            Keeper::Starter(watched) => watched,
            Keeper::Launcher | Keeper::Nobody => None,
        },
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
    launch::start(&runtime, &launch)
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
        let greeted = "Welcome!\nlast login: copper 4\ncopper 3 ready 0a1b\n";
        assert_eq!(
            find_report(greeted, 3),
            Some(Said::Ready("0a1b".to_owned()))
        );
        assert_eq!(find_report(greeted, 4), None);
        let failed = "node3: copper 3 failed: port 17000 is in use: try another\n";
        let reason = "port 17000 is in use: try another".to_owned();
        assert_eq!(find_report(failed, 3), Some(Said::Failed(reason)));
        assert_eq!(find_report("copper 31 ready 0a1b\n", 3), None);
        assert_eq!(find_report("", 3), None);
        let prefixed = read_report("copper 1: 3: copper 12 left");
        assert_eq!(prefixed, Some((12, Said::Left)));
        assert_eq!(read_report("copper 3 ready"), None, "of what job?");
    }

    #[test]
    fn a_task_finds_its_place_by_its_host_s_name() {
        let own = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let hosts = ["elsewhere".to_owned(), own];
        assert_eq!(find_rank(&hosts, &[0]).expect("here"), 1);
    }
}
