//! What is done when something has come from the origin.
#![forbid(unsafe_code)]

use super::tree::Body;
use super::{Engine, Wanted};
use crate::origin::copy::{Looked, Why, version_of};
use crate::origin::snapshot::{Batches, NoListing};
use crate::origin::work::{Extent, Landing};
use crate::origin::{OriginPath, Said};
use copper_core::attributes::Attributes;
use copper_core::tree::{Object, OriginReply, Outcome, Record, RequestId};
use rustix::io::Errno;

/// How often an extent for which the store had no room is tried.
const TRIES: u32 = 3;

impl Engine {
    /// Takes in all that has come from the origin, and takes up the tasks that waited for it.
    pub(crate) fn take_landings(&mut self) {
        for landing in self.origin.landings() {
            self.take(landing);
        }
    }

    fn take(&mut self, landing: Landing) {
        match landing {
            Landing::Entry(id, object, said) => {
                let encoded = self.encode_said(&said);
                let reply = entry_reply(&said, encoded.as_deref());
                self.hand_in_reply(id, reply, Some((object, Body::Entry(said, encoded))));
            }
            Landing::Listed(id, object, Ok(mut listed)) => {
                let wanted = self.unknown_names(object.path(), &listed);
                match listed.take_said(&wanted) {
                    Some(said) => {
                        let (batches, _) = Batches::divide(listed, wanted, 1);
                        self.take(Landing::Directory(id, object, batches, said));
                    }
                    None => self.origin.ask_names(id, &object, listed, wanted),
                }
            }
            Landing::Listed(id, object, Err(why)) => {
                let reply = listing_reply(why);
                self.hand_in_reply(id, reply, Some((object, Body::Unlisted)));
            }
            Landing::Directory(id, object, batches, said) => {
                let listed = batches.listed();
                let encoded = self.encode_listing(object.path(), listed, &said);
                let length = encoded.as_ref().map_or(listed.names.len(), Vec::len);
                let reply = present(&listed.attributes, length as u64);
                let body = Body::Directory(batches, said, encoded);
                self.hand_in_reply(id, reply, Some((object, body)));
            }
            Landing::Looked(id, object, looked) => self.looked(id, object, looked),
            Landing::Extent(id, extent, read) => self.extent_landed(id, extent, read),
            Landing::Written(token, written) => self.control_done(token, written),
            Landing::Quiet(path, opening, quiet) => self.quiet_landed(path, opening, quiet),
            Landing::Canonical(token, found) => {
                self.canonical_landed(token, found);
                self.wake(&Wanted::Canonical(token));
            }
        }
    }

    pub(super) fn wake(&mut self, wanted: &Wanted) {
        for token in self.waiting.remove(wanted).unwrap_or_default() {
            self.advance(token);
        }
        self.pump();
    }

    fn looked(&mut self, id: RequestId, object: Object, looked: Looked) {
        let (reply, body) = match looked {
            Looked::Whole(copy) => {
                let length = copy.attributes.size;
                (present(&copy.attributes, length), Some(Body::File(copy)))
            }
            Looked::Long(opened) if self.make_more_room(&object, opened.attributes.size) => {
                let length = opened.attributes.size;
                (
                    present(&opened.attributes, length),
                    Some(Body::Long(opened)),
                )
            }
            // The file system is fuller than the budget: each try costs what was asked for longest
            // ago, so there is an end to it.
            Looked::Failed(Why::NoRoom) if self.evict_for(1) => {
                self.ask_file(id, object);
                return;
            }
            Looked::Long(_) | Looked::Failed(Why::NoRoom) => (OriginReply::NoSpace, None),
            Looked::Gone => (absent(Errno::NOENT), Some(Body::NoFile)),
            Looked::Failed(Why::Origin(error)) => (error_reply(error), Some(Body::NoFile)),
            Looked::Failed(Why::Changed) => (failed(Errno::STALE), None),
        };
        self.hand_in_reply(id, reply, body.map(|body| (object, body)));
    }

    fn extent_landed(&mut self, id: RequestId, extent: Extent, read: Result<(), Why>) {
        let reply = match read {
            Ok(()) => OriginReply::Stored,
            Err(Why::Changed) => OriginReply::Changed,
            Err(Why::Origin(error)) => failed(error),
            Err(Why::NoRoom) => {
                let size = extent.aside.length();
                if extent.tries < TRIES && self.evict_for(size) {
                    let tries = extent.tries + 1;
                    self.origin.ask_extent(id, Extent { tries, ..extent });
                    return;
                }
                OriginReply::NoSpace
            }
        };
        self.hand_in_reply(id, reply, None);
    }

    /// A directory that cannot be fetched whole.
    pub(super) fn not_listed(&mut self, path: &OriginPath, record: &Record) {
        match record.outcome {
            Outcome::Absent { errno } if is_gone(errno) => self.forget(path),
            outcome => {
                tracing::info!(path = %path.escape_ascii(), ?outcome, "served name by name");
                self.by_name.insert(path.clone());
            }
        }
    }

    /// A file that is no regular file any more, or must not be read.
    pub(super) fn no_file(&mut self, path: &OriginPath, record: &Record) {
        match record.outcome {
            Outcome::Absent { errno } if is_gone(errno) => self.forget(path),
            Outcome::Absent { errno } => {
                self.pass_content(path, Why::Origin(Errno::from_raw_os_error(errno)));
            }
            Outcome::Present { .. } | Outcome::TooLarge => {}
        }
    }
}

fn is_gone(errno: i32) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|gone| gone.raw_os_error() == errno)
}

fn present(attributes: &Attributes, length: u64) -> OriginReply {
    OriginReply::Known(Outcome::Present {
        version: version_of(attributes),
        length,
    })
}

fn absent(error: Errno) -> OriginReply {
    let errno = error.raw_os_error();
    OriginReply::Known(Outcome::Absent { errno })
}

fn failed(error: Errno) -> OriginReply {
    let errno = error.raw_os_error();
    OriginReply::Failed { errno }
}

/// An error that will be the same for whoever asks again is kept; a passing one is not.
fn error_reply(error: Errno) -> OriginReply {
    match error {
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::LOOP
        | Errno::ACCESS
        | Errno::PERM
        | Errno::NAMETOOLONG => absent(error),
        passing => failed(passing),
    }
}

fn entry_reply(said: &Said, encoded: Option<&[u8]>) -> OriginReply {
    match said {
        Said::Present(attributes, target) => {
            let length = encoded.map_or(target.len(), <[u8]>::len);
            present(attributes, length as u64)
        }
        Said::Absent(errno) => OriginReply::Known(Outcome::Absent {
            errno: i32::from(*errno),
        }),
        Said::Refused(error) => error_reply(*error),
    }
}

fn listing_reply(why: NoListing) -> OriginReply {
    match why {
        NoListing::TooLarge => OriginReply::Known(Outcome::TooLarge),
        NoListing::Failed(error) => error_reply(error),
    }
}
