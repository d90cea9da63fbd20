//! `copper doctor`: whether this node can run Copper, and what to do where it cannot.

mod fabric;
mod limits;
mod network;
mod places;
mod preload;
mod process;
mod system;

use crate::commands::print;
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `copper doctor`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// For programs: {"findings": [{"check", "state", "found", "advice"}], "problems", "notes"}.
    #[arg(long)]
    json: bool,
    /// Look at this place for the store instead of the usual ones.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Look at this place for the view instead of the usual one.
    #[arg(long, value_name = "DIR")]
    view: Option<PathBuf>,
    /// Look whether helpers can meet on this TCP port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Make this check alone, in this very process.
    #[arg(long, value_name = "CHECK", hide = true)]
    only: Option<Alone>,
}

/// A check that is made in a process of its own, because what it tries may hang or crash.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Alone {
    /// libfabric and its providers.
    Fabric,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Copper works, but something does not, or will not on larger jobs.
    Note,
    /// Copper does not work here.
    Problem,
}

/// What one check has found.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Finding {
    /// What was looked at.
    check: String,
    state: State,
    /// What is there.
    found: String,
    /// What to do about it; `None` where nothing is to be done.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Finding {
        Finding {
            check: check.to_owned(),
            state: State::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn note(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            state: State::Note,
            advice: Some(advice.into()),
            ..Finding::ok(check, found)
        }
    }

    fn problem(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            state: State::Problem,
            ..Finding::note(check, found, advice)
        }
    }
}

/// All that was found.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    findings: Vec<Finding>,
    problems: usize,
    notes: usize,
}

impl Report {
    fn of(findings: Vec<Finding>) -> Report {
        let count = |state| {
            let of_state = findings.iter().filter(|finding| finding.state == state);
            of_state.count()
        };
        Report {
            problems: count(State::Problem),
            notes: count(State::Note),
            findings,
        }
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let state = match finding.state {
                State::Ok => "ok",
                State::Note => "note",
                State::Problem => "PROBLEM",
            };
            text += &format!("{state:<8} {:<16} {}\n", finding.check, finding.found);
            if let Some(advice) = &finding.advice {
                text += &format!("{:25} -> {advice}\n", "");
            }
        }
        let counted = |number, what: &str| match number {
            1 => format!("1 {what}"),
            number => format!("{number} {what}s"),
        };
        let problems = counted(self.problems, "problem");
        text + &format!("{problems}, {}\n", counted(self.notes, "note"))
    }
}

/// Checks this node, prints what was found, and returns the exit status: 1 where there is a problem.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let report = Report::of(match options.only {
        Some(Alone::Fabric) => fabric::check_here(),
        None => examine(options),
    });
    if options.json {
        print(format!("{}\n", serde_json::to_string(&report)?).as_bytes())?;
    } else {
        print(report.describe().as_bytes())?;
    }
    Ok(u8::from(report.problems > 0))
}

fn examine(options: &Options) -> Vec<Finding> {
    [
        system::check(),
        preload::check(),
        places::check_stores(options.store.as_deref()),
        places::check_view(options.view.as_deref()),
        places::check_runtime(),
        limits::check(),
        network::check(options.port),
        fabric::check(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_says_what_to_do() {
        let report = Report::of(vec![
            Finding::ok("clock", "synchronised"),
            Finding::note("ports", "few", "ask for more"),
            Finding::problem("store", "/dev/shm is noexec", "give --store DIR"),
        ]);
        assert_eq!((report.problems, report.notes), (1, 1));
        let text = report.describe();
        assert!(text.contains("PROBLEM  store            /dev/shm is noexec\n"));
        assert!(text.contains("-> give --store DIR\n"));
        assert!(text.ends_with("1 problem, 1 note\n"), "{text}");
    }
}
