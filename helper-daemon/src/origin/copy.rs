//! A file of the origin, copied into the store: opened once, read once, whole or not at all.
//!
//! A short file is copied by one job. Of a longer one the first job opens it and finds out its
//! version; then its extents are read by several jobs, each of which checks that the file is still
//! in that version. Extents may also come from other nodes.
#![forbid(unsafe_code)]

use super::{Counters, OriginPath, attributes_of, count};
use copper_core::attributes::{Attributes, Timestamp};
use copper_core::path::split_last;
use copper_core::tree::Version;
use rustix::fs::{
    Advice, Mode, OFlags, SeekFrom, Timespec, Timestamps, fadvise, fchmod, ftruncate, futimens,
};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a first look at a file brought.
#[derive(Debug)]
pub(crate) enum Looked {
    /// All of it, ready to be given its name.
    Whole(Box<Copy>),
    /// It is long: it is open, and can be read extent by extent.
    Long(Box<Opened>),
    /// There is no such regular file.
    Gone,
    /// It cannot be had.
    Failed(Why),
}

/// Why a file, or an extent of it, cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The origin refused or failed.
    Origin(Errno),
    /// The store has no room.
    NoRoom,
    /// It is no longer in the version it was in.
    Changed,
}

/// A file of the origin, open.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    path: OriginPath,
    source: Arc<File>,
    /// The version that is to be copied.
    pub(crate) attributes: Attributes,
}

/// A body that is being copied, from the origin or from other nodes.
#[derive(Debug)]
pub(crate) struct Aside {
    path: OriginPath,
    version: Version,
    length: u64,
    /// Known from the first who has opened it.
    attributes: OnceLock<Attributes>,
    /// The origin's file, once this node has opened it.
    source: Mutex<Option<Arc<File>>>,
    out: Arc<File>,
    target: PathBuf,
    /// Whether other nodes read parts of it from the origin, too.
    shared: bool,
}

/// What tells a file's versions apart, for the tree.
pub(crate) fn version_of(attributes: &Attributes) -> Version {
    Version {
        inode: attributes.inode,
        size: attributes.size,
        modified: (attributes.modified.seconds, attributes.modified.nanoseconds),
        changed: (attributes.changed.seconds, attributes.changed.nanoseconds),
    }
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

/// How often a short file that changes while it is copied is tried.
const TRIES: usize = 3;
/// Each thread of the pool keeps one buffer.
const BUFFER: usize = 256 << 10;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Opens the origin's `path`, and copies it to the new file `target` if it is no longer than
/// `limit` bytes.
pub(crate) fn look(counters: &Counters, path: &[u8], target: &Path, limit: u64) -> Looked {
    let mut opened = match open(counters, path) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Looked::Gone,
        Err(error) => return Looked::Failed(Why::Origin(error)),
    };
    for _ in 0..TRIES {
        let attributes = opened.attributes;
        if !attributes.is_regular() {
            return Looked::Gone;
        }
        if attributes.size > limit {
            return Looked::Long(Box::new(opened));
        }
        let aside = match Aside::opened(opened.clone(), target) {
            Ok(aside) => aside,
            Err(why) => return Looked::Failed(why),
        };
        match aside.read(counters, 0..attributes.size) {
            Ok(()) => return aside.finish().map_or_else(Looked::Failed, Looked::Whole),
            Err(Why::Changed) => {}
            Err(why) => {
                aside.discard();
                return Looked::Failed(why);
            }
        }
        aside.discard();
        match attributes_of(counters, &opened.source, b"") {
            Ok(now) => opened.attributes = now,
            Err(error) => return Looked::Failed(Why::Origin(error)),
        }
    }
    Looked::Failed(Why::Changed)
}

fn open(counters: &Counters, path: &[u8]) -> Result<Opened, Errno> {
    count(&counters.opens, 1);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }?;
    let attributes = attributes_of(counters, &source, b"")?;
    if gives_capabilities(&source, path, &attributes) {
        return Err(Errno::PERM);
    }
    Ok(Opened {
        path: path.into(),
        source: Arc::new(File::from(source)),
        attributes,
    })
}

/// Whether a program's file gives capabilities to whoever runs it, which no copy of ours would.
/// Libraries are not run.
fn gives_capabilities(source: impl AsFd, path: &[u8], attributes: &Attributes) -> bool {
    let (_, name) = split_last(path);
    let is_program = attributes.is_regular()
        && attributes.mode & 0o111 != 0
        && !name.windows(3).any(|part| part == b".so");
    let none: &mut [u8] = &mut [];
    is_program && rustix::fs::fgetxattr(source, "security.capability", none).is_ok_and(|n| n > 0)
}

/// Keeps the kernel from reading on past an extent: the next one may be another node's to read. It
/// is advice, which a file system may not take; then some bytes are read twice.
fn read_nothing_ahead(source: &File) {
    let _ = fadvise(source, 0, None, Advice::Random);
}

impl Aside {
    /// Makes the file that an open file's bytes are to be copied to.
    pub(crate) fn opened(opened: Opened, target: &Path) -> Result<Aside, Why> {
        let version = version_of(&opened.attributes);
        let aside = Aside::expected(&opened.path, version, opened.attributes.size, target)?;
        let _ = aside.attributes.set(opened.attributes);
        Ok(Aside {
            source: Mutex::new(Some(opened.source)),
            ..aside
        })
    }

