//! From the arguments of a file call to what the catalog says of them.
//!
//! [`with_target`] is the way in for all calls that only look: it finds out whether the path
//! concerns us, resolves it, asks the helper once where something is unknown, and hands the
//! outcome to a closure. Large buffers live in functions that the common case does not enter, so
//! that a hit needs little stack (signal handlers run on small ones).

use crate::ask::{ask, has_given_up};
use crate::counters::{count, depends_on_more};
use crate::descriptor::scope_of;
pub(crate) use crate::scope::Scope;
use crate::scope::{Reach, grants};
use crate::session::{self, Session};
use crate::sys::{self, call};
use copper_core::catalog::reader::Record;
use copper_core::catalog::resolve::{self, Ending, Resolution, Walk};
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::path::{self, PATH_MAX};
use copper_core::request::{Operation, Outcome as Reply};
use core::ffi::{CStr, c_char, c_int, c_void};

/// A link at the end of the path is followed.
pub(crate) const FOLLOW: Ending = Ending {
    follow: true,
    directory: false,
};
/// A link at the end of the path is meant itself.
pub(crate) const NO_FOLLOW: Ending = Ending {
    follow: false,
    directory: false,
};

/// Where a call goes when the kernel has to answer it.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    /// An absolute path to use in place of the caller's; null for the caller's own.
    instead: *const c_char,
    /// The path is covered, in this way, but only the origin can answer for it.
    covered: Option<Scope>,
    /// Why the kernel has to answer.
    pub(crate) why: Counted,
}

impl Route {
    const AS_GIVEN: Route = Route {
        instead: core::ptr::null(),
        covered: None,
        why: Counted::Uncovered,
    };

    fn outside(path: *const c_char) -> Route {
        Route {
            instead: path,
            covered: None,
            why: Counted::Uncovered,
        }
    }

    fn covered(scope: Scope, instead: *const c_char) -> Route {
        Route {
            instead,
            covered: Some(scope),
            why: Counted::Special,
        }
    }

    fn because(self, why: Counted) -> Route {
        Route { why, ..self }
    }

    /// Whether the path lies in the view, which is read-only whoever answers.
    pub(crate) fn is_in_view(self) -> bool {
        self.covered == Some(Scope::View)
    }

    /// Whether a covered name led to a path that is not covered, and is the route's own.
    pub(crate) fn leads_outside(self) -> bool {
        self.covered.is_none() && !self.instead.is_null()
    }

    /// The path outside that a covered name led to.
    pub(crate) fn named<'p>(self) -> Option<&'p [u8]> {
        let path = self.leads_outside().then_some(self.instead)?;
        // SAFETY: a route of its own is NUL-terminated and outlives what is done with the route.
        Some(unsafe { CStr::from_ptr(path) }.to_bytes())
    }

    /// The directory descriptor and the path to call the kernel with.
    pub(crate) fn of(self, directory: c_int, path: *const c_char) -> (c_int, *const c_char) {
        if self.instead.is_null() {
            (directory, path)
        } else {
            (libc::AT_FDCWD, self.instead)
        }
    }

    /// The path to call the kernel with, for calls that take no directory descriptor.
    pub(crate) fn path(self, path: *const c_char) -> *const c_char {
        self.of(libc::AT_FDCWD, path).1
    }
}

/// A covered path that exists.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) session: &'static Session,
    pub(crate) record: Record<'a>,
    pub(crate) scope: Scope,
    /// Where to go for what the catalog does not hold.
    pub(crate) route: Route,
    /// The helper was asked for it.
    pub(crate) asked: bool,
    /// What the call is counted as, once it is known how it is answered; nothing where that is done.
    pub(crate) counted: Option<Family>,
}

impl Found<'_> {
    /// The way to what was found by its canonical name, for calls that do not mean a link.
    pub(crate) fn canonical_route(&self) -> Route {
        Route::covered(self.scope, self.record.path_terminated().as_ptr())
    }

    /// Whether the user may search this directory, as far as its mode tells.
    fn may_be_searched(&self) -> bool {
        grants(self.session, self.record.attributes(), libc::X_OK) == Some(true)
    }
}

impl Found<'static> {
    /// A record that was found earlier, e.g. behind a descriptor; the origin's name leads to it.
    pub(crate) fn again(
        session: &'static Session,
        record: Record<'static>,
        scope: Scope,
    ) -> Found<'static> {
        let route = Route::covered(scope, record.path_terminated().as_ptr());
        Found {
            session,
            record,
            scope,
            route,
            asked: false,
            counted: None,
        }
    }
}

