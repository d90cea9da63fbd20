//! What is done when something has come from the origin.
#![forbid(unsafe_code)]

use super::{Engine, Object, Token};
use crate::origin::snapshot::{Listed, NoListing};
use crate::origin::work::Landing;
use crate::origin::{OriginPath, Said};
use copper_core::catalog::writer::Full;
use rustix::io::Errno;

impl Engine {
    /// Takes in all that has come from the origin, and takes up the tasks that waited for it.
    pub(crate) fn take_landings(&mut self) {
        for landing in self.origin.landings() {
            if let Err(Full) = self.take(landing) {
                self.note_full();
            }
        }
    }

    fn take(&mut self, landing: Landing) -> Result<(), Full> {
        let (object, done) = match landing {
            Landing::Entry(path, said) => {
                let object = Object::Entry(path.clone());
                let fresh = self.flights.is_fresh(&object);
                let done = if fresh {
                    self.publish(&path, &said).map(|_| ())
                } else {
                    Ok(())
                };
                (object, done)
            }
            Landing::Listed(path, Ok(listed)) => {
                if self.flights.is_fresh(&Object::Directory(path.clone())) {
                    let wanted = self.unknown_names(&path, &listed);
                    if wanted.is_empty() {
                        let done = self.publish_directory(&path, &listed, Vec::new());
                        (Object::Directory(path), done)
                    } else {
                        self.origin.ask_names(path, listed, wanted);
                        return Ok(());
                    }
                } else {
                    (Object::Directory(path), Ok(()))
                }
            }
            Landing::Listed(path, Err(why)) => {
                self.not_listed(&path, why);
                (Object::Directory(path), Ok(()))
            }
            Landing::Directory(path, batches, said) => {
                let done = self.directory_landed(&path, batches.listed(), said);
                (Object::Directory(path), done)
            }
            Landing::Content(path, room, copied) => {
                let object = Object::Content(path.clone());
                let fresh = self.flights.is_fresh(&object);
                (object, self.content_landed(&path, room, copied, fresh))
            }
            Landing::Quiet(path, quiet) => {
                if quiet {
                    self.written.remove(&path);
                    self.forget(&path);
                }
                (Object::Quiet(path), Ok(()))
            }
            Landing::Canonical(token, paths) => {
                self.canonical_landed(token, &paths);
                (Object::Canonical(token), Ok(()))
            }
        };
        if done.is_err() {
            self.note_full();
        }
        self.wake(&object);
        Ok(())
    }

    fn wake(&mut self, object: &Object) {
        let waiting: Vec<Token> = self.flights.land(object);
        for token in waiting {
            self.advance(token);
        }
    }

    fn directory_landed(
        &mut self,
        path: &OriginPath,
        listed: &Listed,
        said: Vec<(usize, Said)>,
    ) -> Result<(), Full> {
        if !self.flights.is_fresh(&Object::Directory(path.clone())) {
            return Ok(());
        }
        self.publish_directory(path, listed, said)
    }

    fn not_listed(&mut self, path: &OriginPath, why: NoListing) {
        match why {
            NoListing::Failed(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.forget(path),
            NoListing::TooLarge | NoListing::Failed(_) => {
                tracing::info!(path = %path.escape_ascii(), ?why, "served name by name");
                self.by_name.insert(path.clone());
            }
        }
    }
}
