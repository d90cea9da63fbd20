//! The `copper` command.

mod audit;
mod calls;
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
mod journal;
mod launch;
mod launch_line;
mod lending;
mod log;
mod meeting;
mod metrics;
mod origin;
mod parent_job;
mod peers;
mod profile;
mod report;
mod run;
mod runtime;
mod server;
mod shared_memory;
mod signals;
mod size;
mod start;
mod status;
mod store;
mod top;
mod view;
mod waker;

use anyhow::Result;
use clap::Parser;
use cli::{Cli, Command};
use launch::Launch;
use std::io::Write;
use std::process::ExitCode;

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
    log::start(cli)?;
    let launch = |service, while_attached| Launch {
        service,
        log: cli.log.as_deref(),
        log_level: &cli.log_level,
        log_type: cli.log_type,
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
        Command::Env { format, audit, .. } => commands::env(*format, *audit)?,
        Command::Refresh { path } => commands::refresh(path.as_deref())?,
        Command::Profile(arguments) => match &arguments.merge {
            Some(directory) => profile::merge(directory)?,
            None => profile::show(arguments.top)?,
        },
        Command::Report(arguments) => report::write(arguments)?,
        Command::Top(arguments) => top::run(arguments)?,
        Command::Control(arguments) => commands::control::control(arguments)?,
        Command::Doctor(options) => return doctor::run(options),
        Command::Documents { directory } => documents::write(directory)?,
        Command::Exec(arguments) => return Ok(run::become_command(&arguments.command)),
        Command::AuditProbe => audit::run_probe()?,
        Command::Helper(arguments) => helper::run(arguments)?,
    }
    Ok(0)
}