/// What became of a path.
pub(crate) enum Outcome<'a> {
    /// The kernel answers.
    Kernel(Route),
    /// It is covered and exists.
    Found(Found<'a>),
    /// It is covered and does not exist.
    Absent {
        errno: c_int,
        /// Only its last component is missing.
        creatable: bool,
        scope: Scope,
        /// The helper was asked.
        asked: bool,
    },
}

impl Outcome<'_> {
    /// Notes that the helper was asked.
    fn after_asking(self) -> Self {
        match self {
            Outcome::Found(found) => Outcome::Found(Found {
                asked: true,
                ..found
            }),
            Outcome::Absent {
                errno,
                creatable,
                scope,
                ..
            } => Outcome::Absent {
                errno,
                creatable,
                scope,
                asked: true,
            },
            outcome => outcome,
        }
    }
}

/// An absolute path that concerns us: its scope, the origin's name for it, and where the kernel
/// finds it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    pub(crate) scope: Scope,
    /// Absolute; may hold `..` unless the text it was made from was in normal form.
    pub(crate) path: &'p [u8],
    /// What tidying took from the end of the text: nothing, a slash or `/.`.
    pub(crate) ending: &'static [u8],
    /// What is not there is to be created.
    creates: bool,
    route: Route,
}

/// Looks at an absolute path, whose [`path::first_word`] is `word`, without empty or `.` components, followed in memory by what tidying
/// took from its end and a NUL.
#[inline(never)]
pub(crate) fn classify<'p>(
    session: &'static Session,
    text: &'p [u8],
    word: u64,
) -> Option<Place<'p>> {
    classify_here(session, text, word)
}

#[inline(always)]
fn classify_here<'p>(session: &'static Session, text: &'p [u8], word: u64) -> Option<Place<'p>> {
    if let Some(origin) = path::below(text, session.view_for(word)) {
        let hidden = path::is_node_local(origin) && !session.covers(origin);
        return (!hidden).then(|| Place::new(Scope::View, origin, core::ptr::null()));
    }
    if session.covers(text) {
        return Some(Place::new(Scope::Prefix, text, core::ptr::null()));
    }
    if session.may_be_stored(word) {
        return in_store(session, text);
    }
    None
}

/// A path in the store that has come back from the kernel or from the loader.
#[cold]
fn in_store<'p>(session: &'static Session, text: &'p [u8]) -> Option<Place<'p>> {
    let origin = session.origin_of_stored(text)?;
    let scope = if session.covers(origin) {
        Scope::Prefix
    } else {
        Scope::View
    };
    // The root of the mirror is named without a slash, so its origin is not a part of the text.
    let root = origin == b"/";
    let instead = if root {
        c"/".as_ptr()
    } else {
        origin.as_ptr().cast()
    };
    Some(Place::new(scope, origin, instead))
}

/// Whether a pointer is one that the kernel answers with `EFAULT`: null, or in the first page,
/// which is never mapped. Programs probe with such; other bad pointers fault in libc as well.
#[inline]
pub(crate) fn is_bad_pointer(pointer: *const c_void) -> bool {
    (pointer as usize) < 4096
}

/// The bytes of a caller's path; `None` where it is null, empty or too long, which is the
/// kernel's to say.
#[inline]
pub(crate) fn text<'p>(path: *const c_char) -> Option<&'p [u8]> {
    if is_bad_pointer(path.cast()) {
        return None;
    }
    // SAFETY: libc's contract makes the path NUL-terminated.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    (!bytes.is_empty() && bytes.len() <= PATH_MAX).then_some(bytes)
}

/// Finds out what the path of a call is, and hands it to `then`.
#[inline]
pub(crate) fn with_target<R>(
    family: Family,
    directory: c_int,
    path: *const c_char,
    ending: Ending,
    then: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    let (Some(session), false) = (session::known(), is_bad_pointer(path.cast())) else {
        return then(Outcome::Kernel(Route::AS_GIVEN));
    };
    // SAFETY: libc's contract makes the path NUL-terminated, so a slash has a byte behind it.
    let passes_by = unsafe { *path == b'/' as c_char && !session.may_begin(*path.add(1) as u8) };
    if passes_by {
        // SAFETY: as above.
        let bytes = || unsafe { CStr::from_ptr(path) }.to_bytes();
        count(family, Counted::Uncovered, bytes);
        return then(Outcome::Kernel(Route::AS_GIVEN));
    }
    match text(path) {
        Some(bytes) => of_concern(session, (family, directory), bytes, ending, then),
        None => then(Outcome::Kernel(Route::AS_GIVEN)),
    }
}

