//! What becomes of a record that is whole: its body goes into the catalog and the store.
#![forbid(unsafe_code)]

use super::bodies::read_whole;
use super::wire::{Directory, checked_error};
use super::{Aside, Body, Copy, Event, Kind, Object, Record};
use crate::engine::Engine;
use crate::origin::copy::Why;
use crate::origin::snapshot::Listed;
use crate::origin::{OriginPath, Said};
use copper_core::attributes::Attributes;
use copper_core::catalog::reader;
use copper_core::catalog::writer::Full;
use copper_core::tree::Outcome;
use rustix::io::Errno;
use std::sync::Arc;

/// Why a record is not published.
enum Unpublished {
    /// The catalog is full.
    Full,
    /// Its body is not here, or cannot be kept.
    Body,
}

impl From<Full> for Unpublished {
    fn from(Full: Full) -> Unpublished {
        Unpublished::Full
    }
}

type Published = Result<(), Unpublished>;

impl Engine {
    pub(super) fn publish_record(&mut self, record: &Record) {
        self.give_room_back(&record.object);
        let arrived = self
            .tree
            .arrived
            .take_if(|(object, _)| *object == record.object)
            .map(|(_, body)| body);
        let told = self.touched.len();
        let queued = self.tree.events.len();
        let done = match record.outcome {
            Outcome::Present { .. } => self.publish_present(record, arrived),
            Outcome::Absent { errno } => self.publish_absent(record, arrived, errno),
            Outcome::TooLarge => {
                self.publish_too_large(record);
                Ok(())
            }
        };
        if self.tree.has_others() {
            // What this node learns is no news to the others.
            self.touched.truncate(told);
        }
        self.tree.keep_published(queued, &record.object);
        match done {
            Ok(()) => {
                let absent = matches!(record.outcome, Outcome::Absent { .. });
                self.journal
                    .obtained(&record.object, record.length(), absent);
                self.note_absences(record);
            }
            Err(Unpublished::Full) => self.note_full(),
            Err(Unpublished::Body) => {
                let failed = Event::StoreFailed(record.object.clone());
                self.tree.events.push_back(failed);
            }
        }
    }

    fn publish_present(&mut self, record: &Record, arrived: Option<Body>) -> Published {
        let object = &record.object;
        let path: OriginPath = object.path().into();
        match (object.kind(), arrived) {
            (_, Some(Body::Entry(said, encoded))) => {
                self.publish(&path, &said)?;
                self.keep_encoded(object, encoded);
                Ok(())
            }
            (_, Some(Body::Directory(batches, said, encoded))) => {
                let listed = batches.listed();
                self.publish_directory(&path, &listed.attributes, &listed.names, said)?;
                self.keep_encoded(object, encoded);
                Ok(())
            }
            (_, Some(Body::File(copy))) => self.publish_copy(&path, &copy),
            (Kind::Entry, Some(Body::Wire(bytes))) => self.publish_entry_body(object, &bytes),
            (Kind::Directory, Some(Body::Wire(bytes))) => {
                self.publish_directory_body(object, &bytes)?;
                self.keep_body(object, &bytes);
                Ok(())
            }
            (Kind::Content, Some(Body::Wire(bytes))) => self.publish_file_body(record, &bytes),
            (Kind::Content, _) => self.finish_file(&path, object),
            (Kind::Directory, _) => self.finish_directory(record),
            (Kind::Entry | Kind::Closure, _) => Err(Unpublished::Body),
        }
    }

    fn publish_absent(&mut self, record: &Record, arrived: Option<Body>, errno: i32) -> Published {
        let path: OriginPath = record.object.path().into();
        match (record.object.kind(), arrived) {
            (_, Some(Body::Entry(said, _))) => {
                self.publish(&path, &said)?;
            }
            (Kind::Entry, _) => {
                let error = checked_error(errno).unwrap_or(Errno::IO);
                let said = match error {
                    Errno::NOENT | Errno::NOTDIR => Said::Absent(errno as u16),
                    refused => Said::Refused(refused),
                };
                self.publish(&path, &said)?;
            }
            (Kind::Directory, _) => self.not_listed(&path, record),
            (Kind::Content, _) => self.no_file(&path, record),
            (Kind::Closure, _) => {}
        }
        Ok(())
    }

    fn publish_too_large(&mut self, record: &Record) {
        let path: OriginPath = record.object.path().into();
        match record.object.kind() {
            Kind::Content => self.pass_content(&path, Why::NoRoom),
            _ => self.not_listed(&path, record),
        }
    }

    fn keep_encoded(&mut self, object: &Object, encoded: Option<Vec<u8>>) {
        if let Some(bytes) = encoded {
            self.keep_body(object, &bytes);
        }
    }

