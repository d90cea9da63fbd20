//! `ftw` and `nftw`, which walk a tree inside libc: a walk that begins on a covered path is made
//! here, over our own hooks, so that it sees the catalog. A walk that begins elsewhere is libc's.

use crate::cwd::{chdir, fchdir, leave_store};
use crate::directory::{closedir, opendir, readdir};
use crate::open::open;
use crate::original::{hooks, original};
use crate::stat::{lstat, stat};
use crate::sys::{Descriptor, errno, fail, set_errno};
use crate::target::{NO_FOLLOW, Outcome, text, with_target};
use copper_core::counters::Family;
use copper_core::path::PATH_MAX;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use libc::{AT_FDCWD, DIR, S_IFDIR, S_IFLNK, S_IFMT, stat as Status};

/// `FTW_PHYS`: links are reported, not followed.
const PHYSICAL: c_int = 1;
/// `FTW_MOUNT`: the walk stays on the file system where it began.
const ONE_SYSTEM: c_int = 2;
/// `FTW_CHDIR`: a directory is the working one while what is in it is reported.
const CHANGE_DIRECTORY: c_int = 4;
/// `FTW_DEPTH`: a directory is reported after what is in it.
const DEPTH_FIRST: c_int = 8;
/// `FTW_ACTIONRETVAL`: what the visitor returns may mean to pass over something.
const ACTIONS: c_int = 16;
const ALL_FLAGS: c_int = PHYSICAL | ONE_SYSTEM | CHANGE_DIRECTORY | DEPTH_FIRST | ACTIONS;

/// `FTW_SKIP_SUBTREE`.
const SKIP_SUBTREE: c_int = 2;
/// `FTW_SKIP_SIBLINGS`.
const SKIP_SIBLINGS: c_int = 3;

/// What a visitor is told of the object's kind; the numbers are `FTW_F` and so on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Kind {
    File = 0,
    Directory = 1,
    UnreadableDirectory = 2,
    Unknown = 3,
    Link = 4,
    DirectoryAfter = 5,
    DanglingLink = 6,
}

impl Kind {
    fn of(status: &Status) -> Kind {
        match status.st_mode & S_IFMT {
            S_IFDIR => Kind::Directory,
            S_IFLNK => Kind::Link,
            _ => Kind::File,
        }
    }

    /// The kinds that `ftw` knows.
    fn simple(self) -> Kind {
        match self {
            Kind::Link => Kind::File,
            Kind::DirectoryAfter => Kind::Directory,
            Kind::DanglingLink => Kind::Unknown,
            other => other,
        }
    }
}

/// `struct FTW`.
#[repr(C)]
struct Position {
    base: c_int,
    level: c_int,
}

/// `ftw`'s visitor takes the first three arguments; a fourth does it no harm.
type Visitor = unsafe extern "C" fn(*const c_char, *const Status, c_int, *mut Position) -> c_int;

type Identity = (u64, u64);

unsafe extern "C" {
    fn tsearch(
        key: *const c_void,
        root: *mut *mut c_void,
        compare: unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
    ) -> *mut *mut c_void;
    fn tdestroy(root: *mut c_void, free: unsafe extern "C" fn(*mut c_void));
}

unsafe extern "C" fn compare(one: *const c_void, other: *const c_void) -> c_int {
    // SAFETY: the keys of the tree are identities.
    let order = unsafe { (*one.cast::<Identity>()).cmp(&*other.cast::<Identity>()) };
    order as c_int
}

/// Room for the path of the object that is being visited, with its NUL.
const ROOM: usize = PATH_MAX + 1;