/// A path that may be covered.
#[inline]
fn of_concern<R>(
    session: &'static Session,
    (family, directory): (Family, c_int),
    bytes: &[u8],
    ending: Ending,
    then: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    match at_once(session, bytes, ending, family) {
        Some(outcome) => then(outcome),
        None => not_at_once(session, directory, bytes, ending, |outcome, text| {
            then(outcome.count(family, text))
        }),
    }
}

/// The outcome without a walk, by the text as it was given: that finds nearly all there is.
// In a frame of its own: spread out in each hook a hit takes half as long again. What it calls is
// spread out in here: records handed over in memory wait for what was just stored.
#[inline(never)]
fn at_once(
    session: &'static Session,
    bytes: &[u8],
    ending: Ending,
    family: Family,
) -> Option<Outcome<'static>> {
    if bytes[0] != b'/' {
        return None;
    }
    let word = path::first_word(bytes);
    if !session.may_concern(word) {
        count(family, Counted::Uncovered, || bytes);
        return Some(Outcome::Kernel(Route::AS_GIVEN));
    }
    let Some(place) = classify_here(session, bytes, word) else {
        if !path::shape(bytes).normal {
            return None;
        }
        count(family, Counted::Uncovered, || bytes);
        return Some(Outcome::Kernel(Route::AS_GIVEN));
    };
    if !session.is_believable() {
        return None;
    }
    let found = look_up_here(session, place, ending)?;
    let later = depends_on_more(family);
    match found {
        Resolution::Found(_) if later => {}
        Resolution::Found(_) => count(family, Counted::Hit, || place.path),
        Resolution::Absent { .. } => count(family, Counted::Absent, || place.path),
        Resolution::Unknown => count(family, Counted::Unknown, || place.path),
        _ => count(family, Counted::Special, || place.path),
    }
    let counted = later.then_some(family);
    Some(outcome_counted(session, place, found, counted))
}

/// Hands also the absolute path to `then`, or as much of it as is known; see [`count`].
#[cold]
#[inline(never)]
fn not_at_once<R>(
    session: &'static Session,
    directory: c_int,
    bytes: &[u8],
    ending: Ending,
    then: impl FnOnce(Outcome<'_>, &[u8]) -> R,
) -> R {
    if bytes[0] != b'/' {
        return relative(session, directory, bytes, ending, then);
    }
    if !path::shape(bytes).normal {
        return untidy(session, bytes, ending, then);
    }
    let then = |outcome: Outcome<'_>| then(outcome, bytes);
    match classify(session, bytes, path::first_word(bytes)) {
        None => then(Outcome::Kernel(Route::AS_GIVEN)),
        Some(place) if session.is_believable() => walk(session, place, ending, then),
        Some(place) => then(Outcome::Kernel(place.route.because(Counted::NoHelper))),
    }
}

#[inline(never)]
fn look_up(
    session: &'static Session,
    place: Place<'_>,
    ending: Ending,
) -> Option<Resolution<'static>> {
    look_up_here(session, place, ending)
}

#[inline(always)]
fn look_up_here(
    session: &'static Session,
    place: Place<'_>,
    ending: Ending,
) -> Option<Resolution<'static>> {
    let reach = Reach {
        session,
        scope: place.scope,
    };
    resolve::look_up(&session.catalog, &reach, place.path, ending)
}

#[inline]
fn outcome<'a>(session: &'static Session, place: Place<'_>, found: Resolution<'a>) -> Outcome<'a> {
    outcome_counted(session, place, found, None)
}

#[inline(always)]
fn outcome_counted<'a>(
    session: &'static Session,
    place: Place<'_>,
    found: Resolution<'a>,
    counted: Option<Family>,
) -> Outcome<'a> {
    match found {
        Resolution::Found(record) => Outcome::Found(Found {
            session,
            record,
            scope: place.scope,
            route: place.route,
            asked: false,
            counted,
        }),
        Resolution::Absent { errno, creatable } => Outcome::Absent {
            errno,
            creatable,
            scope: place.scope,
            asked: false,
        },
        Resolution::Unknown => Outcome::Kernel(place.route.because(Counted::Unknown)),
        _ => Outcome::Kernel(place.route),
    }
}

