//! The loader's search for a library, made in its place where all that it would look at is known.
//!
//! A candidate at a time would do ([`crate::place::candidate`]), but the loader itself then asks the
//! origin whether each directory of the search path exists. So the search is made here, in the
//! loader's order, and its result is given as the library's name: the store's, in the mirror of the
//! origin's tree. On any doubt (a directory with variants for certain processors, a token whose
//! meaning is the loader's secret, a file that is no library) the loader searches by itself.

use crate::ask::ask;
use crate::link_map::LinkMap;
use crate::place::{Known, Place, session};
use crate::session::{self, Session};
use crate::stored::{Room, is_library};
use crate::system;
use copper_core::catalog::layout::header;
use copper_core::catalog::reader::Record;
use copper_core::path::{self, PATH_MAX};
use copper_core::request::{Operation, Outcome};
use copper_core::store;
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_long};

/// A loaded library, with the one that asked for it.
#[derive(Clone, Copy)]
struct Loaded {
    map: *const LinkMap,
    asked_by: usize,
}

/// More libraries than a process loads; of further ones nothing is known.
const LOADED_MAX: usize = 8192;
const LIBRARY_PATH_MAX: usize = 16 << 10;

struct State {
    loaded: [Cell<Loaded>; LOADED_MAX],
    count: Cell<usize>,
    /// Who has asked for the name that is being searched for.
    asking: Cell<usize>,
    /// The loader knows a library by the name that it was asked for, whatever name it is given.
    names_are_kept: Cell<bool>,
    /// `LD_LIBRARY_PATH` as it was at the start; written once, before any search.
    library_path: UnsafeCell<[u8; LIBRARY_PATH_MAX]>,
    /// Longer than the room where it does not fit.
    library_path_length: Cell<usize>,
}

// SAFETY: only used from calls of the loader, which makes them under its lock.
unsafe impl Sync for State {}

static STATE: State = State {
    loaded: [const {
        Cell::new(Loaded {
            map: core::ptr::null(),
            asked_by: 0,
        })
    }; LOADED_MAX],
    count: Cell::new(0),
    asking: Cell::new(0),
    names_are_kept: Cell::new(false),
    library_path: UnsafeCell::new([0; LIBRARY_PATH_MAX]),
    library_path_length: Cell::new(0),
};

/// Prepares the search; `names_are_kept` as in [`State`].
pub(crate) fn prepare(names_are_kept: bool) {
    STATE.names_are_kept.set(names_are_kept);
    let path = session::variable("LD_LIBRARY_PATH").unwrap_or(b"");
    STATE.library_path_length.set(path.len());
    // SAFETY: the loader's first call, under its lock; nobody has looked at the room yet.
    let room = unsafe { &mut *STATE.library_path.get() };
    if let Some(room) = room.get_mut(..path.len()) {
        room.copy_from_slice(path);
    }
}

/// Takes note of a library that was loaded; returns what it will be called in later questions.
pub(crate) fn opened(map: *const LinkMap, namespace: c_long) -> usize {
    let count = STATE.count.get();
    let is_program = count == 0 && namespace == 0;
    let asked_by = if is_program { 0 } else { STATE.asking.get() };
    let Some(place) = STATE.loaded.get(count) else {
        return 0;
    };
    place.set(Loaded { map, asked_by });
    STATE.count.set(count + 1);
    count + 1
}

/// Forgets a library, which the loader is about to unload.
pub(crate) fn closed(number: usize) {
    let index = number.wrapping_sub(1);
    if let Some(place) = STATE
        .loaded
        .get(index)
        .filter(|_| index < STATE.count.get())
    {
        let map = core::ptr::null();
        place.set(Loaded { map, ..place.get() });
    }
}

/// The program itself.
const PROGRAM: usize = 1;

/// A loaded library by what [`opened`] called it.
#[derive(Clone, Copy)]
struct Requester {
    number: usize,
    map: &'static LinkMap,
    asked_by: usize,
}

