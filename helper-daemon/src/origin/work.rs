//! The jobs that the event loop hands to the threads, and what comes back from them.
#![forbid(unsafe_code)]

use super::copy::{Aside, Looked, Why, look};
use super::pool::Pool;
use super::snapshot::{Batches, Listed, NoListing, list};
use super::{Counters, OriginPath, Said, attributes_of, entry, lease};
use crate::waker::Waker;
use copper_core::path::split_last;
use copper_core::tree::{Object, RequestId};
use crossbeam::channel::{Receiver, Sender, unbounded};
use rustix::fs::CWD;
use rustix::fs::inotify::{self, WatchFlags};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

/// What came back from the origin, with the tree's name for the request where there is one.
pub(crate) enum Landing {
    /// What it said of one path.
    Entry(RequestId, Object, Said),
    /// A directory's listing; the attributes are still to be asked for.
    Listed(RequestId, Object, Result<Listed, NoListing>),
    /// The attributes of a listing's names, by position.
    Directory(RequestId, Object, Arc<Batches>, Vec<(usize, Said)>),
    /// A first look at a file's bytes.
    Looked(RequestId, Object, Looked),
    /// An extent of a file.
    Extent(RequestId, Extent, Result<(), Why>),
    /// Whether what a control dumped could be written.
    Written(u64, Result<(), String>),
    /// Whether the file has no writer.
    Quiet(OriginPath, u64, bool),
    /// Where the paths that a client changed lead.
    Canonical(u64, Vec<Canonical>),
}

/// An extent of a file that is being copied.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// The file.
    pub(crate) aside: Arc<Aside>,
    /// Which bytes.
    pub(crate) bytes: Range<u64>,
    /// How often it has been tried.
    pub(crate) tries: u32,
}

/// The origin, as the event loop sees it.
pub(crate) struct Origin {
    /// How often it was asked.
    pub(crate) counters: Arc<Counters>,
    readers: Pool,
    /// Changes are never queued behind reads.
    changes: Pool,
    results: Sender<Landing>,
    landed: Receiver<Landing>,
    waker: Arc<Waker>,
}

const CHANGE_THREADS: usize = 2;

impl Origin {
    /// The origin, read by up to `threads` threads.
    pub(crate) fn new(threads: usize) -> std::io::Result<Origin> {
        let (results, landed) = unbounded();
        Ok(Origin {
            counters: Arc::default(),
            readers: Pool::new("origin", threads),
            changes: Pool::new("changes", CHANGE_THREADS),
            results,
            landed,
            waker: Arc::new(Waker::new()?),
        })
    }

    /// Has an event when something has landed.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether a thread works for the event loop, or is about to.
    pub(crate) fn is_at_work(&self) -> bool {
        self.readers.is_at_work() || self.changes.is_at_work()
    }

    /// What has landed since the last call.
    pub(crate) fn landings(&self) -> Vec<Landing> {
        self.landed.try_iter().collect()
    }

