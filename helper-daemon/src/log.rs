//! The log: how much is written, where to, and never more of the same line than anybody reads.
//!
//! | level | as a number | what is written |
//! |---|---|---|
//! | `off` | 0 | nothing |
//! | `fatal` | 1 | why a helper ended that could not go on |
//! | `error` | 2 | errors too |
//! | `warn` | 3 | warnings too |
//! | `info` | 4 | the start with its times, and what was left to the origin, too |
//! | `debug` | | what happened on the way, too |
//! | `trace` | 5 | everything |
//!
//! Warnings and errors of one place in the program are written [`WARNINGS`] times and then once a
//! minute, infos [`INFOS`] times; the line that follows says how many were left out. Nothing is
//! written where a program is answered from what is known.
#![forbid(unsafe_code)]

use crate::cli::{Cli, LogType};
use crate::runtime;
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::writer::{BoxMakeWriter, MakeWriterExt};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Target of the line that says why a helper could not go on.
pub(crate) const FATAL: &str = "fatal";

/// How often a warning or an error is written before it is rationed.
const WARNINGS: u32 = 20;
/// How often an info is.
const INFOS: u32 = 1000;
/// What is rationed is written once in this time.
const PAUSE: Duration = Duration::from_secs(60);
/// A pipe that can be written to has room for so many bytes, so that nobody waits for its reader.
const PIPE_ROOM: usize = 4096;

/// Reads a level by its name or number; gives its name.
///
/// # Errors
/// A sentence that lists them.
pub(crate) fn parse_level(text: &str) -> Result<String, String> {
    let name = match text {
        "0" | "off" | "none" => "off",
        "1" | "fatal" => "fatal",
        "2" | "error" => "error",
        "3" | "warn" | "warning" => "warn",
        "4" | "info" => "info",
        "debug" => "debug",
        "5" | "trace" => "trace",
        _ => {
            return Err(
                "a level is off (0), fatal (1), error (2), warn (3), info (4), debug or trace (5)"
                    .to_owned(),
            );
        }
    };
    Ok(name.to_owned())
}

