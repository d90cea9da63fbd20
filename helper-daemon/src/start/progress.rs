//! How far a start has come, on standard error: a line that changes where that is a terminal,
//! and a line per second and change elsewhere.
#![forbid(unsafe_code)]

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Plain lines come no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the changing line is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// What is shown.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    said: Instant,
}

impl Progress {
    /// For `total` nodes.
    pub(super) fn new(total: usize) -> Progress {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let bar = style
            .ok()
            .filter(|_| std::io::stderr().is_terminal())
            .map(|style| {
                let bar = ProgressBar::new_spinner().with_style(style);
                bar.enable_steady_tick(REDRAW);
                bar
            });
        Progress {
            bar,
            total,
            said: Instant::now(),
        }
    }

    /// So many helpers have joined, and so many nodes have failed.
    pub(super) fn joined(&mut self, joined: usize, failed: usize) {
        let mut text = format!("helpers joined {joined}/{}", self.total);
        if failed > 0 {
            text += &format!(", {failed} failed");
        }
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if joined + failed == self.total || self.said.elapsed() >= PAUSE => {
                self.said = Instant::now();
                print_line(&text);
            }
            None => {}
        }
    }

    /// Shows what is waited for now.
    pub(super) fn waiting_for(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Prints a line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print_line(line)),
            None => print_line(line),
        }
    }
}

/// Prints a line on standard error. Nobody may be reading there any more; the start goes on.
pub(super) fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
