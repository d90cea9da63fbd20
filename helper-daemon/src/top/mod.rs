//! `copper top`: what the helper does, or those of all nodes, live in a terminal.
//!
//! A thread asks at each interval; the screen is drawn when something new came, a key was pressed or
//! the terminal changed its size.
#![forbid(unsafe_code)]

mod sample;
mod screen;

use crate::cli::Top;
use crate::commands;
use crate::job::Job;
use crate::runtime::Runtime;
use anyhow::{Context, Result, ensure};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use sample::{History, Sample};
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// How long a key waits at most until it is heeded.
const KEY_TIME: Duration = Duration::from_millis(100);

/// Shows it until the user ends it.
pub(crate) fn run(arguments: &Top) -> Result<()> {
    ensure!(
        std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
        "copper top needs a terminal; for programs there is copper status --json, with --all of all \
         nodes"
    );
    let runtime = commands::running()?;
    let job = Job::read(&runtime)?.filter(|_| !arguments.node);
    ensure!(
        job.is_some() || !arguments.all,
        "the helper of this node is not one of several; leave --all out"
    );
    // What is wrong at the start is said in words, not on a screen that is gone at once.
    let first = Sample::ask(&runtime, job.as_ref())?;
    let interval = Duration::from_secs(arguments.interval.into());
    let samples = ask_at_intervals(runtime, job, interval);
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, first, &samples);
    ratatui::restore();
    shown
}

fn ask_at_intervals(
    runtime: Runtime,
    job: Option<Job>,
    interval: Duration,
) -> Receiver<Result<Sample>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            if sender.send(Sample::ask(&runtime, job.as_ref())).is_err() {
                return;
            }
        }
    });
    receiver
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    first: Sample,
    samples: &Receiver<Result<Sample>>,
) -> Result<()> {
    let mut history = History::new(first);
    let mut is_new = true;
    loop {
        loop {
            match samples.try_recv() {
                Ok(sample) => {
                    is_new |= history.take(sample);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        if std::mem::take(&mut is_new) {
            terminal.draw(|frame| screen::draw(frame, &history))?;
        }
        if !event::poll(KEY_TIME)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => {
                let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('c') if is_control => return Ok(()),
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('p' | ' ') => history.toggle_pause(),
                    _ => continue,
                }
            }
            Event::Resize(..) => {}
            _ => continue,
        }
        is_new = true;
    }
}