impl Requester {
    fn numbered(number: usize) -> Option<Requester> {
        let count = STATE.count.get();
        let index = number.checked_sub(1).filter(|&index| index < count)?;
        let Loaded { map, asked_by } = STATE.loaded.get(index)?.get();
        // SAFETY: what the loader has unloaded has no map here any more.
        let map = unsafe { map.as_ref()? };
        Some(Requester {
            number,
            map,
            asked_by,
        })
    }

    /// Writes what `$ORIGIN` stands for into `room`.
    fn origin(&self, room: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
        if self.number == PROGRAM {
            return system::program(room);
        }
        let (directory, _) = path::split_last(self.map.name());
        let is_absolute = directory.first() == Some(&b'/');
        room.get_mut(..directory.len())?.copy_from_slice(directory);
        is_absolute.then_some(directory.len())
    }

    /// Writes an element of a search path, or a name, with `$ORIGIN` replaced; `None` where it is
    /// not absolute then, or holds what only the loader can replace.
    fn expand(&self, element: &[u8], room: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
        let rest = [&b"$ORIGIN"[..], b"${ORIGIN}"]
            .iter()
            .find_map(|token| element.strip_prefix(*token));
        let (start, rest) = match rest {
            Some(rest) if matches!(rest.first(), None | Some(b'/')) => (self.origin(room)?, rest),
            Some(_) => return None,
            None => (0, element),
        };
        let length = start + rest.len();
        room.get_mut(start..length)?.copy_from_slice(rest);
        let is_plain = room[0] == b'/' && length > 0 && length < PATH_MAX && !rest.contains(&b'$');
        is_plain.then_some(length)
    }
}

/// How the search in some directories went.
enum Search {
    /// It ends with this name.
    Ends(&'static CStr),
    /// It would go on; says whether covered directories were passed.
    GoesOn { covered: bool },
    /// Only the loader can tell.
    Doubt,
}

/// The name to take in place of the one that `requester` asks for; `None` for that itself.
pub(crate) fn named(name: &CStr, requester: usize) -> Option<&'static CStr> {
    STATE.asking.set(requester);
    let requester = Requester::numbered(requester)?;
    let name = name.to_bytes();
    if !name.contains(&b'/') {
        return needed(name, requester);
    }
    let (mut text, mut room) = ([0u8; PATH_MAX + 1], [0u8; PATH_MAX + 1]);
    let length = requester.expand(name, &mut text)?;
    let session = session()?;
    // The shim may have been there before.
    if path::is_within(&text[..length], session.mirror) {
        return None;
    }
    let place = Place::of(session, &text[..length], &mut room)?;
    match place.resolve() {
        Known::Found(found) => mirrored(place, &found, false),
        _ => None,
    }
}

/// Searches for a name without a slash.
fn needed(name: &[u8], requester: Requester) -> Option<&'static CStr> {
    if !STATE.names_are_kept.get() || name.is_empty() {
        return None;
    }
    let paths = requester.map.search_paths();
    let mut covered = false;
    let mut go_on = |search| match search {
        Search::Ends(name) => Err(Some(name)),
        Search::Doubt => Err(None),
        Search::GoesOn { covered: passed } => {
            covered |= passed;
            Ok(())
        }
    };
    let search = || -> Result<(), Option<&'static CStr>> {
        if paths.own.is_none() {
            go_on(along_inherited(name, requester))?;
        }
        go_on(along_library_path(name))?;
        if let Some(own) = paths.own {
            go_on(along(own, b":", name, requester))?;
        }
        Ok(())
    };
    match { search }() {
        Err(ended) => ended,
        // The system's directories are not covered; but on its way there the loader would look
        // for the covered ones.
        Ok(()) if covered && paths.takes_system => system::library(name),
        Ok(()) => None,
    }
}