    fn reporter(&self) -> impl Fn(Landing) + Send + 'static {
        let (results, waker) = (self.results.clone(), self.waker.clone());
        move |landing| {
            if results.send(landing).is_ok() {
                waker.wake();
            }
        }
    }

    fn read(&mut self, job: impl FnOnce(&Counters) -> Option<Landing> + Send + 'static) {
        let (report, counters) = (self.reporter(), self.counters.clone());
        self.readers.submit(Box::new(move || {
            if let Some(landing) = job(&counters) {
                report(landing);
            }
        }));
    }

    /// Asks what one path is.
    pub(crate) fn ask_entry(&mut self, id: RequestId, object: Object) {
        self.read(move |counters| {
            let said = entry::fetch(counters, object.path());
            Some(Landing::Entry(id, object, said))
        });
    }

    /// Asks for the names in a directory, if they are no more than `limit`.
    pub(crate) fn ask_listing(&mut self, id: RequestId, object: Object, limit: usize) {
        self.read(move |counters| {
            let listed = list(counters, object.path(), limit);
            Some(Landing::Listed(id, object, listed))
        });
    }

    /// Asks for the attributes of the names at the positions `wanted` of a listing.
    pub(crate) fn ask_names(
        &mut self,
        id: RequestId,
        object: &Object,
        listed: Listed,
        wanted: Vec<usize>,
    ) {
        let (batches, ranges) = Batches::divide(listed, wanted, self.readers.limit());
        for range in ranges {
            let (batches, object) = (batches.clone(), object.clone());
            self.read(move |counters| {
                let said = batches.run(counters, range)?;
                Some(Landing::Directory(id, object, batches, said))
            });
        }
    }

    /// Asks for a file: for all of it, to be written to `target`, if it is no longer than `limit`.
    pub(crate) fn ask_file(&mut self, id: RequestId, object: Object, target: PathBuf, limit: u64) {
        self.read(move |counters| {
            let looked = look(counters, object.path(), &target, limit);
            Some(Landing::Looked(id, object, looked))
        });
    }

    /// Asks for an extent of a file.
    pub(crate) fn ask_extent(&mut self, id: RequestId, extent: Extent) {
        self.read(move |counters| {
            let read = extent.aside.read(counters, extent.bytes.clone());
            Some(Landing::Extent(id, extent, read))
        });
    }

    /// Writes files into a directory, by names and contents.
    pub(crate) fn write_out(
        &mut self,
        token: u64,
        directory: PathBuf,
        files: Vec<(String, Vec<u8>)>,
    ) {
        self.read(move |_| {
            let written = files.iter().try_for_each(|(name, content)| {
                let path = directory.join(name);
                let error = |error| format!("cannot write {}: {error}", path.display());
                std::fs::write(&path, content).map_err(error)
            });
            Some(Landing::Written(token, written))
        });
    }

    /// Asks whether a file has no writer; `opening` is given back.
    pub(crate) fn ask_quiet(&mut self, path: OriginPath, opening: u64) {
        self.read(move |_| {
            let quiet = lease::has_no_writer(&path);
            Some(Landing::Quiet(path, opening, quiet))
        });
    }

    /// Asks under which paths, free of links, the paths that a client changed may be known, and
    /// lets `notifier` tell when a writer closes them.
    pub(crate) fn ask_canonical(
        &mut self,
        number: u64,
        paths: Vec<OriginPath>,
        notifier: Option<Arc<OwnedFd>>,
    ) {
        let (report, counters) = (self.reporter(), self.counters.clone());
        self.changes.submit(Box::new(move || {
            let found = paths
                .iter()
                .map(|path| Canonical::find(&counters, path, notifier.as_deref()));
            report(Landing::Canonical(number, found.collect()));
        }));
    }
}

/// Where a path that a client changed leads, as the origin says.
pub(crate) struct Canonical {
    /// With its directory freed of links.
    pub(crate) beside: Option<OriginPath>,
    /// Where it leads, if it leads anywhere.
    pub(crate) target: Option<OriginPath>,
    /// Device and inode of the target, where it is to be watched.
    pub(crate) identity: Option<(u64, u64)>,
    /// The watch that was set on the target.
    pub(crate) watch: Option<i32>,
}

impl Canonical {
    fn find(counters: &Counters, path: &[u8], notifier: Option<&OwnedFd>) -> Canonical {
        let (parent, name) = split_last(path);
        let beside = canonical(parent).map(|parent| join(&parent, name));
        let target = canonical(path);
        let watch = notifier
            .zip(target.as_ref())
            .and_then(|(notifier, target)| {
                let flags = WatchFlags::CLOSE_WRITE | WatchFlags::DONT_FOLLOW;
                inotify::add_watch(notifier, target.as_slice(), flags).ok()
            });
        let identity = notifier.zip(target.as_ref()).and_then(|(_, target)| {
            let found = attributes_of(counters, CWD, target).ok()?;
            Some((found.device, found.inode))
        });
        Canonical {
            identity,
            beside: beside.map(Into::into),
            target: target.map(Into::into),
            watch,
        }
    }
}

fn canonical(path: &[u8]) -> Option<Vec<u8>> {
    let found = std::fs::canonicalize(OsStr::from_bytes(path)).ok()?;
    Some(found.into_os_string().into_vec())
}

/// The path of `name` in `directory`.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let start = if directory == b"/" { b"" } else { directory };
    [start, b"/", name].concat()
}

/// A path without `.`, `..` and empty components, where no links are: `..` is what it seems.
pub(crate) fn collapse(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    [b"/", &*names.join(&b'/')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_collapsed_up_to_the_root() {
        assert_eq!(collapse(b"/a//b/./../c/"), b"/a/c");
        assert_eq!(collapse(b"/../.."), b"/");
    }
}
