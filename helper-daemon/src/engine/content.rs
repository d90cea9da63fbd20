//! The bytes of files, and the mirrors of directories.
#![forbid(unsafe_code)]

use super::resolve::{Found, Walked};
use super::{Engine, Goal, MOST_COPIES, Step, Task, Wanted};
use crate::journal::Reason;
use crate::origin::copy::{Copy, Why};
use crate::origin::{OriginPath, Said};
use copper_core::attributes::Attributes;
use copper_core::catalog::reader::Content;
use copper_core::catalog::writer::Full;
use copper_core::request::Outcome;
use copper_core::tree::{Answer, Kind, Object};
use rustix::io::Errno;

impl Engine {
    pub(super) fn content(&mut self, path: &[u8], task: &mut Task) -> Result<Step, Full> {
        match self.walk(path, true) {
            Walked::Absent(_) => Ok(Step::Done(Outcome::Known)),
            Walked::Outside => Ok(self.pass(path, Reason::Outside)),
            Walked::PassThrough(at) => Ok(self.wait_for_writer(&at)),
            Walked::Unknown(at, at_end) => Ok(self.learn(at, at_end)),
            Walked::Found(found) => self.content_of(&found, task),
        }
    }

    /// The bytes of a file, or the mirror of a directory, that is known to exist.
    pub(super) fn content_of(&mut self, found: &Found, task: &mut Task) -> Result<Step, Full> {
        if found.attributes.is_directory() {
            return self.mirror(found);
        }
        if !found.attributes.is_regular() {
            return Ok(self.pass(&found.path, Reason::Special));
        }
        match self.content_word(found) {
            Content::Stored(_) => {
                self.store.touch(&found.path);
                return Ok(Step::Done(Outcome::Known));
            }
            Content::Pass => {
                let why = self.journal.why_passed(&found.path);
                return Ok(self.pass_file(found, why.unwrap_or(Reason::NoRoom)));
            }
            Content::Unknown => {}
        }
        if found.attributes.size > self.policy.largest {
            self.writer.set_pass(found.offset);
            return Ok(self.pass_file(found, Reason::TooLarge));
        }
        if let Some(inode) = self.store.same_file(&found.attributes) {
            return self.alias(found, inode);
        }
        if let Some(other) = self.other_name_in_flight(found) {
            return Ok(Step::Wait(Wanted::Object(other)));
        }
        let Ok(object) = Object::new(Kind::Content, &found.path) else {
            return Ok(self.pass_file(found, Reason::Refused));
        };
        if task.copies.0.as_ref() != Some(&found.path) {
            task.copies = (Some(found.path.clone()), 0);
            if !matches!(task.goal, Goal::Ahead(_)) {
                self.look_ahead(&found.path);
            }
        }
        if !self.tree.has_room_for(&object) {
            if matches!(task.goal, Goal::Ahead(_)) {
                // Nothing has to go for what nobody has asked for.
                if self.store.reserve(found.attributes.size).is_err() {
                    return Ok(Step::Done(Outcome::PassThrough));
                }
            } else if task.copies.1 >= MOST_COPIES || !self.make_room(found.attributes.size) {
                let why = match self.store.could_hold(found.attributes.size) {
                    true => Reason::NoRoom,
                    false => Reason::TooLarge,
                };
                self.writer.set_pass(found.offset);
                return Ok(self.pass_file(found, why));
            }
            self.tree.note_room(&object, found.attributes.size);
        }
        task.copies.1 += 1;
        Ok(Step::Wait(Wanted::Object(object)))
    }

    fn pass_file(&mut self, found: &Found, why: Reason) -> Step {
        self.journal.passed(&found.path, why, found.attributes.size);
        Step::Done(Outcome::PassThrough)
    }

    fn content_word(&self, found: &Found) -> Content {
        let reader = self.writer.reader();
        reader
            .record(found.offset)
            .map_or(Content::Unknown, |record| reader.content(&record))
    }

    fn mirror(&mut self, found: &Found) -> Result<Step, Full> {
        match self.store.make_directory(&found.path) {
            Ok(inode) => {
                self.writer.set_stored(found.offset, inode)?;
                Ok(Step::Done(Outcome::Known))
            }
            Err(error) => {
                tracing::warn!(%error, path = %found.path.escape_ascii(), "no mirror");
                self.writer.set_pass(found.offset);
                Ok(self.pass(&found.path, Reason::NoRoom))
            }
        }
    }

    /// Another name of a file whose bytes lie in the store already.
    fn alias(&mut self, found: &Found, inode: u64) -> Result<Step, Full> {
        self.store.add_name(&found.path, inode);
        self.writer.set_stored(found.offset, inode)?;
        Ok(Step::Done(Outcome::Known))
    }

