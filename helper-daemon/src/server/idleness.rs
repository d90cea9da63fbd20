//! Whether anybody uses the helper, for `--idle-limit`.
//!
//! A program whose files are all known asks nothing for hours, so silence alone says little. When it
//! has lasted long enough, the processes of this user are looked at: one that has the shim loaded
//! uses the helper.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const LIBRARY: &str = "libcopper.so";

/// How long nobody has used the helper.
#[derive(Debug)]
pub(super) struct Idleness {
    limit: Duration,
    used: Instant,
}

impl Idleness {
    /// With a limit in seconds.
    pub(super) fn new(seconds: u32) -> Idleness {
        Idleness {
            limit: Duration::from_secs(seconds.into()),
            used: Instant::now(),
        }
    }

    /// Somebody has asked for something.
    pub(super) fn note_use(&mut self) {
        self.used = Instant::now();
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Instant {
        self.used + self.limit
    }

    /// Whether the helper has been unused for so long; `attached` says that a client stays.
    pub(super) fn is_over(&mut self, attached: bool) -> bool {
        if Instant::now() < self.deadline() {
            return false;
        }
        if attached || is_loaded_anywhere(Path::new("/proc")) {
            self.note_use();
            return false;
        }
        true
    }
}

/// Whether a process of this user has the shim loaded.
fn is_loaded_anywhere(proc: &Path) -> bool {
    let uid = crate::runtime::own_uid();
    let Ok(processes) = fs::read_dir(proc) else {
        return true;
    };
    processes.flatten().any(|process| {
        let is_process = process
            .file_name()
            .to_str()
            .is_some_and(|name| name.bytes().all(|digit| digit.is_ascii_digit()));
        let is_own = || process.metadata().is_ok_and(|found| found.uid() == uid);
        // The map of a process that ends meanwhile cannot be read.
        let maps = || fs::read(process.path().join("maps")).unwrap_or_default();
        is_process && is_own() && has_library(&maps())
    })
}

fn has_library(maps: &[u8]) -> bool {
    maps.split(|&byte| byte == b'\n')
        .any(|line| line.rsplit(|&byte| byte == b'/').next() == Some(LIBRARY.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_the_shim_is_recognised() {
        let shimmed =
            b"7f0-7f1 r-xp 0 08:01 5 /opt/copper/lib/libcopper.so\n7f2-7f3 rw-p 0 0 0 [heap]";
        assert!(has_library(shimmed));
        assert!(!has_library(b"7f0-7f1 r-xp 0 08:01 5 /lib/libc.so.6\n"));
        assert!(!has_library(
            b"7f0-7f1 r-xp 0 08:01 5 /lib/libcopper.so.old\n"
        ));
        assert!(!has_library(b""));
    }

    #[test]
    fn silence_counts_from_the_last_use() {
        let mut idleness = Idleness::new(3600);
        assert!(!idleness.is_over(false));
        idleness.limit = Duration::ZERO;
        assert!(!idleness.is_over(true), "somebody is attached");
    }
}
