//! The `copper` command.

mod cli;
mod client;
mod commands;
mod cpus;
mod doctor;
mod documents;
mod elf;
mod engine;
mod environment;
mod fabric;
mod helper;
mod job;
mod launch;
mod launch_line;
mod meeting;
mod metrics;
mod origin;
mod parent_job;
mod peers;
mod run;
mod runtime;
mod server;
mod shared_memory;
mod signals;
mod size;
mod start;
mod status;
mod store;
mod view;

use anyhow::{Context, Result};
use clap::Parser;
use cli::{Cli, Command};
use launch::Launch;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;

/// Exit status of `copper run` where Copper itself failed.
const COPPER_FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let failed = match cli.command {
        Command::Run(_) => COPPER_FAILED,
        _ => 1,
    };
    match dispatch(&cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Whoever started this may have closed standard error.
            let _ = writeln!(std::io::stderr(), "copper: {error:#}");
            ExitCode::from(failed)
        }
    }
}

fn dispatch(cli: &Cli) -> Result<u8> {
    start_log(cli)?;
    let launch = |service, while_attached| Launch {
        service,
        log: cli.log.as_deref(),
        log_level: &cli.log_level,
        while_attached,
        membership: None,
        watched: None,
    };
    match &cli.command {
        Command::Run(arguments) => {
            return run::run(arguments, &launch(&arguments.service, true));
        }
        Command::Start(arguments) => {
            let mut launch = launch(&arguments.service, false);
            launch.watched = parent_job::find();
            match start::hosts::listed(&arguments.cluster)? {
                None => commands::start(&launch)?,
                Some(hosts) => start::start(&arguments.cluster, hosts, &launch)?,
            }
        }
        Command::Stop => commands::stop()?,
        Command::Status { json, all: false } => commands::status(*json)?,
        Command::Status { json, all: true } => commands::status_of_all(*json)?,
        Command::Join(member) => return start::join::join_as_told(member),
        Command::Leave(member) => return start::join::leave_as_told(member),
        Command::Env { lib: true, .. } => commands::print_library()?,
        Command::Env { format, .. } => commands::env(*format)?,
        Command::Refresh { path } => commands::refresh(path.as_deref())?,
        Command::Control(arguments) => commands::control::control(arguments)?,
        Command::Doctor(options) => return doctor::run(options),
        Command::Documents { directory } => documents::write(directory)?,
        Command::Helper(arguments) => helper::run(arguments)?,
    }
    Ok(0)
}

fn start_log(cli: &Cli) -> Result<()> {
    let level = LevelFilter::from_str(&cli.log_level).context("no such log level")?;
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false);
    match &cli.log {
        Some(path) => {
            let path = of_this_host(path);
            log.with_writer(Mutex::new(runtime::open_log(&path)?))
                .init();
        }
        None => log.with_writer(std::io::stderr).init(),
    }
    Ok(())
}

/// A path with `{host}` replaced by the node's name, so that nodes may share a directory.
pub(crate) fn of_this_host(path: &Path) -> PathBuf {
    let system = rustix::system::uname();
    match path.to_str() {
        Some(text) => text
            .replace("{host}", &system.nodename().to_string_lossy())
            .into(),
        None => path.to_owned(),
    }
}
