//! All nodes of a job: their launchers run, many at a time, and what became of each is told.

use super::conversation::{Ended, hold};
use super::invitation::Invitation;
use super::join::{self, Keeper, Said, find_report};
use super::launcher::{Launcher, Once};
use super::private_file::PrivateFile;
use super::step::{Step, Watch};
use super::table::{Input, Nodes};
use crate::runtime::variable;
use anyhow::{Context, Result};
use copper_core::location::DISABLE_VARIABLE;
use rustix::process::Pid;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Launchers that run at once.
const AT_ONCE: usize = 64;
/// How long the others are waited for when a node has failed: the start cannot succeed any more.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How many lines of a launcher's errors are shown, and how long one may be.
const SHOWN_LINES: usize = 3;
const SHOWN_CHARACTERS: usize = 300;

/// What is done on each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Its helper is started.
    Join,
    /// Its helper is ended.
    Leave,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Join => "join",
            Action::Leave => "leave",
        }
    }
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done.
    Done,
    /// It is not, and the node has no helper of ours, for this reason.
    Failed(String),
    /// Nobody knows, for this reason; the node may have a helper.
    Unknown(String),
}

/// Everything that is needed to reach the nodes.
pub(super) struct Fleet<'a> {
    /// What they are told.
    pub(super) invitation: &'a Invitation,
    /// The proof of the job that they are told of.
    pub(super) proof: String,
    /// How they are reached.
    pub(super) launcher: &'a Launcher,
    /// This program's file.
    pub(super) program: &'a str,
    /// The node that needs no launcher.
    pub(super) own_rank: u32,
    /// The process with whose end this node's helper is to end the job.
    pub(super) watched: Option<Pid>,
    /// A directory that all nodes see, if the user has named one.
    pub(super) shared_directory: Option<&'a Path>,
    /// How many nodes may fail.
    pub(super) tolerated: usize,
    /// Launchers that stay.
    pub(super) steps: Mutex<Vec<Step>>,
    /// Set by a signal: nothing more is to be started or waited for.
    pub(super) interrupted: &'a AtomicBool,
}

/// When to stop waiting.
struct Patience<'a> {
    deadline: Mutex<Instant>,
    failures: AtomicUsize,
    tolerated: usize,
    shortened: AtomicBool,
    interrupted: &'a AtomicBool,
}

impl Patience<'_> {
    fn is_over(&self) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        self.interrupted.load(Ordering::Relaxed) || Instant::now() >= deadline
    }

    /// A node has failed: the others are not waited for much longer where that is one too many.
    fn note_failure(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures > self.tolerated && !self.shortened.swap(true, Ordering::Relaxed) {
            let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
            *deadline = (*deadline).min(Instant::now() + AFTER_FAILURE);
        }
    }

    fn reason(&self) -> String {
        if self.interrupted.load(Ordering::Relaxed) {
            "the start was interrupted".to_owned()
        } else if self.shortened.load(Ordering::Relaxed) {
            format!(
                "no answer within {} s after another node had failed",
                AFTER_FAILURE.as_secs()
            )
        } else {
            "no answer in time (see --start-timeout)".to_owned()
        }
    }
}

