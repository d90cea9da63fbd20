//! What a program said, brought to a form in which two runs can be compared, and the comparison.

use anyhow::{Context, Result};
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a run of a program said.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit status, or the signal that ended it.
    pub status: ExitStatus,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The end of what it said is where a failure shows.
        let end = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2000)..]).into_owned()
        };
        let (stdout, stderr) = (end(&self.stdout), end(&self.stderr));
        write!(
            formatter,
            "{}\nstdout ends:\n{stdout}\nstderr ends:\n{stderr}",
            self.status
        )
    }
}

/// Longer than any run takes, shorter than anyone waits for a hang.
const LIMIT: Duration = Duration::from_secs(120);

impl Outcome {
    /// Runs the command to its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end within two minutes.
    pub fn of(command: &mut Command) -> Self {
        Self::within(command, LIMIT).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs the command to its end, which must come within `limit`.
    ///
    /// # Errors
    /// When it cannot be started or had to be ended.
    pub fn within(command: &mut Command, limit: Duration) -> Result<Self> {
        let said = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {said}"))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                anyhow::bail!("{said} did not end within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let gone = || anyhow::anyhow!("a reader of the program's output is gone");
        let stdout = stdout.join().map_err(|_| gone())??;
        let stderr = stderr.join().map_err(|_| gone())??;
        Ok(Self {
            stdout,
            stderr,
            status,
        })
    }

    /// Removes the prefix of the view, so that its paths read like the origin's.
    #[must_use]
    pub fn without_view(self, view: &Path) -> Self {
        let view = view.as_os_str().as_encoded_bytes();
        Self {
            stdout: remove_all(&self.stdout, view),
            stderr: remove_all(&self.stderr, view),
            status: self.status,
        }
    }

    /// Replaces one path by another wherever it is said.
    #[must_use]
    pub fn with_path(self, from: &Path, to: &Path) -> Self {
        let (from, to) = (
            from.as_os_str().as_encoded_bytes(),
            to.as_os_str().as_encoded_bytes(),
        );
        Self {
            stdout: replace_all(&self.stdout, from, to),
            stderr: replace_all(&self.stderr, from, to),
            status: self.status,
        }
    }

    /// Where this outcome differs from `expected`; `None` when nowhere.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self == expected {
            return None;
        }
        let mut text = String::new();
        if self.status != expected.status {
            text += &format!(
                "status: expected {}, got {}\n",
                expected.status, self.status
            );
        }
        for (name, expected, got) in [
            ("stdout", &expected.stdout, &self.stdout),
            ("stderr", &expected.stderr, &self.stderr),
        ] {
            if expected != got {
                text += &format!(
                    "{name} (- expected, + got):\n{}",
                    lines_that_differ(expected, got)
                );
            }
        }
        Some(text)
    }

    /// Fails the test when this outcome differs from `expected`.
    ///
    /// # Panics
    /// When they differ, with the first differing lines.
    pub fn must_equal(&self, expected: &Self, what: &str) {
        if let Some(difference) = self.difference(expected) {
            panic!("{what} differs from the plain run\n{difference}");
        }
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn collect(
    stream: Option<impl Read + Send + 'static>,
) -> std::thread::JoinHandle<std::io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn remove_all(bytes: &[u8], pattern: &[u8]) -> Vec<u8> {
    replace_all(bytes, pattern, b"")
}

fn replace_all(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(from) {
            result.extend_from_slice(to);
            rest = after;
        } else {
            result.push(*byte);
            rest = &rest[1..];
        }
    }
    result
}

/// Lines shown of a difference: enough to see what it is about, or `COPPER_SHOW_LINES`.
fn lines_shown() -> usize {
    let asked = std::env::var("COPPER_SHOW_LINES").ok();
    asked.and_then(|lines| lines.parse().ok()).unwrap_or(60)
}

fn lines_that_differ(expected: &[u8], got: &[u8]) -> String {
    let (expected, got) = (
        String::from_utf8_lossy(expected),
        String::from_utf8_lossy(got),
    );
    let difference = similar::TextDiff::configure()
        .deadline(Instant::now() + Duration::from_secs(5))
        .diff_lines(expected.as_ref(), got.as_ref());
    let mut shown = String::new();
    let (mut count, limit) = (0, lines_shown());
    for change in difference.iter_all_changes() {
        let sign = match change.tag() {
            similar::ChangeTag::Delete => '-',
            similar::ChangeTag::Insert => '+',
            similar::ChangeTag::Equal => continue,
        };
        count += 1;
        if count <= limit {
            let line: String = change.value().trim_end().chars().take(400).collect();
            shown += &format!("  {sign} {line}\n");
        }
    }
    if count > limit {
        shown += &format!("  ... and {} more lines\n", count - limit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Outcome {
        Outcome::of(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn the_view_is_taken_out_of_paths() {
        let said = shell("echo /view/a/b; echo /view/view/c >&2").without_view(Path::new("/view"));
        assert_eq!(said.stdout, b"/a/b\n");
        assert_eq!(said.stderr, b"/c\n");
    }

    #[test]
    fn a_difference_names_what_differs() {
        let difference = shell("echo a; echo c; exit 3").difference(&shell("echo a; echo b"));
        let difference = difference.expect("they differ");
        assert!(
            difference.contains("- b") && difference.contains("+ c"),
            "{difference}"
        );
        assert!(difference.contains("exit status: 3"), "{difference}");
        assert_eq!(shell("echo a").difference(&shell("echo a")), None);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let hang = Outcome::within(Command::new("sleep").arg("60"), Duration::from_millis(50));
        assert!(hang.is_err());
    }
}