/// The search along the `DT_RPATH` of the library, of that which asked for it, and so on.
fn along_inherited(name: &[u8], requester: Requester) -> Search {
    let mut passed = false;
    let mut at = requester;
    loop {
        if let Some(list) = at.map.search_paths().inherited {
            match along(list, b":", name, at) {
                Search::GoesOn { covered } => passed |= covered,
                ended => return ended,
            }
        }
        if at.number == PROGRAM {
            return Search::GoesOn { covered: passed };
        }
        // Each was asked for by one that was there before it; the program comes last, asked or not.
        let before = if at.asked_by == 0 {
            PROGRAM
        } else {
            at.asked_by
        };
        match Requester::numbered(before).filter(|before| before.number < at.number) {
            Some(before) => at = before,
            None => return Search::Doubt,
        }
    }
}

fn along_library_path(name: &[u8]) -> Search {
    let length = STATE.library_path_length.get();
    if length == 0 {
        return Search::GoesOn { covered: false };
    }
    // SAFETY: written before the first search and never again.
    let list = unsafe { &*STATE.library_path.get() }.get(..length);
    match (list, Requester::numbered(PROGRAM)) {
        (Some(list), Some(program)) => along(list, b":;", name, program),
        _ => Search::Doubt,
    }
}

/// The search along a list of directories.
fn along(list: &[u8], separators: &[u8], name: &[u8], requester: Requester) -> Search {
    let mut passed = false;
    let (mut room, mut rooms) = ([0u8; PATH_MAX + 1], [[0u8; PATH_MAX + 1]; 2]);
    for element in list.split(|byte| separators.contains(byte)) {
        let Some(length) = requester.expand(element, &mut room) else {
            return Search::Doubt;
        };
        match in_directory(&room[..length], name, &mut rooms) {
            Search::GoesOn { covered } => passed |= covered,
            ended => return ended,
        }
    }
    Search::GoesOn { covered: passed }
}

/// Below a directory that has one of these, the loader may prefer what lies there.
#[cfg(target_arch = "x86_64")]
const VARIANTS: [&[u8]; 6] = [
    b"glibc-hwcaps",
    b"tls",
    b"haswell",
    b"xeon_phi",
    b"avx512_1",
    b"x86_64",
];
#[cfg(target_arch = "aarch64")]
const VARIANTS: [&[u8]; 4] = [b"glibc-hwcaps", b"tls", b"atomics", b"aarch64"];

/// A directory that holds no variants, as the catalog was then.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Plain {
    /// Where the directory's record lies; 0 for none.
    directory: u64,
    generation: u64,
    losses: u64,
}

/// Directories that a search has found plain, which the next search will most likely look into as well.
struct PlainOnes([Cell<Plain>; 16]);

// SAFETY: only used from calls of the loader, which makes them under its lock.
unsafe impl Sync for PlainOnes {}

static PLAIN: PlainOnes = PlainOnes(
    [const {
        Cell::new(Plain {
            directory: 0,
            generation: 0,
            losses: 0,
        })
    }; 16],
);

/// Whether a directory, whose record this is, holds none of the variants, as far as is known.
fn is_plain(place: &Place<'_>, found: &Record<'_>, room: &mut [u8; PATH_MAX + 1]) -> bool {
    let catalog = &place.session.catalog;
    let now = Plain {
        directory: found.offset(),
        generation: catalog.word(header::GENERATION),
        losses: catalog.word(header::LOSSES),
    };
    let remembered = &PLAIN.0[now.directory as usize / 8 % PLAIN.0.len()];
    if remembered.get() == now {
        return true;
    }
    let is_absent = |variant: &&[u8]| {
        let child = place.child(variant, room);
        child.is_some_and(|child| matches!(child.resolve(), Known::Absent))
    };
    let is_plain = VARIANTS.iter().all(is_absent);
    if is_plain {
        remembered.set(now);
    }
    is_plain
}

