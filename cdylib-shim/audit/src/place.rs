//! From a path that the loader is about to open to what the catalog says of it.

use crate::ask::ask;
use crate::process;
use crate::scope::{Reach, Scope};
use crate::session::{self, Session};
use crate::stored::{Room, is_library};
use crate::sys;
use copper_core::catalog::reader::{Content, Record};
use copper_core::catalog::resolve::{self, Ending, Resolution, Walk};
use copper_core::path::{self, PATH_MAX};
use copper_core::request::{Operation, Outcome};
use copper_core::store::{self, FILE_PATH_MAX};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering};

/// What a candidate of the loader's search is.
pub(crate) enum Answer {
    /// It is there; this is the store's file of it.
    Stored(&'static CStr),
    /// It is not there.
    Absent,
    /// The loader has to look for itself.
    AsGiven,
}

/// What is known of a covered path.
pub(crate) enum Known {
    /// It exists.
    Found(Record<'static>),
    /// It does not.
    Absent,
    /// Only the origin can tell.
    Doubt,
}

/// What the kernel was asked of this process, for the search that the loader is at: a search looks at
/// many directories, and a system call for each would cost more than the search.
struct Once(AtomicU8);

impl Once {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;

    fn get(&self, ask: impl FnOnce() -> bool) -> bool {
        // Only used from calls of the loader, which makes them under its lock.
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => {
                let answer = ask();
                let known = if answer { Self::YES } else { Self::NO };
                self.0.store(known, Ordering::Relaxed);
                answer
            }
            known => known == Self::YES,
        }
    }

    fn forget(&self) {
        self.0.store(Self::UNKNOWN, Ordering::Relaxed);
    }
}

static SAME_USER: Once = Once(AtomicU8::new(Once::UNKNOWN));
static IN_REACH: Once = Once(AtomicU8::new(Once::UNKNOWN));

/// The loader begins a search: what was known of this process may have changed since the last.
pub(crate) fn begin_search() {
    SAME_USER.forget();
    IN_REACH.forget();
}

/// The session, where the catalog may be believed and this process is still the same user.
pub(crate) fn session() -> Option<&'static Session> {
    let session = session::known()?;
    let is_same_user = || SAME_USER.get(|| process::is_user(session.uid));
    (session.is_believable() && is_same_user()).then_some(session)
}

/// An absolute path that Copper answers for.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) session: &'static Session,
    scope: Scope,
    /// The origin's path, tidy; it may hold `..`.
    pub(crate) origin: &'p [u8],
}

const FOLLOW: Ending = Ending {
    follow: true,
    directory: false,
};

impl<'p> Place<'p> {
    /// The place of an absolute path, whose tidy form goes into `room`; `None` where it is not
    /// covered.
    pub(crate) fn of(
        session: &'static Session,
        name: &[u8],
        room: &'p mut [u8; PATH_MAX + 1],
    ) -> Option<Place<'p>> {
        if name.first() != Some(&b'/') || !session.may_concern(path::first_word(name)) {
            return None;
        }
        let length = path::tidy(name, &mut room[..PATH_MAX])?.length;
        let text = &room[..length];
        let (scope, origin) = if let Some(origin) = path::below(text, session.view) {
            (Scope::View, origin)
        } else if session.covers(text) {
            (Scope::Prefix, text)
        } else {
            let origin = path::below(text, session.mirror)?;
            if session.covers(origin) {
                (Scope::Prefix, origin)
            } else {
                (Scope::View, origin)
            }
        };
        let hidden = path::is_node_local(origin) && !session.covers(origin);
        (!hidden).then_some(Place {
            session,
            scope,
            origin,
        })
    }

    /// The place of `name` in this directory.
    pub(crate) fn child<'c>(
        &self,
        name: &[u8],
        room: &'c mut [u8; PATH_MAX + 1],
    ) -> Option<Place<'c>> {
        let length = join(self.origin, name, room)?;
        Some(Place {
            session: self.session,
            scope: self.scope,
            origin: &room[..length],
        })
    }

    /// What the catalog says, after one question to the helper where it says nothing yet.
    #[inline(never)]
    pub(crate) fn resolve(&self) -> Known {
        let catalog = &self.session.catalog;
        let reach = Reach {
            session: self.session,
            scope: self.scope,
        };
        let at_once = resolve::look_up(catalog, &reach, self.origin, FOLLOW);
        let resolution = at_once.unwrap_or_else(|| {
            let mut walk = Walk::new();
            let first = walk.run(catalog, &reach, self.origin, FOLLOW);
            if !matches!(first, Resolution::Unknown)
                || ask(self.session, Operation::Resolve, self.origin, b"") != Outcome::Known
            {
                return first;
            }
            walk.run(catalog, &reach, self.origin, FOLLOW)
        });
        match resolution {
            Resolution::Found(found) => Known::Found(found),
            Resolution::Absent { .. } if store_is_in_reach(self.session) => Known::Absent,
            _ => Known::Doubt,
        }
    }

    /// The inode of the store's file of a library, after asking the helper for it if need be.
    pub(crate) fn stored_inode(&self, found: &Record<'_>, operation: Operation) -> Option<u64> {
        let catalog = &self.session.catalog;
        match catalog.content(found) {
            Content::Stored(inode) => return Some(inode),
            Content::Pass => return None,
            Content::Unknown => {}
        }
        if ask(self.session, operation, self.origin, b"") != Outcome::Known {
            return None;
        }
        match catalog.content(&catalog.live(found.path())?) {
            Content::Stored(inode) => Some(inode),
            _ => None,
        }
    }
}

/// Writes the path of `name` in `directory` into `room`, with a closing NUL, and returns its length.
pub(crate) fn join(directory: &[u8], name: &[u8], room: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    let directory = if directory == b"/" { b"" } else { directory };
    let start = directory.len() + 1;
    let length = start + name.len();
    let target = room.get_mut(..=length)?;
    target[..directory.len()].copy_from_slice(directory);
    target[directory.len()] = b'/';
    target[start..length].copy_from_slice(name);
    target[length] = 0;
    Some(length)
}

/// Whether this process still sees the store: in a chroot, paths mean other things.
fn store_is_in_reach(session: &Session) -> bool {
    IN_REACH.get(|| {
        let mut root = [0u8; store::ROOT_MAX + 16];
        store::mirror_path(session.mirror, b"", &mut root).is_some()
            && sys::stat_at(libc::AT_FDCWD, root.as_ptr().cast(), 0)
                .is_ok_and(|found| found.st_dev == session.store_device)
    })
}

/// A candidate's answer. It is opened under the store's name, while the loader keeps the
/// candidate's own.
pub(crate) fn candidate(name: &[u8]) -> Answer {
    let mut room = [0u8; PATH_MAX + 1];
    let place = session().and_then(|session| Place::of(session, name, &mut room));
    let Some(place) = place else {
        return Answer::AsGiven;
    };
    match place.resolve() {
        Known::Absent => Answer::Absent,
        Known::Doubt => Answer::AsGiven,
        Known::Found(found) => stored_file(place, &found).map_or(Answer::AsGiven, Answer::Stored),
    }
}

fn stored_file(place: Place<'_>, found: &Record<'_>) -> Option<&'static CStr> {
    static GIVEN: Room<FILE_PATH_MAX> = Room::new();
    if !found.attributes().is_regular() {
        return None;
    }
    let inode = place.stored_inode(found, Operation::Content)?;
    let mut file = [0u8; FILE_PATH_MAX];
    let length = place.session.files.file_path(inode, &mut file);
    let path = GIVEN.keep(&file[..=length])?;
    is_library(place.session, path, inode).then_some(path)
}