/// The walk, link by link, with one question to the helper where it gets stuck.
#[cold]
#[inline(never)]
fn walk<R>(
    session: &'static Session,
    place: Place<'_>,
    ending: Ending,
    then: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    let reach = Reach {
        session,
        scope: place.scope,
    };
    let mut walk = if place.creates {
        Walk::creating()
    } else {
        Walk::new()
    };
    let mut resolution = walk.run(&session.catalog, &reach, place.path, ending);
    if matches!(resolution, Resolution::Unknown) {
        if ask(session, Operation::Resolve, place.path, b"") == Reply::Known {
            resolution = walk.run(&session.catalog, &reach, place.path, ending);
            if !matches!(resolution, Resolution::Outside) {
                return then(outcome(session, place, resolution).after_asking());
            }
        } else if has_given_up(session) {
            return then(Outcome::Kernel(place.route.because(Counted::NoHelper)));
        }
    }
    let Resolution::Outside = resolution else {
        return then(outcome(session, place, resolution));
    };
    let path = walk.canonical_terminated(place.ending);
    then(Outcome::Kernel(
        path.map_or(place.route, |path| Route::outside(path.as_ptr())),
    ))
}

/// A path with empty, `.` or `..` components or a trailing slash.
#[cold]
#[inline(never)]
fn untidy<R>(
    session: &'static Session,
    bytes: &[u8],
    ending: Ending,
    then: impl FnOnce(Outcome<'_>, &[u8]) -> R,
) -> R {
    let mut room = [0u8; PATH_MAX + 1];
    let Some(tidied) = tidy(bytes, &mut room) else {
        return then(Outcome::Kernel(Route::AS_GIVEN), bytes);
    };
    at_tidied(session, &room, tidied, ending, then)
}

fn at_tidied<R>(
    session: &'static Session,
    room: &[u8; PATH_MAX + 1],
    tidied: path::Tidied,
    ending: Ending,
    then: impl FnOnce(Outcome<'_>, &[u8]) -> R,
) -> R {
    let text = &room[..tidied.length];
    let then = |outcome: Outcome<'_>| then(outcome, text);
    match classify(session, text, path::first_word(text)) {
        None => then(Outcome::Kernel(Route::AS_GIVEN)),
        Some(place) => at_place_as_named(session, place.ending_as(tidied), ending, then),
    }
}

/// A place whose path was tidied: what the tidying took away still counts.
pub(crate) fn at_place_as_named<R>(
    session: &'static Session,
    place: Place<'_>,
    ending: Ending,
    then: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    let directory = ending.directory || !place.ending.is_empty();
    let enters = place.ending == b"/.";
    let ending = Ending {
        follow: ending.follow || directory,
        directory,
    };
    let then = |outcome: Outcome<'_>| match outcome {
        Outcome::Found(found) if enters && !found.may_be_searched() => {
            then(Outcome::Kernel(found.route))
        }
        // What is missing is not the last component, but the directory that `.` is in.
        Outcome::Absent {
            errno,
            scope,
            asked,
            ..
        } if enters => then(Outcome::Absent {
            errno,
            creatable: false,
            scope,
            asked,
        }),
        outcome => then(outcome),
    };
    resolve_place(session, place, ending, then)
}

/// A path relative to the working directory or to a directory's descriptor.
#[cold]
#[inline(never)]
fn relative<R>(
    session: &'static Session,
    directory: c_int,
    bytes: &[u8],
    ending: Ending,
    then: impl FnOnce(Outcome<'_>, &[u8]) -> R,
) -> R {
    let mut room = [0u8; PATH_MAX + 1];
    match join(session, directory, bytes, &mut room, Thorough::No) {
        Joined::Elsewhere(length) => then(Outcome::Kernel(Route::AS_GIVEN), &room[..length]),
        Joined::Text(tidied) => at_tidied(session, &room, tidied, ending, then),
        Joined::Store(tidied, scope) => {
            let text = &room[..tidied.length];
            let place = Place::new(scope, text, room.as_ptr().cast());
            let then = |outcome: Outcome<'_>| then(outcome, text);
            at_place_as_named(session, place.ending_as(tidied), ending, then)
        }
    }
}

/// Tidies a path into the room, and puts what that took from its end behind it, with a NUL, for
/// the kernel's eyes. `None` where it does not fit.
fn tidy(text: &[u8], room: &mut [u8; PATH_MAX + 1]) -> Option<path::Tidied> {
    let tidied = path::tidy(text, &mut room[..PATH_MAX])?;
    let ending = tidied.ending();
    let end = room.get_mut(tidied.length..=tidied.length + ending.len())?;
    end[..ending.len()].copy_from_slice(ending);
    end[ending.len()] = 0;
    Some(tidied)
}

/// Whether a descriptor of a directory outside the store is worth a look at its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thorough {
    /// For calls that change something, and must tell.
    Yes,
    /// For calls that only look; the kernel answers them as well.
    No,
}

enum Joined {
    /// Nothing of ours. So much of the room is the directory with a slash, where that was found.
    Elsewhere(usize),
    /// An absolute path that may be covered; in the room with its ending and a NUL.
    Text(path::Tidied),
    /// A path of the origin, reached from a directory in the store; in the room likewise.
    Store(path::Tidied, Scope),
}

/// Puts the directory in front of a relative path.
fn join(
    session: &'static Session,
    directory: c_int,
    bytes: &[u8],
    room: &mut [u8; PATH_MAX + 1],
    thorough: Thorough,
) -> Joined {
    let mut base = [0u8; PATH_MAX + 1];
    let Some((length, scope)) = base_of(session, directory, &mut base, thorough) else {
        return Joined::Elsewhere(0);
    };
    let concerns = scope.is_some() || session.may_concern(path::first_word(&base[..length]));
    if !concerns && !bytes.starts_with(b"..") {
        room[..length].copy_from_slice(&base[..length]);
        room[length] = b'/';
        return Joined::Elsewhere(length + 1);
    }
    let mut whole = [0u8; 2 * PATH_MAX + 2];
    whole[..length].copy_from_slice(&base[..length]);
    whole[length] = b'/';
    let end = length + 1 + bytes.len();
    whole[length + 1..end].copy_from_slice(bytes);
    let Some(tidied) = tidy(&whole[..end], room) else {
        return Joined::Elsewhere(0);
    };
    match scope {
        Some(scope) => Joined::Store(tidied, scope),
        None => Joined::Text(tidied),
    }
}

/// The absolute path of a directory. With a scope where it lies in the store: the path is then
/// the origin's.
fn base_of(
    session: &'static Session,
    directory: c_int,
    out: &mut [u8; PATH_MAX + 1],
    thorough: Thorough,
) -> Option<(usize, Option<Scope>)> {
    if directory == libc::AT_FDCWD {
        let length = working_directory(out)?;
        if let Some(origin) = path::below(&out[..length], session.mirror) {
            // Only a change of directory within the view leads into the store.
            let start = length - origin.len();
            let origin_length = if origin == b"/" { 1 } else { origin.len() };
            if origin == b"/" {
                out[0] = b'/';
            } else {
                out.copy_within(start..length, 0);
            }
            return Some((origin_length, Some(Scope::View)));
        }
        return Some((length, None));
    }
    if let Some(origin) = origin_of_directory(session, directory) {
        out.get_mut(..origin.len())?.copy_from_slice(origin);
        let scope = scope_of(session, directory, origin);
        return Some((origin.len(), Some(scope)));
    }
    // Without covered prefixes only the store's directories can concern us.
    if thorough == Thorough::No || session.prefixes().next().is_none() {
        return None;
    }
    descriptor_path(directory, out).map(|length| (length, None))
}

/// The kernel's word for the working directory; `None` where it has no absolute path.
pub(crate) fn working_directory(out: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    // SAFETY: the room and its length belong together.
    let length = unsafe { call!(libc::SYS_getcwd, out.as_mut_ptr(), out.len()) };
    if length == -(libc::ENOENT as isize) {
        return removed_directory(out);
    }
    (length > 1 && out[0] == b'/').then_some(length as usize - 1)
}

/// The name that the working directory had before it was removed, as the store's directories are
/// when the helper ends.
#[cold]
fn removed_directory(out: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    const MARK: &[u8] = b" (deleted)";
    let length = read_link(c"/proc/self/cwd".as_ptr(), out)?;
    let name = out[..length].strip_suffix(MARK)?.len();
    let session = session::known()?;
    path::below(&out[..name], session.mirror)?;
    out[name] = 0;
    Some(name)
}

/// The name that the kernel has for a descriptor.
pub(crate) fn descriptor_path(descriptor: c_int, out: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    read_link(proc_link(descriptor)?.as_ptr().cast(), out)
}

/// The absolute path that a link leads to.
fn read_link(link: *const c_char, out: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    // SAFETY: the link is NUL-terminated; the room and its length belong together.
    let length = unsafe {
        let (room, size) = (out.as_mut_ptr(), PATH_MAX);
        call!(libc::SYS_readlinkat, libc::AT_FDCWD, link, room, size)
    };
    (length > 0 && out[0] == b'/').then_some(length as usize)
}

/// `/proc/self/fd/N`, NUL-terminated.
pub(crate) fn proc_link(descriptor: c_int) -> Option<[u8; 32]> {
    const START: &[u8] = b"/proc/self/fd/";
    let mut link = [0u8; 32];
    link[..START.len()].copy_from_slice(START);
    let number = u32::try_from(descriptor).ok()?;
    copper_core::location::decimal(u64::from(number), &mut link[START.len()..]);
    Some(link)
}

/// The origin's name of a directory in the store that a descriptor is open on.
pub(crate) fn origin_of_directory(
    session: &'static Session,
    directory: c_int,
) -> Option<&'static [u8]> {
    let status = sys::fstat(directory)?;
    let ours =
        status.st_dev == session.store_device && status.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if !ours {
        return None;
    }
    let record = session.catalog.by_store_inode(status.st_ino)?;
    record.is_directory().then(|| record.path())
}