    /// Makes the file for the `length` bytes of a body of which only the version is known.
    pub(crate) fn expected(
        path: &OriginPath,
        version: Version,
        length: u64,
        target: &Path,
    ) -> Result<Aside, Why> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let out = rustix::fs::open(target, flags, Mode::RUSR | Mode::WUSR).map_err(store_error)?;
        let aside = Aside {
            path: path.clone(),
            version,
            length,
            attributes: OnceLock::new(),
            source: Mutex::new(None),
            out: Arc::new(File::from(out)),
            target: target.to_owned(),
            shared: false,
        };
        if let Err(error) = ftruncate(&aside.out, length) {
            aside.discard();
            return Err(store_error(error));
        }
        Ok(aside)
    }

    /// The same, where other nodes may read parts of it from the origin, too.
    pub(crate) fn shared(mut self, shared: bool) -> Aside {
        let source = self.source.get_mut();
        if shared && let Ok(Some(source)) = source {
            read_nothing_ahead(source);
        }
        self.shared = shared;
        self
    }

    /// The file that the bytes are put into.
    pub(crate) fn out(&self) -> &Arc<File> {
        &self.out
    }

    /// Bytes of the body.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Which version it is to be.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Notes the attributes of the version that is being copied, and says what they are; `None`
    /// where nobody knows yet.
    pub(crate) fn attributes(&self, said: Option<Attributes>) -> Option<&Attributes> {
        if let Some(said) = said.filter(|said| version_of(said) == self.version) {
            let _ = self.attributes.set(said);
        }
        self.attributes.get()
    }

    /// Puts in a whole short body.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<(), Why> {
        self.out
            .write_all_at(bytes, 0)
            .map_err(|error| store_error(errno(&error)))
    }

    /// Copies the bytes of `extent` from the origin; they are of the file's version, or this is an
    /// error.
    pub(crate) fn read(&self, counters: &Counters, extent: Range<u64>) -> Result<(), Why> {
        let source = self.source(counters)?;
        for run in self.data_runs(&source, extent) {
            self.copy_run(counters, &source, run)?;
        }
        let now = attributes_of(counters, &source, b"").map_err(Why::Origin)?;
        if version_of(&now) == self.version {
            Ok(())
        } else {
            Err(Why::Changed)
        }
    }

    /// The origin's file, opened by the first who needs it.
    fn source(&self, counters: &Counters) -> Result<Arc<File>, Why> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = &*source {
            return Ok(source.clone());
        }
        let opened = match open(counters, &self.path) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Why::Changed),
            Err(error) => return Err(Why::Origin(error)),
        };
        if self.attributes(Some(opened.attributes)).is_none() {
            return Err(Why::Changed);
        }
        if self.shared {
            read_nothing_ahead(&opened.source);
        }
        *source = Some(opened.source.clone());
        Ok(opened.source)
    }

    /// The parts of the extent that hold data: all of it but for sparse files.
    fn data_runs(&self, source: &File, extent: Range<u64>) -> Vec<Range<u64>> {
        if extent.is_empty() {
            return Vec::new();
        }
        let whole =
            |attributes: &Attributes| attributes.blocks.saturating_mul(512) >= attributes.size;
        if self.attributes.get().is_none_or(whole) {
            return vec![extent];
        }
        let mut runs = Vec::new();
        let mut at = extent.start;
        while at < extent.end {
            let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(_) => return vec![extent],
            };
            let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
                Ok(end) if end > start => end,
                _ => return vec![extent],
            };
            if start < extent.end {
                runs.push(start..end.min(extent.end));
            }
            at = end;
        }
        runs
    }

    fn copy_run(&self, counters: &Counters, source: &File, run: Range<u64>) -> Result<(), Why> {
        ROOM.with_borrow_mut(|room| {
            room.resize(BUFFER, 0);
            let mut at = run.start;
            while at < run.end {
                let wanted = room.len().min((run.end - at) as usize);
                let read = match source.read_at(&mut room[..wanted], at) {
                    Ok(0) => return Err(Why::Changed),
                    Ok(read) => read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Why::Origin(errno(&error))),
                };
                self.out
                    .write_all_at(&room[..read], at)
                    .map_err(|error| store_error(errno(&error)))?;
                count(&counters.bytes_read, read as u64);
                at += read as u64;
            }
            Ok(())
        })
    }

    /// Gives the copy the origin's times and mode, so that even a reader without the shim sees
    /// them.
    pub(crate) fn finish(&self) -> Result<Box<Copy>, Why> {
        let Some(&attributes) = self.attributes.get() else {
            self.discard();
            return Err(Why::Changed);
        };
        let finished = protect(&self.out, &attributes)
            .and_then(|()| self.out.metadata().map_err(|error| errno(&error)));
        match finished {
            Ok(found) => Ok(Box::new(Copy {
                attributes,
                file: self.target.clone(),
                inode: found.ino(),
                allocated: found.blocks() * 512,
            })),
            Err(error) => {
                self.discard();
                Err(store_error(error))
            }
        }
    }

    /// Gives the copy up.
    pub(crate) fn discard(&self) {
        let _ = std::fs::remove_file(&self.target);
    }
}

fn store_error(error: Errno) -> Why {
    match error {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::NOMEM => Why::NoRoom,
        other => Why::Origin(other),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn protect(out: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    let time = |stamp: Timestamp| Timespec {
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
