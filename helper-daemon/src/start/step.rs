//! One launcher's command for many nodes: it is given its input, what the nodes' tasks say is read
//! while it runs, and where its tasks stay it is left running.

use super::conversation::{Feeding, end_group};
use super::fleet::{Outcome, ending, last_lines};
use super::join::{Said, read_report};
use anyhow::{Context, Result};
use rustix::fs::MemfdFlags;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long nodes may be silent after others have answered, where the launcher has complained: it
/// says on which node it could not start a task, and goes on with the others.
const AFTER_COMPLAINT: Duration = Duration::from_secs(5);
/// How long a launcher may take to end when all its tasks have said how they fare.
const ENDING_TIME: Duration = Duration::from_secs(2);
/// How much of a launcher's errors is read, in bytes: the last.
const ERRORS: u64 = 16 << 10;

/// A launcher that runs.
#[derive(Debug)]
pub(super) struct Step {
    child: Child,
    /// Memory, and no pipe: a launcher that stays may write when nobody reads any more.
    output: Growing,
    errors: File,
}

/// What to do for which nodes.
pub(super) struct Watch<'w> {
    /// The nodes' ranks.
    pub(super) pending: HashSet<u32>,
    /// Whether it is over before all have answered.
    pub(super) is_over: &'w dyn Fn() -> bool,
    /// Why it is over.
    pub(super) reason: &'w dyn Fn() -> String,
    /// What it means that a node said something.
    pub(super) judge: &'w dyn Fn(Said) -> Outcome,
    /// Hears of each node.
    pub(super) tell: &'w mut dyn FnMut(u32, Outcome),
}

impl Step {
    /// Starts `command` in a process group of its own.
    pub(super) fn start(mut command: Command, has_input: bool) -> Result<Step> {
        let memory = || -> Result<File> {
            let memory = rustix::fs::memfd_create("copper-launcher", MemfdFlags::CLOEXEC);
            Ok(File::from(memory.context("cannot make a memory file")?))
        };
        let (output, errors) = (memory()?, memory()?);
        let input = if has_input {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .stdin(input)
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?)
            .process_group(0);
        Ok(Step {
            child: command.spawn()?,
            output: Growing::new(output),
            errors,
        })
    }

    /// Gives the launcher its input, and waits until all nodes have said how they fare, or it is
    /// over. What they did not say is told as well. The launcher still runs, or it has ended.
    pub(super) fn watch(
        &mut self,
        input: &[u8],
        program: &str,
        mut watch: Watch<'_>,
    ) -> Result<()> {
        let mut feeding = Feeding::new(self.child.stdin.take(), input)?;
        let mut answered = None;
        let reason = loop {
            feeding.advance();
            let status = self.child.try_wait().context("cannot wait for a process")?;
            if self.read_reports(&mut watch)? {
                answered = Some(Instant::now());
            }
            if watch.pending.is_empty() {
                return Ok(());
            }
            if let Some(status) = status {
                break format!("{program} {}", ending(status));
            }
            if (watch.is_over)() {
                break (watch.reason)();
            }
            if answered.is_some_and(|last| last.elapsed() > AFTER_COMPLAINT)
                && self.has_complained()
            {
                break format!("no answer, and {program} complained");
            }
            std::thread::sleep(PAUSE);
        };
        let said = last_lines(&self.last_errors());
        for rank in std::mem::take(&mut watch.pending) {
            (watch.tell)(rank, Outcome::Unknown(format!("{reason}{said}")));
        }
        Ok(())
    }

    fn has_complained(&self) -> bool {
        self.errors.metadata().is_ok_and(|found| found.len() > 0)
    }

    /// Whether a node has answered.
    fn read_reports(&mut self, watch: &mut Watch<'_>) -> Result<bool> {
        let mut any = false;
        while let Some(line) = self.output.next_line()? {
            let Some((rank, said)) = read_report(&line) else {
                continue;
            };
            if watch.pending.remove(&rank) {
                any = true;
                let outcome = (watch.judge)(said);
                (watch.tell)(rank, outcome);
            }
        }
        Ok(any)
    }

    fn last_errors(&self) -> String {
        let length = self.errors.metadata().map_or(0, |found| found.len());
        let start = length.saturating_sub(ERRORS);
        let mut text = vec![0; (length - start) as usize];
        match self.errors.read_exact_at(&mut text, start) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// Waits for a launcher whose tasks do not stay, and ends it if need be.
    pub(super) fn finish(&mut self) {
        let until = Instant::now() + ENDING_TIME;
        while self.status().is_none() {
            if Instant::now() >= until {
                self.end();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends the launcher, and with it tasks that stay.
    pub(super) fn end(&mut self) {
        if self.status().is_none() {
            end_group(&mut self.child, ENDING_TIME);
        }
    }
}

/// A file that others write, read line by line.
#[derive(Debug)]
struct Growing {
    file: File,
    read: u64,
    begun: Vec<u8>,
}

impl Growing {
    fn new(file: File) -> Growing {
        Growing {
            file,
            read: 0,
            begun: Vec::new(),
        }
    }

    /// The next whole line without its end.
    fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.begun.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            let mut part = [0; 8192];
            let length = self
                .file
                .read_at(&mut part, self.read)
                .context("cannot read what the launcher says")?;
            if length == 0 {
                return Ok(None);
            }
            self.read += length as u64;
            self.begun.extend_from_slice(&part[..length]);
        }
    }
}
