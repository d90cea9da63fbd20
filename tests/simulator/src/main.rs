//! `simulate`: runs fault schedules, replays one, or makes the scale report.

use clap::{Parser, Subcommand};
use copper_simulator::faults::{self, Schedule};
use copper_simulator::scale;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Parser)]
#[command(about = "Runs the cooperative tree on a virtual clock")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs fault schedules and stops at the first that fails.
    Faults {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many seeds.
        #[arg(long, default_value_t = 10_000)]
        count: u64,
        /// Threads; all processors if not given.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Makes the scale report.
    Scale {
        /// The smallest job that is run; what an earlier report says of others is kept.
        #[arg(long, default_value_t = 1)]
        from: u32,
        /// The largest job.
        #[arg(long, default_value_t = 100_000)]
        most: u32,
        /// Only workloads whose names hold this.
        #[arg(long, default_value = "")]
        workload: String,
        /// Only schemes whose names hold this.
        #[arg(long, default_value = "")]
        scheme: String,
        /// Runs at a time; as many as there are processors if not given.
        #[arg(long)]
        threads: Option<usize>,
        /// Where the JSON goes.
        #[arg(long, default_value = "target/scaling.json")]
        json: PathBuf,
        /// Where the table goes.
        #[arg(long, default_value = "target/scaling.md")]
        table: PathBuf,
    },
    /// Runs one seed again, and shrinks it if it fails.
    Replay {
        /// The seed.
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Faults {
            from,
            count,
            threads,
        } => run_faults(from, count, threads),
        Command::Replay { seed } => replay(seed),
        Command::Scale {
            from,
            most,
            workload,
            scheme,
            threads,
            json,
            table,
        } => run_scale(
            &scale::Selection {
                sizes: from..=most,
                workload,
                scheme,
            },
            threads.unwrap_or_else(processors),
            &json,
            &table,
        ),
    }
}

fn run_faults(from: u64, count: u64, threads: Option<usize>) -> ExitCode {
    let next = AtomicU64::new(from);
    let failing = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or_else(processors) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || failing.load(Ordering::Relaxed) != u64::MAX {
                        return;
                    }
                    if !faults::run(&Schedule::from_seed(seed), None).is_empty() {
                        failing.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    match failing.into_inner() {
        u64::MAX => {
            println!("{count} fault schedules from seed {from}: all hold");
            ExitCode::SUCCESS
        }
        seed => replay(seed),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn replay(seed: u64) -> ExitCode {
    let failures = faults::run(&Schedule::from_seed(seed), None);
    if failures.is_empty() {
        println!("seed {seed} holds");
        return ExitCode::SUCCESS;
    }
    eprint!("{}", faults::explain(seed, &failures));
    ExitCode::FAILURE
}

/// The rows of the report that is in `json`, if there is one.
fn earlier_rows(json: &Path) -> Vec<scale::Row> {
    let Ok(text) = std::fs::read(json) else {
        return Vec::new();
    };
    match serde_json::from_slice::<scale::Report>(&text) {
        Ok(report) => report.rows,
        Err(error) => {
            eprintln!(
                "{} is no report and will be written anew: {error}",
                json.display()
            );
            Vec::new()
        }
    }
}

fn run_scale(selection: &scale::Selection, threads: usize, json: &Path, table: &Path) -> ExitCode {
    let save = |report: &scale::Report| {
        let written = serde_json::to_string_pretty(report)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(json, text + "\n"))
            .and_then(|()| std::fs::write(table, scale::table(report)));
        if let Err(error) = &written {
            eprintln!(
                "the report cannot be written: {error}; make the directories of {} and {}",
                json.display(),
                table.display()
            );
        }
        written.is_ok()
    };
    let report = scale::run(selection, threads, earlier_rows(json), |report| {
        save(report);
    });
    println!("{}", scale::table(&report));
    if save(&report) && report.claims.iter().all(|claim| claim.holds) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
