//! Calls that change something: where they go, who is told of them, and what the view says.
//!
//! Under a covered prefix a change is made on the origin, and the helper is told of it afterwards.
//! In the view nothing can be changed; each call fails there as the kernel lets it fail on a
//! mount that is read-only, with the same error taking precedence. The families themselves are in
//! [`crate::entries`], [`crate::modify`] and [`crate::temporary`].

use crate::ask::{ask, tell};
use crate::counters::count;
use crate::descriptor::{record_of, scope_of};
use crate::session::{self, Session};
use crate::sys::{self, Descriptor, call, fail};
use crate::target::{Outcome, Place, Scope, descriptor_path, resolve_place, text, with_place};
use copper_core::catalog::resolve::Ending;
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::path::{self, PATH_MAX};
use copper_core::request::Operation;
use core::ffi::{c_char, c_int};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CLOEXEC, O_DIRECTORY, O_PATH};

/// What a path's last component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastName {
    Plain,
    Dot,
    DotDot,
}

/// How a path ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) name: LastName,
    /// A slash stands behind the last component.
    pub(crate) slash: bool,
}

impl Last {
    /// How `path` ends; an empty path ends plainly.
    pub(crate) fn of(path: *const c_char) -> Last {
        let bytes = text(path).unwrap_or(b"");
        let slash = bytes.last() == Some(&b'/');
        let name = match last_name(bytes) {
            b"." => LastName::Dot,
            b".." => LastName::DotDot,
            _ => LastName::Plain,
        };
        Last { name, slash }
    }

    fn wants_directory(self) -> bool {
        self.slash || self.name != LastName::Plain
    }
}

fn without_slashes(path: &[u8]) -> &[u8] {
    let length = path.iter().rposition(|&byte| byte != b'/');
    &path[..length.map_or(0, |at| at + 1)]
}

fn last_name(path: &[u8]) -> &[u8] {
    path::split_last(without_slashes(path)).1
}

/// What a call takes its path for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An entry of a directory, which is made, removed or renamed.
    Entry,
    /// A file, or a link itself.
    File,
    /// A file, behind all links.
    Followed,
}

impl Meaning {
    /// A file, behind links or not.
    pub(crate) fn file(follow: bool) -> Meaning {
        if follow {
            Meaning::Followed
        } else {
            Meaning::File
        }
    }
}

/// What there is at a path in the view.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing {
    /// The view's own directory, whose parent lies outside.
    Root,
    /// Something with this mode.
    Exists(u32),
    /// Nothing, with this error; its directory exists.
    Missing(c_int),
    /// The way there ends with this error.
    Fails(c_int),
}

/// Where a call that changes something goes.
pub(crate) enum Target<'p> {
    /// To the kernel, with this directory and path; told afterwards, if it is covered.
    Writable {
        directory: c_int,
        path: *const c_char,
        told: Option<&'p [u8]>,
    },
    /// Nowhere: it lies in the view.
    View(Standing),
}

impl Target<'_> {
    /// Counts the call: in the view it is refused here.
    pub(crate) fn count(&self) {
        let family = Family::Change;
        match *self {
            Target::View(_) => count(family, Counted::Hit, || b""),
            Target::Writable {
                told: Some(told), ..
            } => count(family, Counted::Written, || told),
            Target::Writable {
                told: None, path, ..
            } => {
                count(family, Counted::Uncovered, || {
                    text(path).unwrap_or_default()
                });
            }
        }
    }
}

