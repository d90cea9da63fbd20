//! `copper run`: a command under the shim, with its signals and its exit status.

use crate::audit;
use crate::cli;
use crate::client::NoAnswer;
use crate::commands::ask_status;
use crate::environment;
use crate::helper::covered_prefixes;
use crate::launch::{self, Launch};
use crate::launch_line;
use crate::runtime::Runtime;
use crate::signals::{SignalSet, stop_self};
use anyhow::{Context, Result};
use copper_core::location::DISABLE_VARIABLE;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Signals that are for the command.
const FORWARDED: [i32; 9] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGCONT,
];

/// Runs the command; returns its exit status.
pub(crate) fn run(arguments: &cli::Run, launch: &Launch<'_>) -> Result<u8> {
    let runtime = Runtime::make()?;
    let wanted = covered_prefixes(&arguments.service.cover)?;
    let attachment = match launch::attach(&runtime, launch) {
        Ok(attachment) => attachment,
        Err(error) if error.is::<NoAnswer>() => {
            eprintln!("copper: {error}; the command runs without it");
            let disabled = vec![(DISABLE_VARIABLE, OsString::from("1"))];
            return execute(&arguments.command, disabled, None);
        }
        Err(error) => return Err(error),
    };
    let covered = all_covered(&runtime, wanted)?;
    let audit = audit::wanted(&runtime, arguments.audit)?;
    let variables = environment::variables(&runtime, &covered, audit.as_ref())?;
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    let line = launch_line::for_ranks(&arguments.command, &names);
    // The shim, not this program, finds covered programs and starts them from the store.
    let through = std::env::current_exe().context("cannot find this program's file")?;
    let status = execute(&line, variables, Some(&through))?;
    drop(attachment);
    Ok(status)
}

/// The prefixes that the helper covers and those that this run wants.
fn all_covered(runtime: &Runtime, wanted: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let mut covered = wanted;
    if let Some((status, _)) = ask_status(runtime)? {
        for prefix in status.covered {
            let prefix = prefix.into_bytes();
            if !covered.contains(&prefix) {
                covered.push(prefix);
            }
        }
    }
    Ok(covered)
}

/// Becomes the command; returns the exit status that says why it could not.
pub(crate) fn become_command(line: &[OsString]) -> u8 {
    let mut command = Command::new(&line[0]);
    cannot_run(&line[0], &command.args(&line[1..]).exec())
}

fn cannot_run(program: &OsStr, error: &std::io::Error) -> u8 {
    eprintln!("copper: cannot run {}: {error}", program.display());
    match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

/// Runs the command, with `through` by `copper exec`, to its end; returns its exit status.
fn execute(
    line: &[OsString],
    variables: Vec<(&'static str, OsString)>,
    through: Option<&Path>,
) -> Result<u8> {
    let taken: Vec<i32> = FORWARDED.into_iter().chain([libc::SIGCHLD]).collect();
    let taken = SignalSet::of(&taken);
    let before = taken.block()?;
    let mut command = match through {
        None => Command::new(&line[0]),
        Some(program) => {
            let mut command = Command::new(program);
            command.args(["exec", "--"]).arg(&line[0]);
            command
        }
    };
    command.args(&line[1..]).envs(variables);
    // SAFETY: between fork and exec only the signal mask is set, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || before.set_blocked());
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return Ok(cannot_run(&line[0], &error));
        }
    };
    let Some(pid) = Pid::from_raw(child.id() as i32) else {
        anyhow::bail!("the command has no process id");
    };
    loop {
        if let Some(status) = ended(pid)? {
            return Ok(status);
        }
        match taken.wait() {
            Ok(received) => pass_on(pid, received.signal, received.by_kernel),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The exit status of the command, if it has ended.
fn ended(pid: Pid) -> Result<Option<u8>> {
    let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG)? else {
        return Ok(None);
    };
    if let Some(code) = status.exit_status() {
        return Ok(Some(code as u8));
    }
    Ok(status
        .terminating_signal()
        .map(|signal| (128 + signal) as u8))
}

/// Passes a signal on to the command, unless a terminal has sent it there as well.
fn pass_on(pid: Pid, signal: i32, by_kernel: bool) {
    if signal == libc::SIGCHLD {
        return;
    }
    // A shell that continues a job continues all of it.
    let there_already = by_kernel || (signal == libc::SIGCONT && !is_stopped(pid));
    if !there_already && let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(pid, signal);
    }
    if signal == libc::SIGTSTP {
        stop_self();
    }
}

fn is_stopped(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|text| {
        text.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}