struct Walk {
    visitor: Visitor,
    flags: c_int,
    /// Whether this is `ftw`.
    simple: bool,
    position: Position,
    path: [u8; ROOM],
    length: usize,
    /// Where the walk began.
    device: u64,
    /// The directories that were visited (a `tsearch` tree), where links are followed.
    visited: *mut c_void,
    /// With `FTW_CHDIR`, the working directory before the walk.
    start: Option<Descriptor>,
    /// How many directories libc would keep open.
    open_most: c_int,
    /// The highest level of those above that libc would have closed again by now: from below those
    /// it goes back through `..`, which behind a link leads elsewhere.
    closed: c_int,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if !self.visited.is_null() {
            // SAFETY: the tree is ours; its keys were allocated by `is_new`.
            unsafe { tdestroy(self.visited, libc::free) };
        }
    }
}

impl Walk {
    fn path(&self) -> *const c_char {
        self.path.as_ptr().cast()
    }

    fn has(&self, flag: c_int) -> bool {
        self.flags & flag != 0
    }

    /// The name that leads to the object from the working directory.
    fn name(&self) -> *const c_char {
        match self.position.base as usize {
            base if !self.has(CHANGE_DIRECTORY) || base > self.length => self.path(),
            base if base == self.length => c".".as_ptr(),
            base => self.path[base..].as_ptr().cast(),
        }
    }

    /// Moves to the directory that the object is in, by its path.
    fn enter_parent(&mut self) -> bool {
        let Some(start) = &self.start else {
            return true;
        };
        // SAFETY: the walk's own descriptor; the path is cut off with a NUL for one call.
        unsafe {
            if fchdir(start.number()) != 0 {
                return false;
            }
            match self.position.base as usize {
                0 => true,
                1 => chdir(c"/".as_ptr()) == 0,
                base => {
                    let slash = core::mem::replace(&mut self.path[base - 1], 0);
                    let result = chdir(self.path());
                    self.path[base - 1] = slash;
                    result == 0
                }
            }
        }
    }

    /// Moves from a directory back to the one above, as libc would.
    fn leave(&mut self) -> bool {
        if self.closed < self.position.level - 1 {
            return self.enter_parent();
        }
        let above = if self.position.base == 1 { c"/" } else { c".." };
        // SAFETY: the path is NUL-terminated.
        unsafe { chdir(above.as_ptr()) == 0 }
    }

    fn visit(&mut self, status: &Status, kind: Kind) -> c_int {
        let kind = if self.simple { kind.simple() } else { kind };
        let (visitor, path) = (self.visitor, self.path());
        // SAFETY: the program's own visitor, given what libc would give it.
        unsafe { visitor(path, status, kind as c_int, &raw mut self.position) }
    }

    /// Attributes and kind of the object at the path; an error where the walk cannot go on.
    fn look(&self) -> Result<(Status, Kind), ()> {
        let mut status = MaybeUninit::<Status>::zeroed();
        let out = status.as_mut_ptr();
        // SAFETY: the path is NUL-terminated, and `status` is zeroed, which is a valid one.
        unsafe {
            let found = if self.has(PHYSICAL) {
                lstat(self.name(), out)
            } else {
                stat(self.name(), out)
            };
            if found == 0 {
                let status = status.assume_init();
                return Ok((status, Kind::of(&status)));
            }
            if !matches!(errno(), libc::EACCES | libc::ENOENT) {
                return Err(());
            }
            let is_link = !self.has(PHYSICAL)
                && lstat(self.name(), out) == 0
                && (*out).st_mode & S_IFMT == S_IFLNK;
            let kind = if is_link {
                Kind::DanglingLink
            } else {
                Kind::Unknown
            };
            Ok((status.assume_init(), kind))
        }
    }

    /// Whether a directory is visited for the first time; an error where memory is short.
    fn is_new(&mut self, status: &Status) -> Result<bool, ()> {
        if self.has(PHYSICAL) {
            return Ok(true);
        }
        // SAFETY: plain allocation of a key, which the tree keeps where it is new.
        unsafe {
            let key = libc::malloc(size_of::<Identity>()).cast::<Identity>();
            if key.is_null() {
                return Err(());
            }
            key.write((status.st_dev, status.st_ino));
            let node = tsearch(key.cast(), &raw mut self.visited, compare);
            let is_new = !node.is_null() && *node == key.cast();
            if !is_new {
                libc::free(key.cast());
            }
            if node.is_null() { Err(()) } else { Ok(is_new) }
        }
    }

