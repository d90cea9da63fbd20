//! A directory of the origin, whole: its listing, then the attributes of every name in it.
//!
//! The listing is one job; the attributes are asked for in batches on all threads of the pool, those of
//! a few names at once with the listing.
#![forbid(unsafe_code)]

use super::{Counters, Said, attributes_of, count, entry};
use copper_core::attributes::Attributes;
use rustix::fs::{Access, AtFlags, Mode, OFlags, RawDir, accessat};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A name as the origin lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The name.
    pub(crate) name: Box<[u8]>,
    /// Inode as listed.
    pub(crate) inode: u64,
    /// `DT_REG` and its kin.
    pub(crate) directory_type: u8,
}

impl Name {
    /// Whether it is `.` or `..`.
    pub(crate) fn is_dots(&self) -> bool {
        matches!(&*self.name, b"." | b"..")
    }
}

/// A directory's listing, in the origin's order.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The directory, open.
    pub(crate) directory: Arc<OwnedFd>,
    /// Its own attributes, taken after the listing.
    pub(crate) attributes: Box<Attributes>,
    /// Its names, `.` and `..` included.
    pub(crate) names: Vec<Name>,
    /// What was said of all of them but `.` and `..`, by position, where they are few.
    said: Option<Vec<(usize, Said)>>,
}

impl Listed {
    /// What was said of the names at the positions `wanted`; `None` where nobody has asked yet.
    pub(crate) fn take_said(&mut self, wanted: &[usize]) -> Option<Vec<(usize, Said)>> {
        let mut said = self.said.take()?;
        said.retain(|(position, _)| wanted.contains(position));
        Some(said)
    }
}

/// Why there is no listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoListing {
    /// More names than the limit.
    TooLarge,
    /// The origin said so.
    Failed(Errno),
}

/// `.` and `..`.
const DOTS: usize = 2;
const LISTING_BUFFER: usize = 64 << 10;

/// Lists a directory of up to `limit` names.
pub(crate) fn list(counters: &Counters, path: &[u8], limit: usize) -> Result<Listed, NoListing> {
    count(&counters.listings, 1);
    let directory = open_directory(path).map_err(NoListing::Failed)?;
    let mut names = Vec::new();
    let mut buffer: Vec<u8> = Vec::with_capacity(LISTING_BUFFER);
    let room: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut entries = RawDir::new(&directory, room);
    while let Some(found) = entries.next() {
        let found = found.map_err(NoListing::Failed)?;
        if names.len() >= limit.saturating_add(DOTS) {
            return Err(NoListing::TooLarge);
        }
        names.push(Name {
            name: found.file_name().to_bytes().into(),
            inode: found.ino(),
            directory_type: directory_type(found.file_type()),
        });
    }
    let attributes = attributes_of(counters, &directory, b"").map_err(NoListing::Failed)?;
    may_search(&directory, &attributes).map_err(NoListing::Failed)?;
    let is_few = names.len() <= SMALLEST + DOTS;
    let said = is_few.then(|| {
        let others = (0..names.len()).filter(|&position| !names[position].is_dots());
        ask(counters, &directory, &names, others)
    });
    Ok(Listed {
        said,
        directory: Arc::new(directory),
        attributes: Box::new(attributes),
        names,
    })
}

/// Asks for the attributes of the names at some positions.
fn ask(
    counters: &Counters,
    directory: &OwnedFd,
    names: &[Name],
    positions: impl Iterator<Item = usize>,
) -> Vec<(usize, Said)> {
    positions
        .map(|position| {
            let name = &names[position].name;
            (position, entry::fetch_at(counters, directory, name))
        })
        .collect()
}

/// Whether names in the directory can be asked for at all: where they cannot, a missing name must
/// not be told from one that is there.
fn may_search(directory: &OwnedFd, attributes: &Attributes) -> Result<(), Errno> {
    const ALL_MAY_SEARCH: u32 = 0o111;
    if attributes.mode & ALL_MAY_SEARCH == ALL_MAY_SEARCH {
        return Ok(());
    }
    match accessat(directory, ".", Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::ACCESS) => Err(Errno::ACCESS),
        _ => Ok(()),
    }
}

fn open_directory(path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
}

fn directory_type(file_type: rustix::fs::FileType) -> u8 {
    match file_type {
        rustix::fs::FileType::Unknown => 0,
        known => (known.as_raw_mode() >> 12) as u8,
    }
}

/// The names of a listing whose attributes are still to be asked for, shared by the batches.
pub(crate) struct Batches {
    listed: Listed,
    wanted: Vec<usize>,
    said: Mutex<Vec<(usize, Said)>>,
    outstanding: AtomicUsize,
}

/// Smallest batch: less is not worth waking a thread.
const SMALLEST: usize = 16;

impl Batches {
    /// Divides the names at the positions `wanted` for `threads` threads; returns the work and
    /// the ranges of `wanted` that make one batch each (at least one).
    pub(crate) fn divide(
        listed: Listed,
        wanted: Vec<usize>,
        threads: usize,
    ) -> (Arc<Batches>, Vec<std::ops::Range<usize>>) {
        let size = wanted.len().div_ceil(threads).max(SMALLEST);
        let mut ranges: Vec<_> = (0..wanted.len())
            .step_by(size)
            .map(|start| start..(start + size).min(wanted.len()))
            .collect();
        if ranges.is_empty() {
            ranges.push(0..0);
        }
        let batches = Batches {
            said: Mutex::new(Vec::with_capacity(wanted.len())),
            listed,
            wanted,
            outstanding: AtomicUsize::new(ranges.len()),
        };
        (Arc::new(batches), ranges)
    }

    /// Asks for one batch; the last one to finish gets all that was said, by position.
    pub(crate) fn run(
        &self,
        counters: &Counters,
        range: std::ops::Range<usize>,
    ) -> Option<Vec<(usize, Said)>> {
        let wanted = self.wanted[range].iter().copied();
        let mut said = ask(counters, &self.listed.directory, &self.listed.names, wanted);
        let mut all = self
            .said
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        all.append(&mut said);
        let last = self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| std::mem::take(&mut *all))
    }

    /// The listing that the positions refer to.
    pub(crate) fn listed(&self) -> &Listed {
        &self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_listing_has_every_name_with_its_type_and_ends_at_the_limit() {
        let base = std::env::temp_dir().join(format!("copper-list-{}", std::process::id()));
        std::fs::create_dir_all(base.join("sub")).expect("temporary directory");
        std::fs::write(base.join("file"), "x").expect("file");
        let path = base.as_os_str().as_bytes();
        let counters = Counters::default();
        let listed = list(&counters, path, 2).expect("listed");
        let mut names: Vec<_> = listed
            .names
            .iter()
            .map(|name| (&name.name[..], name.directory_type))
            .collect();
        names.sort();
        let expected: [(&[u8], u8); 4] = [(b".", 4), (b"..", 4), (b"file", 8), (b"sub", 4)];
        assert_eq!(names, expected);
        assert!(listed.attributes.is_directory());
        assert_eq!(list(&counters, path, 1).err(), Some(NoListing::TooLarge));
        let gone = list(&counters, b"/nowhere/at/all", 10).err();
        assert_eq!(gone, Some(NoListing::Failed(Errno::NOENT)));
        std::fs::remove_dir_all(&base).expect("ours");
    }
}