impl Fleet<'_> {
    /// Does the action on the nodes `ranks`, until the deadline, which a failure brings nearer;
    /// `tell` hears of each node as soon as its outcome is known.
    pub(super) fn act(
        &self,
        action: Action,
        ranks: &[u32],
        deadline: Instant,
        tell: &mut dyn FnMut(u32, &Outcome),
    ) -> Vec<(u32, Outcome)> {
        let patience = Patience {
            deadline: Mutex::new(deadline),
            failures: AtomicUsize::new(0),
            tolerated: self.tolerated,
            shortened: AtomicBool::new(false),
            interrupted: self.interrupted,
        };
        if let Launcher::Once(once) = self.launcher {
            return self.act_once(once, action, ranks, &patience, tell);
        }
        let text = match self.invitation.to_text() {
            Ok(text) => text,
            Err(error) => return all_failed(ranks, &format!("{error:#}"), tell),
        };
        let next = AtomicUsize::new(0);
        let mut outcomes = Vec::with_capacity(ranks.len());
        thread::scope(|scope| {
            let (sender, received) = mpsc::channel();
            for _ in 0..AT_ONCE.min(ranks.len()) {
                let (sender, next, patience) = (sender.clone(), &next, &patience);
                let text = &text;
                scope.spawn(move || {
                    while let Some(&rank) = ranks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let outcome = self.act_on(action, rank, text, patience);
                        if action == Action::Join && outcome != Outcome::Done {
                            patience.note_failure();
                        }
                        if sender.send((rank, outcome)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (rank, outcome) in received {
                tell(rank, &outcome);
                outcomes.push((rank, outcome));
            }
        });
        outcomes.sort_by_key(|(rank, _)| *rank);
        outcomes
    }

    fn act_here(&self, action: Action) -> Outcome {
        let acted = match action {
            Action::Join => {
                let keeper = Keeper::Starter(self.watched);
                join::join(self.invitation, self.own_rank, keeper).map(drop)
            }
            Action::Leave => join::leave(self.invitation),
        };
        match acted {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }

    fn act_on(&self, action: Action, rank: u32, text: &[u8], patience: &Patience<'_>) -> Outcome {
        if patience.is_over() {
            return Outcome::Failed(format!("not started: {}", patience.reason()));
        }
        if rank == self.own_rank {
            return self.act_here(action);
        }
        match self.launch(action, rank, text, patience) {
            Ok(ended) => self.judge(&ended, rank, patience),
            Err(error) => Outcome::Failed(format!(
                "{} could not be run: {error:#}",
                self.launcher.name()
            )),
        }
    }

    fn launch(
        &self,
        action: Action,
        rank: u32,
        text: &[u8],
        patience: &Patience<'_>,
    ) -> Result<Ended> {
        let host = self.host(rank);
        let words = [self.program, action.word(), "--rank", &rank.to_string()].map(str::to_owned);
        let words = self.launcher.words(host, rank, &words)?;
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            // A launcher under the shim would ask the very helper that it starts.
            .env(DISABLE_VARIABLE, "1");
        hold(command, text, &|| patience.is_over())
    }

    /// Does the action on all nodes with one command. This node needs none and is the first, unless
    /// the launcher ends what it has started with the batch job: then that is best for all.
    fn act_once(
        &self,
        once: &Once,
        action: Action,
        ranks: &[u32],
        patience: &Patience<'_>,
        tell: &mut dyn FnMut(u32, &Outcome),
    ) -> Vec<(u32, Outcome)> {
        let mut outcomes = Vec::with_capacity(ranks.len());
        let mut note = |rank: u32, outcome: Outcome| {
            if action == Action::Join && outcome != Outcome::Done {
                patience.note_failure();
            }
            tell(rank, &outcome);
            outcomes.push((rank, outcome));
        };
        let mut others = ranks.to_vec();
        if !once.entry.stays || action == Action::Leave {
            others.retain(|&rank| rank != self.own_rank);
        }
        if others.len() < ranks.len() {
            let outcome = self.act_here(action);
            let failed = action == Action::Join && outcome != Outcome::Done;
            note(self.own_rank, outcome);
            if failed {
                let reason = Outcome::Failed("not started: this node failed".to_owned());
                others.iter().for_each(|&rank| note(rank, reason.clone()));
                return outcomes;
            }
        }
        if !others.is_empty()
            && let Err(error) = self.run_once(once, action, &others, patience, &mut note)
        {
            let program = once.entry.program();
            let reason = Outcome::Failed(format!("{program} could not be run: {error:#}"));
            others.iter().for_each(|&rank| note(rank, reason.clone()));
        }
        outcomes.sort_by_key(|(rank, _)| *rank);
        outcomes
    }

    fn run_once(
        &self,
        once: &Once,
        action: Action,
        ranks: &[u32],
        patience: &Patience<'_>,
        note: &mut dyn FnMut(u32, Outcome),
    ) -> Result<()> {
        let entry = once.entry;
        let text = self.invitation.in_order(ranks).to_text()?;
        let hosts: Vec<&str> = ranks.iter().map(|&rank| self.host(rank)).collect();
        let hostfile = entry
            .wants_hostfile()
            .then(|| PrivateFile::make(&std::env::temp_dir(), hosts.join("\n").as_bytes()))
            .transpose()?;
        let invitation = (entry.input == Input::File || self.shared_directory.is_some())
            .then(|| PrivateFile::make(&self.shared_directory()?, &text))
            .transpose()
            .context(
                "the job's description must lie in a directory that all nodes see; name one \
                      with --shared-directory",
            )?;
        let stays = entry.stays && action == Action::Join;
        let mut words = vec![self.program.to_owned(), action.word().to_owned()];
        if stays {
            words.push("--stay".to_owned());
        }
        if let Some(file) = &invitation {
            words.extend(["--invitation".to_owned(), file.name()?.to_owned()]);
        }
        let nodes = Nodes {
            hosts: &hosts,
            hostfile: hostfile.as_ref().map_or(Ok(""), PrivateFile::name)?,
            places: &once.places_of(&hosts)?,
        };
        let words = entry.words(nodes, &words);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env(DISABLE_VARIABLE, "1");
        let input = if invitation.is_some() { &[][..] } else { &text };
        let mut step = Step::start(command, !input.is_empty())?;
        let watch = Watch {
            pending: ranks.iter().copied().collect(),
            is_over: &|| patience.is_over(),
            reason: &|| patience.reason(),
            judge: &|said| self.outcome_of(said),
            tell: note,
        };
        step.watch(input, entry.program(), watch)?;
        if stays {
            self.steps
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(step);
        } else {
            step.finish();
        }
        Ok(())
    }

    fn host(&self, rank: u32) -> &str {
        &self.invitation.job.hosts[rank as usize]
    }

    fn shared_directory(&self) -> Result<PathBuf> {
        match self.shared_directory {
            Some(named) => Ok(std::path::absolute(named)?),
            None => variable("HOME")
                .map(PathBuf::from)
                .context("HOME is not set"),
        }
    }

    /// Ends the launchers that stay, and what their tasks have started.
    pub(super) fn end_steps(&self) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.drain(..).for_each(|mut step| step.end());
    }

    /// What it means that a node said this.
    fn outcome_of(&self, said: Said) -> Outcome {
        match said {
            Said::Failed(reason) => Outcome::Failed(reason),
            Said::Left => Outcome::Done,
            Said::Ready(proof) if proof == self.proof => Outcome::Done,
            Said::Ready(_) => Outcome::Unknown(OTHER_JOB.to_owned()),
        }
    }

    fn judge(&self, ended: &Ended, rank: u32, patience: &Patience<'_>) -> Outcome {
        let launcher = self.launcher.name();
        match (find_report(&ended.output, rank), ended.status) {
            (Some(said), _) => self.outcome_of(said),
            (None, None) => {
                let errors = last_lines(&ended.errors);
                Outcome::Unknown(format!("{}{errors}", patience.reason()))
            }
            (None, Some(status)) => {
                let errors = last_lines(&ended.errors);
                Outcome::Unknown(format!("{launcher} {}{errors}", ending(status)))
            }
        }
    }
}

fn all_failed(
    ranks: &[u32],
    reason: &str,
    tell: &mut dyn FnMut(u32, &Outcome),
) -> Vec<(u32, Outcome)> {
    let failed = |&rank: &u32| {
        let outcome = Outcome::Failed(reason.to_owned());
        tell(rank, &outcome);
        (rank, outcome)
    };
    ranks.iter().map(failed).collect()
}

/// Said of a node whose helper cannot belong to the job.
const OTHER_JOB: &str = "its helper was started with another key, or otherwise for another job than \
                         this one: the launcher changes the job's description on its way; look at \
                         what --launch runs";

/// How a launcher ended that brought no report.
pub(super) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "brought no report back: it must pass on standard input and output".into(),
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// What a launcher said last, as the end of a sentence.
pub(super) fn last_lines(errors: &str) -> String {
    let lines: Vec<&str> = errors
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    let shorten = |line: &&str| -> String {
        let plain = line.chars().filter(|character| !character.is_control());
        plain.take(SHOWN_CHARACTERS).collect()
    };
    match shown.is_empty() {
        true => String::new(),
        false => format!(
            ": {}",
            shown.iter().map(shorten).collect::<Vec<_>>().join("; ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_errors_are_shown() {
        assert_eq!(last_lines(""), "");
        assert_eq!(last_lines("\n \n"), "");
        assert_eq!(last_lines("a\nb\n\nc\n d\n"), ": b; c; d");
        assert_eq!(last_lines("\u{1b}[31mred"), ": [31mred");
        assert_eq!(last_lines(&"x".repeat(1000)).len(), 2 + SHOWN_CHARACTERS);
    }
}