    /// The same from the directory that the object is in; ends in the working directory of before.
    fn begin_there(&mut self) -> c_int {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path is NUL-terminated.
        let opened = unsafe { open(c".".as_ptr(), flags, 0) };
        self.start = Descriptor::from_result(opened as isize);
        if self.start.is_none() {
            return -1;
        }
        let result = if self.position.base == 0 || self.enter_parent() {
            self.begin()
        } else {
            -1
        };
        let before = errno();
        if let Some(start) = &self.start {
            // SAFETY: the walk's own descriptor.
            unsafe { fchdir(start.number()) };
        }
        set_errno(before);
        result
    }

    /// Visits the object that the walk begins at.
    fn begin(&mut self) -> c_int {
        let result = match self.look() {
            Err(()) | Ok((_, Kind::Unknown)) => return -1,
            Ok((status, Kind::Directory)) => {
                self.device = status.st_dev;
                match self.is_new(&status) {
                    Ok(_) => self.directory(&status),
                    Err(()) => -1,
                }
            }
            Ok((status, kind)) => self.visit(&status, kind),
        };
        let skips = matches!(result, SKIP_SUBTREE | SKIP_SIBLINGS);
        if self.has(ACTIONS) && skips {
            0
        } else {
            result
        }
    }

    /// Visits a directory and what is in it.
    fn directory(&mut self, status: &Status) -> c_int {
        // SAFETY: the path is NUL-terminated.
        let stream = unsafe { opendir(self.name()) };
        let level = self.position.level;
        self.closed = self.closed.min(level - 1).max(level - self.open_most);
        if stream.is_null() {
            return if errno() == libc::EACCES {
                self.visit(status, Kind::UnreadableDirectory)
            } else {
                -1
            };
        }
        if !self.has(DEPTH_FIRST) {
            let result = self.visit(status, Kind::Directory);
            if result != 0 {
                close(stream);
                return result;
            }
        }
        // SAFETY: the name is NUL-terminated.
        if self.has(CHANGE_DIRECTORY) && unsafe { chdir(self.name()) } != 0 {
            close(stream);
            return -1;
        }
        let (length, base) = (self.length, self.position.base);
        let result = self.contents(stream);
        close(stream);
        self.length = length;
        self.path[length] = 0;
        self.position.base = base;
        let result = if self.has(ACTIONS) && result == SKIP_SIBLINGS {
            0
        } else {
            result
        };
        let result = if result == 0 && self.has(DEPTH_FIRST) {
            self.visit(status, Kind::DirectoryAfter)
        } else {
            result
        };
        let goes_on =
            result == 0 || self.has(ACTIONS) && matches!(result, SKIP_SUBTREE | SKIP_SIBLINGS);
        let moves = self.has(CHANGE_DIRECTORY) && level > 0;
        if goes_on && moves && !self.leave() {
            return -1;
        }
        result
    }

    fn contents(&mut self, stream: *mut DIR) -> c_int {
        let mut start = self.length;
        if self.path[start - 1] != b'/' {
            self.path[start] = b'/';
            start += 1;
        }
        self.position.base = start as c_int;
        self.position.level += 1;
        let mut result = 0;
        while result == 0 {
            // SAFETY: the stream is open, and its entries' names are NUL-terminated.
            let name = unsafe {
                let entry = readdir(stream);
                if entry.is_null() {
                    break;
                }
                CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes_with_nul()
            };
            if !matches!(name, b".\0" | b"..\0") {
                result = self.entry(start, name);
            }
        }
        self.position.level -= 1;
        result
    }