/// The place that a call which changes something names; `None` where it is not covered.
///
/// Unlike [`with_target`] this resolves nothing: whoever changes something needs the name, not
/// what was known of it. The path handed over may hold `..`.
pub(crate) fn with_place<R>(
    directory: c_int,
    path: *const c_char,
    then: impl FnOnce(Option<Place<'_>>) -> R,
) -> R {
    let (Some(bytes), Some(session)) = (text(path), session::known()) else {
        return then(None);
    };
    if bytes[0] == b'/' && !session.may_concern(path::first_word(bytes)) {
        return then(None);
    }
    let mut room = [0u8; PATH_MAX + 1];
    let joined = if bytes[0] == b'/' {
        tidy(bytes, &mut room).map_or(Joined::Elsewhere(0), Joined::Text)
    } else {
        join(session, directory, bytes, &mut room, Thorough::Yes)
    };
    match joined {
        Joined::Elsewhere(_) => then(None),
        Joined::Text(tidied) => {
            let text = &room[..tidied.length];
            let place = classify(session, text, path::first_word(text));
            then(place.map(|place| place.ending_as(tidied)))
        }
        Joined::Store(tidied, scope) => {
            let place = Place::new(scope, &room[..tidied.length], room.as_ptr().cast());
            then(Some(place.ending_as(tidied)))
        }
    }
}

impl<'p> Place<'p> {
    fn new(scope: Scope, path: &'p [u8], instead: *const c_char) -> Place<'p> {
        Place {
            scope,
            path,
            ending: b"",
            creates: false,
            route: Route::covered(scope, instead),
        }
    }

    /// The same for a call that creates what is not there.
    pub(crate) fn creating(self) -> Place<'p> {
        Place {
            creates: true,
            ..self
        }
    }

    fn ending_as(self, tidied: path::Tidied) -> Place<'p> {
        Place {
            ending: tidied.ending(),
            ..self
        }
    }

    /// The directory that holds it, in the same scope.
    pub(crate) fn parent(self) -> Place<'p> {
        Place {
            path: path::split_last(self.path).0,
            ending: b"",
            ..self
        }
    }

    /// Whether there is a `..` in its path.
    pub(crate) fn has_parents(&self) -> bool {
        self.path
            .split(|&byte| byte == b'/')
            .any(|name| name == b"..")
    }

    /// Where the kernel finds it.
    pub(crate) fn route(&self) -> Route {
        self.route
    }
}

/// Resolves what [`with_place`] found.
pub(crate) fn resolve_place<R>(
    session: &'static Session,
    place: Place<'_>,
    ending: Ending,
    then: impl FnOnce(Outcome<'_>) -> R,
) -> R {
    if !session.is_believable() {
        return then(Outcome::Kernel(place.route.because(Counted::NoHelper)));
    }
    match look_up(session, place, ending) {
        Some(resolution) => then(outcome(session, place, resolution)),
        None => walk(session, place, ending, then),
    }
}