    fn other_name_in_flight(&self, found: &Found) -> Option<Object> {
        if found.attributes.links < 2 {
            return None;
        }
        let identity = (found.attributes.device, found.attributes.inode);
        self.linked
            .get(&identity)?
            .iter()
            .filter(|name| **name != found.path)
            .filter_map(|name| Object::new(Kind::Content, name).ok())
            .find(|object| self.tree.has_room_for(object))
    }

    /// Sets room aside for `size` bytes, at the expense of what was not asked for longest.
    fn make_room(&mut self, size: u64) -> bool {
        if !self.store.could_hold(size) {
            return false;
        }
        while self.store.reserve(size).is_err() {
            if !self.evict_oldest() {
                return false;
            }
        }
        true
    }

    fn evict_oldest(&mut self) -> bool {
        let Some(oldest) = self.store.oldest() else {
            return false;
        };
        self.tally.evictions += 1;
        self.drop_content(&oldest);
        true
    }

    /// Takes the bytes of `path`, under all names of the file, out of the store.
    pub(super) fn drop_content(&mut self, path: &[u8]) {
        if let Some(inode) = self.store.inode_of(path) {
            self.needs.remove(&inode);
        }
        for name in self.store.names_of(path) {
            let live = self.writer.reader().live(name).map(|live| live.offset());
            if let Some(offset) = live {
                self.writer.set_evicted(offset);
            }
        }
        self.store.remove(path);
        self.tree.evicted(Kind::Content, path);
    }

    /// Sets more room aside for a file that turned out to be of `size` bytes.
    pub(super) fn make_more_room(&mut self, object: &Object, size: u64) -> bool {
        let room = self.tree.take_room(object);
        self.store.release(room);
        let made = self.make_room(size);
        if made {
            self.tree.note_room(object, size);
        }
        made
    }

    /// What became of a file whose bytes were asked for: where they cannot be had, everybody is sent
    /// to the origin from now on.
    pub(super) fn content_answered(&mut self, path: &[u8], answer: &Answer) {
        match answer {
            Answer::NoSpace => self.pass_content(path, Why::NoRoom),
            Answer::Failed { errno } if *errno == Errno::STALE.raw_os_error() => {
                self.pass_content(path, Why::Changed);
            }
            _ => {}
        }
    }

    /// Leaves the bytes of `path` to the origin.
    pub(super) fn pass_content(&mut self, path: &[u8], why: Why) {
        tracing::info!(path = %path.escape_ascii(), ?why, "served by the origin");
        let reason = match why {
            Why::Origin(_) => Reason::Refused,
            Why::NoRoom => Reason::NoRoom,
            Why::Changed => Reason::Changed,
        };
        self.journal.passing(path, reason);
        let live = self.writer.reader().live(path).map(|live| live.offset());
        if let Some(offset) = live {
            self.writer.set_pass(offset);
        }
    }

    /// Evicts files of about `size` bytes together: the file system is fuller than the budget.
    pub(super) fn evict_for(&mut self, size: u64) -> bool {
        let before = self.store.usage().memory;
        while before - self.store.usage().memory < size.max(1) {
            if !self.evict_oldest() {
                break;
            }
        }
        self.store.usage().memory < before
    }

    /// The origin has another version of `path` than the catalog says.
    fn found_changed(&mut self, path: &OriginPath, now: Attributes) -> Result<u64, Full> {
        self.drop_content(path);
        self.retire_here(path);
        self.publish(path, &Said::Present(Box::new(now), Box::default()))
    }

    /// Gives a finished copy its place in the store, and says so in the catalog; `false` where the
    /// store will not have it.
    pub(super) fn keep(&mut self, path: &OriginPath, copy: &Copy) -> Result<bool, Full> {
        let live = self.writer.reader().live(path);
        let known = live.map(|live| {
            let same = live.attributes().same_version(&copy.attributes);
            (live.offset(), same)
        });
        let offset = match known {
            Some((offset, true)) => offset,
            // Kept for other nodes, before anybody here has asked what it is.
            None if self.tree.has_others() => {
                let said = Said::Present(Box::new(copy.attributes), Box::default());
                self.publish(path, &said)?
            }
            Some(_) | None => self.found_changed(path, copy.attributes)?,
        };
        self.drop_content(path);
        if let Err(error) = self.store.keep(path, copy) {
            tracing::warn!(%error, path = %path.escape_ascii(), "not stored");
            let _ = std::fs::remove_file(&copy.file);
            self.journal.passing(path, Reason::NoRoom);
            self.writer.set_pass(offset);
            return Ok(false);
        }
        self.writer.set_stored(offset, copy.inode)?;
        while self.store.is_over_budget() && self.evict_oldest() {}
        Ok(true)
    }
}
