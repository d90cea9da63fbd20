//! Paths and listings: which object a walk lacks.
#![forbid(unsafe_code)]

use super::{Engine, Step, Wanted};
use crate::journal::Reason;
use crate::origin::OriginPath;
use copper_core::attributes::Attributes;
use copper_core::catalog::resolve::{Ending, Resolution};
use copper_core::catalog::writer::Full;
use copper_core::path::split_last;
use copper_core::request::Outcome;
use copper_core::tree::Kind;

/// Where a walk in the catalog ended.
pub(super) enum Walked {
    /// At a path that exists.
    Found(Found),
    /// The path does not exist; this is where it would be.
    Absent(OriginPath),
    /// At a path of which nothing is known, which may be the end of the walk.
    Unknown(OriginPath, bool),
    /// At a path that is not covered.
    Outside,
    /// At a path of which only the origin can tell.
    PassThrough(OriginPath),
}

/// A path that exists.
pub(super) struct Found {
    /// The path, free of links.
    pub(super) path: OriginPath,
    /// Where its record lies.
    pub(super) offset: u64,
    /// Its attributes.
    pub(super) attributes: Attributes,
}

/// Waits for an object of the tree; one that it cannot name is left to the origin.
pub(super) fn wait_for(kind: Kind, path: &[u8]) -> Step {
    Wanted::object(kind, path).map_or(Step::Done(Outcome::PassThrough), Step::Wait)
}

impl Engine {
    /// Walks `path` in the catalog.
    pub(super) fn walk(&mut self, path: &[u8], follow: bool) -> Walked {
        let ending = Ending {
            follow,
            directory: false,
        };
        let reader = self.writer.reader();
        match self.walk.run(reader, &self.covered, path, ending) {
            Resolution::Found(found) => Walked::Found(Found {
                path: found.path().into(),
                offset: found.offset(),
                attributes: *found.attributes(),
            }),
            Resolution::Absent { .. } => Walked::Absent(self.walk.canonical().into()),
            Resolution::Unknown => {
                Walked::Unknown(self.walk.canonical().into(), self.walk.at_end())
            }
            Resolution::Outside => Walked::Outside,
            Resolution::PassThrough => Walked::PassThrough(self.walk.canonical().into()),
        }
    }

    pub(super) fn resolve(&mut self, path: &[u8]) -> Result<Step, Full> {
        Ok(match self.walk(path, true) {
            Walked::Found(_) | Walked::Absent(_) | Walked::Outside => Step::Done(Outcome::Known),
            Walked::Unknown(at, at_end) => self.learn(at, at_end),
            Walked::PassThrough(at) => match self.look_for_writer(&at) {
                Some(step) => step,
                None if matches!(self.walk(path, false), Walked::Found(_)) => {
                    Step::Done(Outcome::Known)
                }
                None => {
                    let why = self.why_not_known(&at);
                    self.pass(&at, why)
                }
            },
        })
    }

    /// Waits until a file has no writer any more, or leaves it to the origin.
    pub(super) fn wait_for_writer(&mut self, at: &OriginPath) -> Step {
        match self.look_for_writer(at) {
            Some(step) => step,
            None => {
                let why = self.why_not_known(at);
                self.pass(at, why)
            }
        }
    }

    /// Why only the origin can tell of a path.
    fn why_not_known(&self, at: &[u8]) -> Reason {
        match self.written.has(at) {
            true => Reason::Written,
            false => Reason::Refused,
        }
    }

    /// The object that makes `path` known: its whole directory, if that is worth it.
    pub(super) fn learn(&mut self, path: OriginPath, at_end: bool) -> Step {
        if self.full {
            return self.pass(&path, Reason::CatalogFull);
        }
        let (parent, name) = split_last(&path);
        let whole = at_end
            && !name.is_empty()
            && !self.by_name.contains(parent)
            && self.covered.is_worth_a_snapshot(parent)
            && !self.is_complete(parent);
        if whole {
            wait_for(Kind::Directory, parent)
        } else {
            wait_for(Kind::Entry, &path)
        }
    }

    fn is_complete(&self, directory: &[u8]) -> bool {
        let reader = self.writer.reader();
        reader
            .live(directory)
            .is_some_and(|found| reader.is_complete(&found))
    }

    pub(super) fn list(&mut self, path: &[u8]) -> Result<Step, Full> {
        Ok(match self.walk(path, true) {
            Walked::Absent(_) => Step::Done(Outcome::Known),
            Walked::Outside => self.pass(path, Reason::Outside),
            Walked::PassThrough(at) => {
                let why = self.why_not_known(&at);
                self.pass(&at, why)
            }
            Walked::Unknown(at, _) if self.full => {
                tracing::debug!(path = %at.escape_ascii(), "the catalog is full");
                self.pass(&at, Reason::CatalogFull)
            }
            Walked::Unknown(at, _) => wait_for(Kind::Entry, &at),
            Walked::Found(found) if !found.attributes.is_directory() => Step::Done(Outcome::Known),
            Walked::Found(found) if self.is_complete(&found.path) => Step::Done(Outcome::Known),
            Walked::Found(found) if self.full => self.pass(&found.path, Reason::CatalogFull),
            Walked::Found(found) if self.by_name.contains(&found.path) => {
                self.pass(&found.path, Reason::ByName)
            }
            Walked::Found(found) => wait_for(Kind::Directory, &found.path),
        })
    }
}