/// Begins to log as the command line says.
pub(crate) fn start(cli: &Cli) -> Result<()> {
    let file = match &cli.log {
        Some(path) if cli.log_type != LogType::Stdout => {
            let file = runtime::open_log(&runtime::of_this_host(path))?;
            Some(BoxMakeWriter::new(Mutex::new(file)))
        }
        _ => None,
    };
    let writer = match (file, cli.log_type) {
        (Some(file), LogType::File) => file,
        (Some(file), _) => BoxMakeWriter::new(file.and(Stdout::default)),
        (None, LogType::File) => BoxMakeWriter::new(io::stderr),
        (None, _) => BoxMakeWriter::new(Stdout::default),
    };
    let rations = Arc::new(Rations::new(&cli.log_level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .event_format(Lines {
            rations: rations.clone(),
            format: Format::default().with_ansi(false),
        })
        .with_ansi(false)
        .with_filter(Rationed(rations));
    Registry::default().with(lines).init();
    Ok(())
}

/// Standard output, which is left alone where its reader is slow: a helper never waits for whoever
/// reads its log.
#[derive(Debug, Default)]
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut output = io::stdout().lock();
        let mut watched = [PollFd::new(&output, PollFlags::OUT)];
        let now = Timespec::default();
        let is_ready = poll(&mut watched, Some(&now)).is_ok_and(|ready| ready > 0);
        if is_ready {
            let part = &line[..line.len().min(PIPE_ROOM)];
            output.write_all(part)?;
            output.flush()?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much has been written of each place in the program.
#[derive(Debug)]
struct Rations {
    level: LevelFilter,
    only_fatal: bool,
    written: Mutex<HashMap<Identifier, Written>>,
}

#[derive(Debug, Default)]
struct Written {
    times: u32,
    last: Option<Instant>,
    left_out: u64,
}

impl Rations {
    fn new(level: &str) -> Rations {
        let only_fatal = level == "fatal";
        let level = match level {
            "fatal" => LevelFilter::ERROR,
            level => level.parse().unwrap_or(LevelFilter::WARN),
        };
        Rations {
            level,
            only_fatal,
            written: Mutex::default(),
        }
    }

    fn is_wanted(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && (!self.only_fatal || metadata.target() == FATAL)
    }

    fn written(&self) -> MutexGuard<'_, HashMap<Identifier, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more line of this place is written now.
    fn take(&self, metadata: &Metadata<'_>, now: Instant) -> bool {
        let most = match *metadata.level() {
            Level::ERROR | Level::WARN => WARNINGS,
            Level::INFO => INFOS,
            _ => return true,
        };
        let mut all = self.written();
        let written = all.entry(metadata.callsite()).or_default();
        let is_due = written
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if written.times < most || is_due {
            written.times = written.times.saturating_add(1);
            written.last = Some(now);
            true
        } else {
            written.left_out += 1;
            false
        }
    }

    /// How many lines of this place were left out since this was asked last.
    fn take_left_out(&self, metadata: &Metadata<'_>) -> u64 {
        let mut all = self.written();
        let written = all.get_mut(&metadata.callsite());
        written.map_or(0, |written| std::mem::take(&mut written.left_out))
    }
}

/// Lets through what is wanted, within its rations.
struct Rationed(Arc<Rations>);

impl<S> Filter<S> for Rationed {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.0.is_wanted(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.take(event.metadata(), Instant::now())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level)
    }
}

/// Lines as usual, with a note of what was left out before.
struct Lines {
    rations: Arc<Rations>,
    format: Format,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let left_out = self.rations.take_left_out(event.metadata());
        if left_out > 0 {
            writeln!(writer, "{left_out} lines like the next were left out")?;
        }
        self.format.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_names_and_numbers() {
        for (text, name) in [
            ("0", "off"),
            ("1", "fatal"),
            ("2", "error"),
            ("3", "warn"),
            ("4", "info"),
            ("5", "trace"),
            ("debug", "debug"),
        ] {
            assert_eq!(parse_level(text).as_deref(), Ok(name));
        }
        for wrong in ["6", "", "loud", "-1"] {
            assert!(parse_level(wrong).is_err(), "{wrong}");
        }
    }

    /// What is written of a line that is logged again and again.
    fn written_of(level: &str, log: fn(u32), times: u32) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let rations = Arc::new(Rations::new(level));
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .event_format(Lines {
                rations: rations.clone(),
                format: Format::default().with_ansi(false),
            })
            .with_filter(Rationed(rations.clone()));
        let subscriber = Registry::default().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            (0..times).for_each(log);
            let long_ago = Instant::now().checked_sub(2 * PAUSE);
            for written in rations.written().values_mut() {
                written.last = long_ago;
            }
            log(times);
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_repeated_warning_is_rationed_and_what_was_left_out_is_counted() {
        let said = written_of("warn", |turn| tracing::warn!(turn, "again"), 500);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len() as u32, WARNINGS + 2, "{said}");
        assert!(lines[0].contains("turn=0"), "{said}");
        assert!(lines[WARNINGS as usize].starts_with("480 lines"), "{said}");
        assert!(said.trim_end().ends_with("turn=500"), "{said}");
    }

    #[test]
    fn each_level_lets_through_what_it_names() {
        let all = |_| {
            tracing::error!(target: FATAL, "end");
            tracing::error!("wrong");
            tracing::warn!("strange");
            tracing::info!("known");
            tracing::debug!("detail");
        };
        for (number, most) in [("0", 0), ("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5)] {
            let level = parse_level(number).unwrap();
            let said = written_of(&level, all, 0);
            assert_eq!(said.lines().count(), most, "level {number}: {said}");
        }
    }
}