    /// Visits one entry of a directory; `name` ends in NUL.
    fn entry(&mut self, start: usize, name: &[u8]) -> c_int {
        let end = start + name.len();
        let Some(room) = self.path.get_mut(start..end) else {
            return fail(libc::ENAMETOOLONG);
        };
        room.copy_from_slice(name);
        self.length = end - 1;
        self.position.base = start as c_int;
        let Ok((status, kind)) = self.look() else {
            return -1;
        };
        let elsewhere = self.has(ONE_SYSTEM) && status.st_dev != self.device;
        let result = match kind {
            Kind::Unknown => self.visit(&status, kind),
            _ if elsewhere => 0,
            Kind::Directory => match self.is_new(&status) {
                Ok(true) => self.directory(&status),
                Ok(false) => 0,
                Err(()) => -1,
            },
            _ => self.visit(&status, kind),
        };
        if self.has(ACTIONS) && result == SKIP_SUBTREE {
            0
        } else {
            result
        }
    }
}

fn close(stream: *mut DIR) {
    let before = errno();
    // SAFETY: the stream is open, and not used again.
    unsafe { closedir(stream) };
    set_errno(before);
}

/// Whether the object at `root` is in the catalog, and listed there if it is a directory.
pub(crate) fn is_covered(root: *const c_char) -> bool {
    with_target(Family::List, AT_FDCWD, root, NO_FOLLOW, |outcome| {
        if let Outcome::Found(found) = &outcome {
            found.count_answered(false);
        }
        matches!(outcome, Outcome::Found(_))
    })
}

/// Walks a covered tree with `depth` descriptors, as libc is told; `None` where libc is to walk.
fn walk(
    root: *const c_char,
    visitor: *const c_void,
    depth: c_int,
    flags: c_int,
    simple: bool,
) -> Option<c_int> {
    let given = text(root).filter(|root| !root.is_empty())?;
    let before = errno();
    if visitor.is_null() || flags & !ALL_FLAGS != 0 || given.len() >= ROOM || !is_covered(root) {
        set_errno(before);
        return None;
    }
    let slashes = given.iter().rev().take_while(|&&byte| byte == b'/').count();
    let length = (given.len() - slashes).max(1);
    let base = given[..length]
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    let mut walk = Walk {
        // SAFETY: libc's contract: a function of this type, or of its first three arguments.
        visitor: unsafe { core::mem::transmute::<*const c_void, Visitor>(visitor) },
        flags,
        simple,
        position: Position {
            base: base as c_int,
            level: 0,
        },
        path: [0; ROOM],
        length,
        device: 0,
        visited: null_mut(),
        start: None,
        open_most: depth.max(1),
        closed: -1,
    };
    walk.path[..length].copy_from_slice(&given[..length]);
    Some(if walk.has(CHANGE_DIRECTORY) {
        walk.begin_there()
    } else {
        walk.begin()
    })
}

/// libc's walk from a relative path begins at the origin's working directory.
pub(crate) fn before_walk(root: *const c_char) {
    if text(root).is_some_and(|root| root[0] != b'/') {
        leave_store();
    }
}

/// Defines the names of `ftw` and `nftw`.
macro_rules! walk_hooks {
    ($($simple:ident $name:ident)*) => {$(
        hooks! {
            fn $simple(root: *const c_char, visit: *const c_void, depth: c_int) -> c_int {
                walk(root, visit, depth, 0, true).unwrap_or_else(|| {
                    before_walk(root);
                    original!(
                        fn $simple(
                            root: *const c_char, visit: *const c_void, depth: c_int,
                        ) -> c_int;
                        or -1
                    )
                })
            }

            fn $name(
                root: *const c_char,
                visit: *const c_void,
                depth: c_int,
                flags: c_int,
            ) -> c_int {
                walk(root, visit, depth, flags, false).unwrap_or_else(|| {
                    before_walk(root);
                    original!(
                        fn $name(
                            root: *const c_char, visit: *const c_void, depth: c_int,
                            flags: c_int,
                        ) -> c_int;
                        or -1
                    )
                })
            }
        }
    )*};
}

walk_hooks! { ftw nftw ftw64 nftw64 }
