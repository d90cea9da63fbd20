//! The jobs that the event loop hands to the threads, and what comes back from them.
#![forbid(unsafe_code)]

use super::copy::{Aside, Looked, Why, look};
use super::pool::Pool;
use super::snapshot::{Batches, Listed, NoListing, list};
use super::{Counters, OriginPath, Said, entry, lease};
use copper_core::tree::{Object, RequestId};
use crossbeam::channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// Whether the file has no writer.
    Quiet(OriginPath, bool),
    /// Under which paths, free of links, the paths that a client changed may be known.
    Canonical(u64, Vec<Vec<u8>>),
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
    waker: Arc<OwnedFd>,
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
            waker: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
        })
    }

    /// Readable when something has landed.
    pub(crate) fn waker(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    /// What has landed since the last call.
    pub(crate) fn landings(&self) -> Vec<Landing> {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.waker, &mut counter);
        self.landed.try_iter().collect()
    }

    fn reporter(&self) -> impl Fn(Landing) + Send + 'static {
        let (results, waker) = (self.results.clone(), self.waker.clone());
        move |landing| {
            if results.send(landing).is_ok() {
                let _ = rustix::io::write(&*waker, &1u64.to_ne_bytes());
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

    /// Asks whether a file has no writer.
    pub(crate) fn ask_quiet(&mut self, path: OriginPath) {
        self.read(move |_| {
            let quiet = lease::has_no_writer(&path);
            Some(Landing::Quiet(path, quiet))
        });
    }

    /// Asks under which paths, free of links, the paths that a client changed may be known.
    pub(crate) fn ask_canonical(&mut self, number: u64, paths: Vec<OriginPath>) {
        let report = self.reporter();
        self.changes.submit(Box::new(move || {
            let canonical = paths
                .iter()
                .flat_map(|path| canonical_names(path))
                .collect();
            report(Landing::Canonical(number, canonical));
        }));
    }
}

/// The path with its directory freed of links, and where it leads if it is a link itself.
fn canonical_names(path: &[u8]) -> Vec<Vec<u8>> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let real = |path: &[u8]| {
        std::fs::canonicalize(OsStr::from_bytes(path))
            .map(|found| found.into_os_string().into_vec())
            .ok()
    };
    let (parent, name) = copper_core::path::split_last(path);
    let beside = real(parent).map(|mut parent| {
        if parent.last() != Some(&b'/') {
            parent.push(b'/');
        }
        parent.extend_from_slice(name);
        parent
    });
    beside.into_iter().chain(real(path)).collect()
}
