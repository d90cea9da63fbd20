//! Programs that a check runs, for no longer than they may take.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often is looked whether a program has ended.
const TICK: Duration = Duration::from_millis(5);

/// What a program left.
pub(super) struct Ended {
    /// Its exit status.
    pub(super) status: ExitStatus,
    /// Its output.
    pub(super) output: String,
    /// Its errors.
    pub(super) errors: String,
}

/// Runs a program to its end; kills it after `limit`.
///
/// # Errors
/// It could not be started, or did not end in time.
pub(super) fn run(mut command: Command, limit: Duration) -> Result<Ended> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let output = read_all(child.stdout.take());
    let errors = read_all(child.stderr.take());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{program} did not end within {} s", limit.as_secs());
        }
        thread::sleep(TICK);
    };
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok(Ended {
        status,
        output: text(output),
        errors: text(errors),
    })
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let start = Instant::now();
        let error = run(command, Duration::from_millis(50)).err().expect("late");
        assert!(error.to_string().contains("sleep did not end"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn output_and_errors_are_kept_apart() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = run(command, Duration::from_secs(20)).expect("ended");
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!((&*ended.output, &*ended.errors), ("out\n", "err\n"));
    }
}
