//! A file of the origin, copied into the store: opened once, read once, whole or not at all.
#![forbid(unsafe_code)]

use super::{Counters, attributes_of, count};
use copper_core::attributes::Attributes;
use rustix::fs::{
    FallocateFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps, fallocate, fchmod, ftruncate,
    futimens,
};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How a copy ended.
#[derive(Debug)]
pub(crate) enum Copied {
    /// The bytes lie in the file that was named, which is ready to be given its name.
    Done(Box<Copy>),
    /// The file is larger than what room was made for; these are its attributes now.
    Grown(Box<Attributes>),
    /// There is no such regular file (any more).
    Gone,
    /// It cannot be read, or changes all the time: only the origin can serve it.
    Pass(Why),
}

/// Why a file stays on the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The origin refused or failed.
    Origin(Errno),
    /// The store has no room.
    NoRoom,
    /// It changed during each try.
    Changing,
}

/// A finished copy.
#[derive(Debug)]
pub(crate) struct Copy {
    /// The attributes of the version that was copied.
    pub(crate) attributes: Attributes,
    /// Where the bytes lie.
    pub(crate) file: PathBuf,
    /// The store's inode.
    pub(crate) inode: u64,
    /// Memory in use, in bytes.
    pub(crate) allocated: u64,
}

const TRIES: usize = 3;
const BUFFER: usize = 256 << 10;

/// Copies the origin's `path` to the new file `target`, if it is no larger than `room` bytes.
pub(crate) fn copy(counters: &Counters, path: &[u8], target: &Path, room: u64) -> Copied {
    let copied = try_copy(counters, path, target, room);
    if !matches!(copied, Copied::Done(_)) {
        let _ = std::fs::remove_file(target);
    }
    copied
}

fn try_copy(counters: &Counters, path: &[u8], target: &Path, room: u64) -> Copied {
    count(&counters.opens, 1);
    let source = match open_source(path) {
        Ok(source) => source,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Copied::Gone,
        Err(error) => return Copied::Pass(Why::Origin(error)),
    };
    let mut before = match attributes_of(counters, &source, b"") {
        Ok(attributes) => attributes,
        Err(error) => return Copied::Pass(Why::Origin(error)),
    };
    for _ in 0..TRIES {
        if !before.is_regular() {
            return Copied::Gone;
        }
        if before.size > room {
            return Copied::Grown(Box::new(before));
        }
        let copied = match fill(counters, &source, target, &before) {
            Ok(copied) => copied,
            Err(why) => return Copied::Pass(why),
        };
        let after = match attributes_of(counters, &source, b"") {
            Ok(attributes) => attributes,
            Err(error) => return Copied::Pass(Why::Origin(error)),
        };
        if after.same_version(&before) && copied.is_some() {
            return finish(target, copied, after);
        }
        before = after;
    }
    Copied::Pass(Why::Changing)
}

fn open_source(path: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    };
    opened.map(File::from)
}

fn store_error(error: Errno) -> Why {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::NOMEM => Why::NoRoom,
        other => Why::Origin(other),
    }
}

/// Writes the bytes of `source` to `target`; `None` where there were fewer than `expected` says.
fn fill(
    counters: &Counters,
    source: &File,
    target: &Path,
    expected: &Attributes,
) -> Result<Option<File>, Why> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let out = rustix::fs::open(target, flags, Mode::RUSR | Mode::WUSR).map_err(store_error)?;
    ftruncate(&out, expected.size).map_err(store_error)?;
    let out = File::from(out);
    for run in data_runs(source, expected) {
        let length = run.end - run.start;
        match fallocate(&out, FallocateFlags::KEEP_SIZE, run.start, length) {
            Err(Errno::OPNOTSUPP) | Ok(()) => {}
            Err(error) => return Err(store_error(error)),
        }
        if !copy_run(counters, source, &out, run)? {
            return Ok(None);
        }
    }
    Ok(Some(out))
}

/// The parts of the file that hold data; one part for all but sparse files.
fn data_runs(source: &File, attributes: &Attributes) -> Vec<std::ops::Range<u64>> {
    let size = attributes.size;
    let whole = || std::iter::once(0..size).collect();
    if size == 0 {
        return Vec::new();
    }
    if attributes.blocks.saturating_mul(512) >= size {
        return whole();
    }
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(_) => return whole(),
        };
        let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(size),
            _ => return whole(),
        };
        if start < size {
            runs.push(start..end);
        }
        at = end;
    }
    runs
}

/// Copies one run; `false` where the file ended early.
fn copy_run(
    counters: &Counters,
    source: &File,
    out: &File,
    run: std::ops::Range<u64>,
) -> Result<bool, Why> {
    let length = usize::try_from(run.end - run.start).unwrap_or(usize::MAX);
    let mut buffer = vec![0; BUFFER.min(length)];
    let mut at = run.start;
    while at < run.end {
        let wanted = buffer.len().min((run.end - at) as usize);
        let read = match source.read_at(&mut buffer[..wanted], at) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Why::Origin(errno(&error))),
        };
        out.write_all_at(&buffer[..read], at)
            .map_err(|error| store_error(errno(&error)))?;
        count(&counters.bytes_read, read as u64);
        at += read as u64;
    }
    Ok(true)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Gives the copy the origin's times and mode, so that even a reader without the shim sees them.
fn finish(target: &Path, copied: Option<File>, attributes: Attributes) -> Copied {
    let Some(out) = copied else {
        return Copied::Pass(Why::Changing);
    };
    let protected = protect(out.as_fd(), &attributes).and_then(|()| {
        let found = out.metadata().map_err(|error| errno(&error))?;
        Ok((found.ino(), found.blocks() * 512))
    });
    match protected {
        Ok((inode, allocated)) => Copied::Done(Box::new(Copy {
            attributes,
            file: target.to_owned(),
            inode,
            allocated,
        })),
        Err(error) => Copied::Pass(Why::Origin(error)),
    }
}

fn protect(out: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    let time = |stamp: copper_core::attributes::Timestamp| Timespec {
        tv_sec: stamp.seconds,
        tv_nsec: stamp.nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time(attributes.accessed),
        last_modification: time(attributes.modified),
    };
    futimens(&out, &times)?;
    fchmod(&out, Mode::from_raw_mode(attributes.mode & 0o555 | 0o400))
}
