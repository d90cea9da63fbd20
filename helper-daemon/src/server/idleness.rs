//! Whether anybody uses the helper, for `--idle-limit` and `--cut-off-limit`.
//!
//! A program whose files are all known asks nothing for hours, so silence alone says little. When it
//! has lasted long enough, the processes of this user are looked at: one that has mapped the catalog
//! uses the helper.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// How long nobody has used the helper.
#[derive(Debug)]
pub(super) struct Idleness {
    limit: Duration,
    /// The catalog's inode, as maps of processes show it.
    catalog: u64,
    used: Instant,
}

impl Idleness {
    /// With a limit in seconds, for the helper whose catalog has this inode.
    pub(super) fn new(seconds: u32, catalog: u64) -> Idleness {
        Idleness {
            catalog,
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
        if attached || is_mapped_by_others(self.catalog) {
            self.note_use();
            return false;
        }
        true
    }
}

/// Whether another process of this user has mapped the catalog.
fn is_mapped_by_others(catalog: u64) -> bool {
    let (uid, own) = (crate::runtime::own_uid(), std::process::id().to_string());
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_other = name
            .to_str()
            .is_some_and(|name| name != own && name.bytes().all(|digit| digit.is_ascii_digit()));
        let is_own = || process.metadata().is_ok_and(|found| found.uid() == uid);
        // The maps of a process that ends meanwhile cannot be read.
        let maps = || fs::read_to_string(process.path().join("maps")).unwrap_or_default();
        is_other && is_own() && has_mapped(&maps(), catalog)
    })
}

/// Whether a process's maps show a memory file with this inode.
fn has_mapped(maps: &str, inode: u64) -> bool {
    maps.lines().any(|line| {
        // Addresses, permissions, offset, device, inode, path.
        let mut fields = line.split_ascii_whitespace().skip(4);
        let is_it = fields.next().and_then(|number| number.parse().ok()) == Some(inode);
        is_it
            && fields
                .next()
                .is_some_and(|path| path.starts_with("/memfd:"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_mapped_the_catalog_is_recognised() {
        let maps = "7f0-7f1 r-xp 0 08:01 77 /opt/copper/lib/libcopper.so\n\
                    7f2-7f3 r--s 0 00:01 78 /memfd:copper-catalog (deleted)\n7f4-7f5 rw-p 0 0 0\n";
        assert!(has_mapped(maps, 78));
        assert!(!has_mapped(maps, 77));
        assert!(!has_mapped(maps, 79));
        assert!(!has_mapped("", 0));
    }

    #[test]
    fn silence_counts_from_the_last_use() {
        let mut idleness = Idleness::new(3600, 1);
        assert!(!idleness.is_over(false));
        idleness.limit = Duration::ZERO;
        assert!(!idleness.is_over(true), "somebody is attached");
    }
}
