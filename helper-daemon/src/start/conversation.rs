//! One process: its input is given, its output and errors are read to their end, and it ends in
//! time, or is ended.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How much of the output is kept, in bytes: the last.
const KEPT: usize = 64 << 10;
/// How often the deadline is looked at, and whether the process has ended while others (a master
/// connection of ssh) hold its pipes.
const TICK: Duration = Duration::from_millis(50);

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status; `None` where it did not end in time.
    pub(super) status: Option<ExitStatus>,
    /// The last part of its output.
    pub(super) output: String,
    /// The last part of its errors.
    pub(super) errors: String,
}

/// Runs `command` in a process group of its own, until it ends or `is_over` says so.
pub(super) fn hold(
    mut command: Command,
    input: &[u8],
    is_over: &dyn Fn() -> bool,
) -> Result<Ended> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn()?;
    let talked = talk(&mut child, input, is_over);
    if !matches!(
        talked,
        Ok(Ended {
            status: Some(_),
            ..
        })
    ) {
        end_group(&mut child, Duration::ZERO);
    }
    talked
}

/// Ends a process with its group: it is asked to, and killed after `patience`.
pub(super) fn end_group(child: &mut Child, patience: Duration) {
    let until = Instant::now() + patience;
    if let Ok(Some(group)) = i32::try_from(child.id()).map(Pid::from_raw) {
        if !patience.is_zero() {
            let _ = kill_process_group(group, Signal::TERM);
        }
        while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(TICK);
        }
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

fn talk(child: &mut Child, input: &[u8], is_over: &dyn Fn() -> bool) -> Result<Ended> {
    let mut feeding = Feeding::new(child.stdin.take(), input)?;
    let mut output = Tail::new(child.stdout.take())?;
    let mut errors = Tail::new(child.stderr.take())?;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for a process")? {
            break Some(status);
        }
        if is_over() {
            break None;
        }
        wait_for_any(&feeding, &output, &errors);
        feeding.advance();
        output.advance();
        errors.advance();
    };
    output.advance();
    errors.advance();
    Ok(Ended {
        status,
        output: output.into_text(),
        errors: errors.into_text(),
    })
}

fn wait_for_any<O: AsFd, E: AsFd>(feeding: &Feeding<'_>, output: &Tail<O>, errors: &Tail<E>) {
    let mut watched = Vec::with_capacity(3);
    if let Some(pipe) = &feeding.pipe {
        watched.push(PollFd::new(pipe, PollFlags::OUT));
    }
    if let Some(pipe) = &output.pipe {
        watched.push(PollFd::new(pipe, PollFlags::IN));
    }
    if let Some(pipe) = &errors.pipe {
        watched.push(PollFd::new(pipe, PollFlags::IN));
    }
    // A process that has closed its pipes is about to end.
    let tick = if watched.is_empty() { TICK / 10 } else { TICK };
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(tick.subsec_nanos()),
    };
    let _ = poll(&mut watched, Some(&tick));
}

fn make_nonblocking(pipe: &impl AsFd) -> Result<()> {
    let set = fcntl_getfl(pipe).and_then(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK));
    set.context("cannot set up a pipe")
}

/// The way in.
pub(super) struct Feeding<'i> {
    pipe: Option<ChildStdin>,
    left: &'i [u8],
}

impl<'i> Feeding<'i> {
    /// `input` for the process at the other end of `pipe`.
    pub(super) fn new(pipe: Option<ChildStdin>, input: &'i [u8]) -> Result<Feeding<'i>> {
        if let Some(pipe) = &pipe {
            make_nonblocking(pipe)?;
        }
        Ok(Feeding { pipe, left: input })
    }

    /// Writes what the pipe takes; closes it when all is written or nobody reads.
    pub(super) fn advance(&mut self) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        while !self.left.is_empty() {
            match pipe.write(self.left) {
                Ok(written) => self.left = &self.left[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.pipe = None;
    }
}

/// The last part of what comes out of a pipe.
struct Tail<P> {
    pipe: Option<P>,
    kept: Vec<u8>,
}

impl<P: Read + AsFd> Tail<P> {
    fn new(pipe: Option<P>) -> Result<Tail<P>> {
        if let Some(pipe) = &pipe {
            make_nonblocking(pipe)?;
        }
        Ok(Tail {
            pipe,
            kept: Vec::new(),
        })
    }

    /// Reads what there is, a bounded amount of it.
    fn advance(&mut self) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        let mut part = [0; 8192];
        for _ in 0..KEPT / part.len() {
            match pipe.read(&mut part) {
                Ok(0) => {
                    self.pipe = None;
                    break;
                }
                Ok(length) => self.kept.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.pipe = None;
                    break;
                }
            }
        }
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    fn into_text(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn at(deadline: Instant) -> impl Fn() -> bool {
        move || Instant::now() >= deadline
    }

    fn soon() -> impl Fn() -> bool {
        at(Instant::now() + Duration::from_secs(20))
    }

    #[test]
    fn input_output_and_errors_pass_whatever_their_length() {
        let input = vec![b'x'; 1 << 20];
        let script = "wc -c; yes | head -c 1000000; echo last; echo why >&2; exit 3";
        let ended = hold(shell(script), &input, &soon()).expect("ran");
        assert_eq!(ended.status.and_then(|status| status.code()), Some(3));
        assert!(ended.output.ends_with("last\n"));
        assert!(ended.output.len() <= KEPT);
        assert_eq!(ended.errors, "why\n");
        let unread = hold(shell("exec <&-; echo done"), &input, &soon()).expect("ran");
        assert_eq!(unread.output, "done\n");
    }

    #[test]
    fn a_process_is_not_waited_for_longer_than_asked() {
        let start = Instant::now();
        let deadline = at(start + Duration::from_millis(300));
        let script = "echo here; trap '' TERM; while :; do sleep 1; done";
        let ended = hold(shell(script), b"", &deadline).expect("ran");
        assert!(ended.status.is_none());
        assert_eq!(ended.output, "here\n");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_a_process_leaves_behind_does_not_hold_us() {
        let start = Instant::now();
        let ended = hold(shell("sleep 8 & echo done"), b"", &soon()).expect("ran");
        assert_eq!(ended.output, "done\n");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(hold(Command::new("/no/such/program"), b"", &soon()).is_err());
    }
}