fn in_directory(directory: &[u8], name: &[u8], rooms: &mut [[u8; PATH_MAX + 1]; 2]) -> Search {
    let Some(session) = session() else {
        return Search::Doubt;
    };
    let [room, room_of_child] = rooms;
    let Some(place) = Place::of(session, directory, room) else {
        return if system::holds_any(directory, name, &VARIANTS) {
            Search::Doubt
        } else {
            Search::GoesOn { covered: false }
        };
    };
    match place.resolve() {
        Known::Found(found) if found.is_directory() => {
            if !is_plain(&place, &found, room_of_child) {
                return Search::Doubt;
            }
        }
        Known::Found(_) | Known::Absent => return Search::GoesOn { covered: true },
        Known::Doubt => return Search::Doubt,
    }
    let Some(library) = place.child(name, room_of_child) else {
        return Search::Doubt;
    };
    match library.resolve() {
        Known::Found(found) => {
            let vouched_for = is_asked_for_by_mirrored(session);
            mirrored(library, &found, vouched_for).map_or(Search::Doubt, Search::Ends)
        }
        Known::Absent => Search::GoesOn { covered: true },
        Known::Doubt => Search::Doubt,
    }
}

/// Whether the library that is searched for is needed by one that was loaded from the mirror, which the
/// helper has filled with all that this needs.
fn is_asked_for_by_mirrored(session: &Session) -> bool {
    Requester::numbered(STATE.asking.get())
        .is_some_and(|requester| path::is_within(requester.map.name(), session.mirror))
}

/// The name in the mirror of a library that is there, so that its `$ORIGIN` finds its siblings.
///
/// All that it needs must be in the mirror as well, since the loader will search there. The helper has
/// said so of what was asked for by a library in the mirror (`vouched_for`); else it is asked.
fn mirrored(place: Place<'_>, found: &Record<'_>, vouched_for: bool) -> Option<&'static CStr> {
    if !found.attributes().is_regular() {
        return None;
    }
    let inode = place.stored_inode(found, Operation::Closure)?;
    // A path with links in it has a closure of its own.
    let has_closure = found.path() == place.origin && place.session.catalog.has_closure(found);
    if (vouched_for || has_closure)
        && let Some(name) = mirror_name(place, found, inode)
    {
        return Some(name);
    }
    if ask(place.session, Operation::Closure, place.origin, b"") != Outcome::Known {
        return None;
    }
    mirror_name(place, found, inode)
}

/// The name as it is spelled, or that without links where both lie in the same directory.
fn mirror_name(place: Place<'_>, found: &Record<'_>, inode: u64) -> Option<&'static CStr> {
    static GIVEN: Room<{ PATH_MAX + 1 }> = Room::new();
    let mut collapsed = [0u8; PATH_MAX + 1];
    let length = collapse(place.origin, &mut collapsed)?;
    let spelled = &collapsed[..length];
    let canonical = found.path();
    let same_directory = path::split_last(spelled).0 == path::split_last(canonical).0;
    let names = [Some(spelled), same_directory.then_some(canonical)];
    names.into_iter().flatten().find_map(|name| {
        let mut room = [0u8; PATH_MAX + 1];
        let length = store::mirror_path(place.session.mirror, name, &mut room)?;
        let path = GIVEN.keep(&room[..=length])?;
        is_library(place.session, path, inode).then_some(path)
    })
}

/// Writes a tidy path with `..` taken for what it seems: the mirror has no links.
fn collapse(text: &[u8], room: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    let mut length = 0;
    for name in text
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
    {
        if name == b".." {
            length = path::split_last(&room[..length]).0.len();
            length = if length == 1 { 0 } else { length };
            continue;
        }
        let end = length + 1 + name.len();
        let target = room.get_mut(length..end)?;
        target[0] = b'/';
        target[1..].copy_from_slice(name);
        length = end;
    }
    (length > 0).then_some(length)
}