    /// Keeps a body as it travels, for those who ask after us.
    pub(super) fn keep_body(&mut self, object: &Object, bytes: &[u8]) {
        let limit = self.tree.settings.inline_limit;
        if let Err(error) = self.tree.bodies.keep(object, bytes, limit) {
            tracing::warn!(%error, ?object, "a body was not kept");
        }
    }

    fn publish_entry_body(&mut self, object: &Object, bytes: &[u8]) -> Published {
        let said = self.tree.mounts.decode_entry(bytes);
        let said = said.ok_or(Unpublished::Body)?;
        let path: OriginPath = object.path().into();
        self.publish(&path, &said)?;
        self.keep_body(object, bytes);
        Ok(())
    }

    fn publish_directory_body(&mut self, object: &Object, bytes: &[u8]) -> Published {
        let directory = self.tree.mounts.decode_directory(bytes);
        let Directory {
            attributes,
            names,
            said,
        } = directory.ok_or(Unpublished::Body)?;
        let path: OriginPath = object.path().into();
        Ok(self.publish_directory(&path, &attributes, &names, said)?)
    }

    fn finish_directory(&mut self, record: &Record) -> Published {
        let aside = self.tree.aside.remove(&record.object);
        let aside = aside.ok_or(Unpublished::Body)?;
        aside.discard();
        let bytes = read_whole(aside.out(), record.length()).map_err(|_| Unpublished::Body)?;
        self.publish_directory_body(&record.object, &bytes)?;
        self.tree
            .bodies
            .keep_file(&record.object, aside.out().clone());
        Ok(())
    }

    /// A short file from another node: its attributes, and its bytes.
    fn publish_file_body(&mut self, record: &Record, bytes: &[u8]) -> Published {
        let Outcome::Present { version, length } = record.outcome else {
            return Err(Unpublished::Body);
        };
        let head = bytes.len().saturating_sub(length as usize);
        let (head, content) = bytes.split_at(head);
        let attributes = self.tree.mounts.decode_head(head);
        let path: OriginPath = record.object.path().into();
        let target = self.store.next_partial();
        let copied = Aside::expected(&path, version, length, &target).and_then(|aside| {
            aside.attributes(attributes);
            let copied = aside.fill(content).and_then(|()| aside.finish());
            if copied.is_err() {
                aside.discard();
            }
            copied
        });
        match copied {
            Ok(copy) => self.publish_copy(&path, &copy),
            Err(why) => {
                tracing::info!(?why, path = %path.escape_ascii(), "not stored");
                Err(Unpublished::Body)
            }
        }
    }

    fn publish_copy(&mut self, path: &OriginPath, copy: &Copy) -> Published {
        if self.keep(path, copy)? {
            Ok(())
        } else {
            Err(Unpublished::Body)
        }
    }

    fn finish_file(&mut self, path: &OriginPath, object: &Object) -> Published {
        let aside = self.tree.aside.remove(object);
        let aside: Arc<Aside> = aside.ok_or(Unpublished::Body)?;
        match aside.finish() {
            Ok(copy) => self.publish_copy(path, &copy),
            Err(why) => {
                self.pass_content(path, why);
                Err(Unpublished::Body)
            }
        }
    }

    /// How an answer of the origin travels; `None` where nobody else is to have it.
    pub(in crate::engine) fn encode_said(&mut self, said: &Said) -> Option<Vec<u8>> {
        match said {
            Said::Present(attributes, target) if self.tree.has_others() => {
                Some(self.tree.mounts.encode_entry(attributes, target))
            }
            _ => None,
        }
    }

    /// How a directory travels: each name with what was said of it now or earlier.
    pub(in crate::engine) fn encode_listing(
        &mut self,
        path: &[u8],
        listed: &Listed,
        said: &[(usize, Said)],
    ) -> Option<Vec<u8>> {
        if !self.tree.has_others() {
            return None;
        }
        let mut all: Vec<Option<Said>> = vec![None; listed.names.len()];
        for (position, said) in said {
            all[*position] = Some(said.clone());
        }
        for (name, said) in listed.names.iter().zip(&mut all) {
            if said.is_none() {
                *said = self.said_before(path, &name.name, name.inode);
            }
        }
        let mounts = &mut self.tree.mounts;
        Some(mounts.encode_directory(&listed.attributes, &listed.names, &all))
    }

    fn said_before(&self, directory: &[u8], name: &[u8], inode: u64) -> Option<Said> {
        if matches!(name, b"." | b"..") {
            return None;
        }
        let reader = self.writer.reader();
        let known = reader.live(&crate::origin::work::join(directory, name))?;
        let attributes: Attributes = *known.attributes();
        let present = known.kind() == reader::Kind::Present && attributes.inode == inode;
        present.then(|| Said::Present(Box::new(attributes), known.link().into()))
    }
}
