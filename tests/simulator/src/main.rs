//! `simulate`: runs fault schedules, replays one, or makes the scale report.

use clap::{Parser, Subcommand};
use copper_simulator::faults::{self, Schedule};
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
    /// Runs the recorded import at one size.
    Import {
        /// Nodes.
        nodes: u32,
        /// Trees.
        #[arg(long, default_value_t = 8)]
        trees: u16,
        /// Fan-out.
        #[arg(long, default_value_t = 8)]
        fan_out: u32,
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
        Command::Import {
            nodes,
            trees,
            fan_out,
        } => {
            let workload = copper_simulator::workload::Workload::import();
            let needs = workload.needs();
            let job = copper_simulator::engine::Job {
                topology: copper_core::tree::Topology::fitted(nodes, trees, fan_out)
                    .expect("shape"),
                machine: copper_simulator::machine::Machine::default(),
                chunk: 1 << 20,
                ranks: 12,
                needs: &needs,
                tail: workload.tail(),
            };
            let begin = std::time::Instant::now();
            let out = copper_simulator::engine::run(&job);
            println!("{} needs, {out:?}, {:?}", needs.len(), begin.elapsed());
            ExitCode::SUCCESS
        }
    }
}

fn run_faults(from: u64, count: u64, threads: Option<usize>) -> ExitCode {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(from);
    let failing = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(available) {
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

fn replay(seed: u64) -> ExitCode {
    let failures = faults::run(&Schedule::from_seed(seed), None);
    if failures.is_empty() {
        println!("seed {seed} holds");
        return ExitCode::SUCCESS;
    }
    eprint!("{}", faults::explain(seed, &failures));
    ExitCode::FAILURE
}