/// What is done with a [`Target`].
pub(crate) type Then<'t> = &'t mut dyn FnMut(Target<'_>) -> c_int;

/// The kernel's part of a call: the call itself, with the directory and path to make it with.
pub(crate) type Native<'n> = &'n dyn Fn(c_int, *const c_char) -> c_int;

/// The error that the view has for a call; 0 where the call does nothing anyhow.
pub(crate) type Refusal<'r> = &'r dyn Fn(Standing, Last) -> c_int;

/// Finds out where a call goes.
pub(crate) fn settle(
    directory: c_int,
    path: *const c_char,
    meaning: Meaning,
    then: Then<'_>,
) -> c_int {
    with_place(directory, path, |place| {
        let (Some(place), Some(session)) = (place, session::known()) else {
            return then(Target::Writable {
                directory,
                path,
                told: None,
            });
        };
        if place.scope == Scope::View {
            return settle_in_view(session, place, Last::of(path), meaning, then);
        }
        let last = Last::of(path).name;
        let (directory, path) = place.route().of(directory, path);
        let mut then = |told: &[u8]| {
            then(Target::Writable {
                directory,
                path,
                told: Some(told),
            })
        };
        if meaning == Meaning::Entry && last == LastName::Plain && place.has_parents() {
            with_lasting_name(session, place.path, then)
        } else {
            then(place.path)
        }
    })
}

/// Hands the name of an entry to `then` that holds when the entry, or one on the way to it, is
/// gone: `c/../a` says nothing any more where `c` was renamed.
#[cold]
#[inline(never)]
pub(crate) fn with_lasting_name<R>(
    session: &Session,
    path: &[u8],
    then: impl FnOnce(&[u8]) -> R,
) -> R {
    let mut room = [0u8; PATH_MAX + 1];
    let named = lasting_name(path, &mut room).map(|length| &room[..length]);
    then(named.filter(|named| session.covers(named)).unwrap_or(path))
}

fn lasting_name(path: &[u8], room: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    let (parent, name) = path::split_last(path);
    let mut text = [0u8; PATH_MAX + 1];
    text.get_mut(..parent.len())?.copy_from_slice(parent);
    let at = look_at(text.as_ptr().cast(), O_DIRECTORY).ok()?;
    let length = descriptor_path(at.number(), room)?;
    let start = if length == 1 { 0 } else { length };
    let end = start + 1 + name.len();
    let entry = room.get_mut(start..end)?;
    entry[0] = b'/';
    entry[1..].copy_from_slice(name);
    Some(end)
}

fn settle_in_view(
    session: &'static Session,
    place: Place<'_>,
    last: Last,
    meaning: Meaning,
    then: Then<'_>,
) -> c_int {
    if place.path == b"/" {
        return then(Target::View(Standing::Root));
    }
    let directory = match meaning {
        Meaning::Entry => last.name != LastName::Plain,
        Meaning::File | Meaning::Followed => last.wants_directory(),
    };
    let ending = Ending {
        follow: directory || meaning == Meaning::Followed,
        directory,
    };
    resolve_place(session, place, ending, |outcome| match outcome {
        Outcome::Found(found) => {
            let mode = found.record.attributes().mode;
            then(Target::View(Standing::Exists(mode)))
        }
        Outcome::Absent {
            errno, creatable, ..
        } => then(Target::View(if creatable && !directory {
            Standing::Missing(errno)
        } else {
            Standing::Fails(errno)
        })),
        Outcome::Kernel(route) if route.leads_outside() => {
            let (directory, path) = route.of(AT_FDCWD, core::ptr::null());
            then(Target::Writable {
                directory,
                path,
                told: None,
            })
        }
        Outcome::Kernel(_) => ask_kernel(session, place, ending, then),
    })
}

/// Opens a path for nothing but to see where it leads.
fn look_at(path: *const c_char, flags: c_int) -> Result<Descriptor, c_int> {
    let flags = flags | O_PATH | O_CLOEXEC;
    // SAFETY: callers give NUL-terminated paths.
    let result = unsafe { call!(libc::SYS_openat, AT_FDCWD, path, flags, 0) };
    Descriptor::from_result(result).ok_or(-result as c_int)
}

/// `newfstatat(2)`, for the mode only.
pub(crate) fn mode_of(directory: c_int, path: *const c_char, flags: c_int) -> Result<u32, c_int> {
    sys::stat_at(directory, path, flags).map(|status| status.st_mode)
}

/// What the origin says of a place in the view that the catalog says nothing of.
#[cold]
#[inline(never)]
fn ask_kernel(session: &Session, place: Place<'_>, ending: Ending, then: Then<'_>) -> c_int {
    let (mut room, mut name) = ([0u8; PATH_MAX + 1], [0u8; PATH_MAX + 1]);
    let (parent, last) = path::split_last(place.path);
    // Without the slash that may stand behind it: the entry itself is meant.
    name[..last.len()].copy_from_slice(last);
    let looked = if ending.follow {
        let flags = if ending.directory { O_DIRECTORY } else { 0 };
        look_at(place.path.as_ptr().cast(), flags)
    } else {
        let Some(target) = room.get_mut(..parent.len()) else {
            return fail(libc::ENAMETOOLONG);
        };
        target.copy_from_slice(parent);
        look_at(room.as_ptr().cast(), O_DIRECTORY)
    };
    let at = match looked {
        Ok(at) => at,
        Err(errno) => return then(Target::View(Standing::Fails(errno))),
    };
    let length = descriptor_path(at.number(), &mut room).unwrap_or(0);
    let canonical = &room[..length];
    if path::is_node_local(canonical) && !session.covers(canonical) {
        return then(Target::Writable {
            directory: AT_FDCWD,
            path: place.path.as_ptr().cast(),
            told: None,
        });
    }
    let mode = if ending.follow {
        mode_of(at.number(), c"".as_ptr(), libc::AT_EMPTY_PATH)
    } else {
        mode_of(at.number(), name.as_ptr().cast(), AT_SYMLINK_NOFOLLOW)
    };
    then(Target::View(match mode {
        Ok(mode) => Standing::Exists(mode),
        Err(errno) => Standing::Missing(errno),
    }))
}

/// Makes a call that changes one path, or refuses it.
pub(crate) fn change(
    directory: c_int,
    path: *const c_char,
    meaning: Meaning,
    refusal: Refusal<'_>,
    native: Native<'_>,
) -> c_int {
    settle(directory, path, meaning, &mut |target| {
        target.count();
        match target {
            Target::View(standing) => refuse(refusal(standing, Last::of(path))),
            Target::Writable {
                directory,
                path,
                told,
            } => {
                if meaning == Meaning::Entry {
                    learn_links(told, directory, path);
                }
                let result = native(directory, path);
                if result != -1 {
                    tell_of(told, None);
                }
                result
            }
        }
    })
}

/// Lets the helper learn of a file that has other names as well before it loses this one: they
/// have one link less then, and nobody can tell any more which file it was.
pub(crate) fn learn_links(told: Option<&[u8]>, directory: c_int, path: *const c_char) {
    let (Some(told), Some(session)) = (told, session::known()) else {
        return;
    };
    let has_others = sys::stat_at(directory, path, AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|status| status.st_nlink > 1 && status.st_mode & libc::S_IFMT == libc::S_IFREG);
    if has_others && session.is_believable() && session.catalog.live(told).is_none() {
        ask(session, Operation::Resolve, told, b"");
    }
}

/// Fails with `errno`, or succeeds where there is none.
pub(crate) fn refuse(errno: c_int) -> c_int {
    if errno == 0 { 0 } else { fail(errno) }
}

/// Tells of one or two changed paths, those of them that are covered.
pub(crate) fn tell_of(first: Option<&[u8]>, second: Option<&[u8]>) {
    let Some(session) = session::known() else {
        return;
    };
    let (first, second) = match (first, second) {
        (None, None) => return,
        (Some(path), None) | (None, Some(path)) => (path, &b""[..]),
        (Some(first), Some(second)) => (first, second),
    };
    tell(session, Operation::Changed, first, second);
}

/// What the kernel says of the directory that holds `path`, which lies outside of the view.
pub(crate) fn parent_error(directory: c_int, path: *const c_char) -> Option<c_int> {
    let bytes = without_slashes(text(path).unwrap_or(b""));
    let start = bytes.len() - path::split_last(bytes).1.len();
    let mut room = [0u8; PATH_MAX + 2];
    room.get_mut(..start)?.copy_from_slice(&bytes[..start]);
    *room.get_mut(start)? = b'.';
    mode_of(directory, room.as_ptr().cast(), 0).err()
}

/// The refusal of calls that act on what is there: attributes, times, extended attributes.
pub(crate) fn unchangeable(standing: Standing) -> c_int {
    match standing {
        Standing::Fails(errno) | Standing::Missing(errno) => errno,
        Standing::Root | Standing::Exists(_) => libc::EROFS,
    }
}

/// Makes a call on a descriptor; where that is a store file's, on the origin's path instead.
pub(crate) fn change_descriptor(
    descriptor: c_int,
    by_path: &dyn Fn(*const c_char) -> c_int,
    native: &dyn Fn() -> c_int,
) -> c_int {
    let Some(session) = session::known() else {
        return native();
    };
    let Some(record) = record_of(session, descriptor) else {
        let result = native();
        if result == 0 {
            tell_of_descriptor(session, descriptor);
        }
        return result;
    };
    // SAFETY: asks for the flags of the caller's descriptor.
    let flags = unsafe { call!(libc::SYS_fcntl, descriptor, libc::F_GETFL) };
    if flags < 0 || flags & O_PATH as isize != 0 {
        return fail(libc::EBADF);
    }
    if scope_of(session, descriptor, record.path()) == Scope::View {
        return fail(libc::EROFS);
    }
    let result = by_path(record.path_terminated().as_ptr());
    if result == 0 {
        tell_of(Some(record.path()), None);
    }
    result
}

/// Tells of a change through a descriptor of the origin's.
#[cold]
#[inline(never)]
fn tell_of_descriptor(session: &Session, descriptor: c_int) {
    if session.prefixes().next().is_none() {
        return;
    }
    let mut room = [0u8; PATH_MAX + 1];
    let length = descriptor_path(descriptor, &mut room).unwrap_or(0);
    let path = &room[..length];
    if session.covers(path) {
        tell_of(Some(path), None);
    }
}
