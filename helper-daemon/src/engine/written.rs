//! Files that processes of this node opened for writing: they are left to the origin until nobody
//! writes to them any more.
//!
//! The kernel tells when such a file is closed; whether that was its last writer, a lease tells.
#![forbid(unsafe_code)]

use super::{Engine, Step, Wanted};
use crate::origin::OriginPath;
use copper_core::attributes::Attributes;
use copper_core::catalog::writer::What;
use copper_core::path::is_within;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a file that had a writer is not looked at again for those who ask.
const PAUSE: Duration = Duration::from_millis(200);
/// Room for many events without names.
const EVENTS: usize = 4096;

/// The files that were opened for writing.
pub(super) struct Written {
    marks: HashMap<OriginPath, Mark>,
    /// Counts the openings, so that what was found out before one is not believed after it.
    openings: u64,
    notifier: Arc<OwnedFd>,
    watched: HashMap<i32, OriginPath>,
}

struct Mark {
    opening: u64,
    /// Device and inode: the file may have other names.
    identity: Option<(u64, u64)>,
    looked: Option<Instant>,
}

impl Written {
    pub(super) fn new() -> std::io::Result<Written> {
        let notifier = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Written {
            marks: HashMap::new(),
            openings: 0,
            notifier: Arc::new(notifier),
            watched: HashMap::new(),
        })
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        !self.marks.is_empty() && self.marks.contains_key(path)
    }

    /// What watches are set with.
    pub(super) fn notifier(&self) -> Arc<OwnedFd> {
        self.notifier.clone()
    }

    /// Whether a file that was opened for writing has these attributes: another name of it.
    pub(super) fn has_file(&self, attributes: &Attributes) -> bool {
        let identity = Some((attributes.device, attributes.inode));
        attributes.is_regular()
            && attributes.links > 1
            && self.marks.values().any(|mark| mark.identity == identity)
    }

    /// Notes that `path`, a file with this device and inode, was opened for writing.
    pub(super) fn mark(&mut self, path: OriginPath, identity: Option<(u64, u64)>) {
        self.openings += 1;
        let mark = Mark {
            opening: self.openings,
            identity,
            looked: None,
        };
        self.marks.insert(path, mark);
    }

    /// Notes that the watch `descriptor` tells of `path`.
    pub(super) fn note_watch(&mut self, descriptor: i32, path: OriginPath) {
        self.watched.insert(descriptor, path);
    }

    /// The opening that a mark is of.
    fn opening(&self, path: &[u8]) -> Option<u64> {
        self.marks.get(path).map(|mark| mark.opening)
    }

    /// The files that were closed by a writer.
    fn closed(&mut self) -> Vec<OriginPath> {
        let mut closed = Vec::new();
        let mut room = [const { MaybeUninit::uninit() }; EVENTS];
        let mut events = inotify::Reader::new(&*self.notifier, &mut room);
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::IGNORED) {
                self.watched.remove(&event.wd());
            } else if let Some(path) = self.watched.get(&event.wd())
                && !closed.contains(path)
            {
                closed.push(path.clone());
            }
        }
        closed
    }

    fn unwatch(&mut self, path: &OriginPath) {
        let descriptors: Vec<i32> = self
            .watched
            .iter()
            .filter(|(_, watched)| *watched == path)
            .map(|(descriptor, _)| *descriptor)
            .collect();
        for descriptor in descriptors {
            self.watched.remove(&descriptor);
            let _ = inotify::remove_watch(&*self.notifier, descriptor);
        }
    }
}

impl Engine {
    /// Readable when a file that was opened for writing has been closed.
    pub(crate) fn notifier(&self) -> BorrowedFd<'_> {
        self.written.notifier.as_fd()
    }

    /// Looks at the files that were closed by a writer.
    pub(crate) fn take_closed(&mut self) {
        for path in self.written.closed() {
            self.ask_quiet(path);
        }
    }

    /// Asks whether a file has no writer any more.
    pub(super) fn ask_quiet(&mut self, path: OriginPath) {
        if let Some(opening) = self.written.opening(&path) {
            self.origin.ask_quiet(path, opening);
        }
    }

    /// Where `path` was opened for writing: asks whether it still is, now and then.
    pub(super) fn look_for_writer(&mut self, path: &OriginPath) -> Option<Step> {
        let mark = self.written.marks.get_mut(path)?;
        let now = Instant::now();
        let wanted = Wanted::Quiet(path.clone());
        let recently = mark
            .looked
            .is_some_and(|looked| now.duration_since(looked) < PAUSE);
        if recently && !self.waiting.contains_key(&wanted) {
            return None;
        }
        mark.looked = Some(now);
        Some(Step::Wait(wanted))
    }

    /// A file was looked at; `quiet` if it had no writer any more.
    pub(super) fn quiet_landed(&mut self, path: OriginPath, opening: u64, quiet: bool) {
        if quiet && self.written.opening(&path) == Some(opening) {
            let mark = self.written.marks.remove(&path);
            self.written.unwatch(&path);
            self.forget(&path);
            self.forget_names(mark.and_then(|mark| mark.identity));
        }
        self.wake(&Wanted::Quiet(path));
    }

    /// A file that is being written stays so under its new name.
    pub(super) fn carry_marks(&mut self, from: &[u8], to: &[u8]) {
        let moved: Vec<OriginPath> = self
            .written
            .marks
            .keys()
            .filter(|path| is_within(path, from))
            .cloned()
            .collect();
        for path in moved {
            let new: OriginPath = [to, &path[from.len()..]].concat().into();
            if self.writer.publish(&new, What::Pass).is_err() {
                self.note_full();
            }
            for watched in self.written.watched.values_mut() {
                if *watched == path {
                    *watched = new.clone();
                }
            }
            let mark = self.written.marks.remove(&path);
            self.written.mark(new, mark.and_then(|mark| mark.identity));
        }
    }
}
