//! Measures a provider between two processes of this machine: half round trips, read bandwidth,
//! and the ways in which bytes get into fresh pages of tmpfs. `scripts/bench/fabric.sh` runs it.

mod bandwidth;
#[path = "../../tests/common/mod.rs"]
mod common;
mod latency;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use clap::{Parser, Subcommand};
use libfabric_sys::Library;
use serde::Serialize;

use common::{ADDRESS_VARIABLE, MESSAGE_SIZE_VARIABLE, SPIN_VARIABLE, Server};

#[derive(Parser)]
#[command(about = "Measure libfabric providers between two processes of this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Be the other process (started by `measure`).
    Serve,
    /// Measure, and print a table.
    Measure {
        /// Provider, such as `tcp;ofi_rxm`; all that work over loopback if none is named.
        #[arg(long)]
        provider: Vec<String>,
        /// Measurements per figure, of which the median is reported.
        #[arg(long, default_value_t = 5)]
        repeats: usize,
        /// MiB moved per bandwidth measurement.
        #[arg(long, default_value_t = 256)]
        mebibytes: usize,
        /// Write the figures to this file as JSON, too.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        peer: OtherProcess,
    },
}

/// Where the other process is; on this node's loopback unless said otherwise.
#[derive(clap::Args)]
struct OtherProcess {
    /// What to put before the other process's command, such as `ip netns exec NAME`.
    #[arg(long, requires = "peer_address", default_value = "")]
    peer_through: String,
    /// Address of the other process, on its node. FABRIC_TEST_ADDRESS is that of this one.
    #[arg(long)]
    peer_address: Option<IpAddr>,
}

impl OtherProcess {
    /// This program, run where the other process is to be.
    fn command(&self) -> Command {
        let program = std::env::current_exe().expect("this program");
        let mut words = self.peer_through.split_whitespace();
        let mut command = match words.next() {
            None => Command::new(program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
        };
        if let Some(address) = self.peer_address {
            command.env(ADDRESS_VARIABLE, address.to_string());
        }
        command
    }
}

/// One figure.
#[derive(Serialize)]
struct Figure {
    /// What was measured.
    name: String,
    /// Median, smallest and largest of the measurements.
    median: f64,
    smallest: f64,
    largest: f64,
    unit: &'static str,
    /// Processor time of the measuring process per GB moved, in seconds (median).
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_seconds_per_gigabyte: Option<f64>,
}

impl Figure {
    fn new(name: String, mut samples: Vec<f64>, unit: &'static str) -> Self {
        samples.sort_by(f64::total_cmp);
        Self {
            name,
            median: samples[samples.len() / 2],
            smallest: samples[0],
            largest: samples[samples.len() - 1],
            unit,
            cpu_seconds_per_gigabyte: None,
        }
    }

    fn print(&self) {
        let Self {
            name,
            median,
            smallest,
            largest,
            unit,
            ..
        } = self;
        print!("  {name:<68} {median:>9.2} {unit:<4} ({smallest:.2} to {largest:.2})");
        match self.cpu_seconds_per_gigabyte {
            Some(cpu) => println!("  {cpu:.2} s CPU/GB"),
            None => println!(),
        }
    }
}

#[derive(Serialize)]
struct Report {
    libfabric: String,
    library: PathBuf,
    repeats: usize,
    mebibytes: usize,
    /// Without libfabric: what this machine's memory allows.
    memory: Vec<Figure>,
    providers: Vec<ProviderReport>,
}

#[derive(Serialize)]
struct ProviderReport {
    provider: String,
    figures: Vec<Figure>,
}

/// A server of this program. `message_size` in bytes; a spinning one never sleeps.
fn server(provider: &str, message_size: usize, spin: bool, peer: &OtherProcess) -> Server {
    let mut command = peer.command();
    command
        .arg("serve")
        .env(MESSAGE_SIZE_VARIABLE, message_size.to_string());
    if spin {
        command.env(SPIN_VARIABLE, "1");
    }
    Server::start(command, provider)
}

fn measure_provider(
    provider: &str,
    repeats: usize,
    bytes: usize,
    peer: &OtherProcess,
) -> ProviderReport {
    println!("{provider}");
    let mut figures = Vec::new();
    let mut note = |figure: Figure| {
        figure.print();
        figures.push(figure);
    };
    latency::measure(provider, repeats, peer, &mut note);
    bandwidth::measure(provider, repeats, bytes, peer, &mut note);
    ProviderReport {
        provider: provider.to_owned(),
        figures,
    }
}

fn main() {
    let Arguments { command } = Arguments::parse();
    let Action::Measure {
        provider,
        repeats,
        mebibytes,
        json,
        peer,
    } = command
    else {
        return common::serve();
    };
    let library = Library::load().unwrap_or_else(|error| panic!("{error}"));
    println!(
        "libfabric {} ({})",
        library.version(),
        library.path().display()
    );
    let providers = if provider.is_empty() {
        common::providers()
    } else {
        provider
    };
    let bytes = mebibytes << 20;
    println!("memory alone");
    let memory = bandwidth::measure_memory(repeats, bytes);
    let providers = providers
        .iter()
        .map(|provider| measure_provider(provider, repeats, bytes, &peer))
        .collect();
    let report = Report {
        libfabric: library.version(),
        library: library.path().to_owned(),
        repeats,
        mebibytes,
        memory,
        providers,
    };
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).expect("figures are finite");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
