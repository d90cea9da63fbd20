//! `fts`, which walks a tree inside libc: a walk of which a root is covered is made here, over our
//! own hooks, so that it sees the catalog; every other walk is libc's.
//!
//! The structures are the public ones of `<fts.h>`. A walk of ours has its own address where libc's
//! has a list or nothing, so that both kinds can be told apart. `fts_set` only writes to an entry,
//! which is the same for both. One file, because it is one machine of states: what goes down, on and up
//! shares every field.

use crate::cwd::{fchdir, fchdir_within};
use crate::directory::{closedir, dirfd, opendir, readdir};
use crate::open::open;
use crate::original::{hooks, original};
use crate::stat::{fstat, lstat, stat};
use crate::sys::{call, errno, set_errno};
use crate::target::text;
use crate::walk::{before_walk, is_covered};
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use libc::{DIR, DT_DIR, DT_UNKNOWN, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, dirent, stat as Status};

/// `FTS_COMFOLLOW`: links among the roots are followed.
const FOLLOW_ROOTS: c_int = 0x01;
/// `FTS_LOGICAL`: all links are followed.
const LOGICAL: c_int = 0x02;
/// `FTS_NOCHDIR`: the working directory stays.
const STAY: c_int = 0x04;
/// `FTS_NOSTAT`: attributes are not wanted.
const NO_ATTRIBUTES: c_int = 0x08;
/// `FTS_PHYSICAL`: links are reported.
const PHYSICAL: c_int = 0x10;
/// `FTS_SEEDOT`: `.` and `..` are reported.
const SEE_DOT: c_int = 0x20;
/// `FTS_XDEV`: the walk stays on the file system of its root.
const ONE_SYSTEM: c_int = 0x40;
/// All that a caller may ask for.
const ALL_OPTIONS: c_int = 0xff;
/// The children at hand have no attributes: they were asked for by name only.
const NAMES_ONLY: c_int = 0x100;
/// The walk cannot go on.
const STOPPED: c_int = 0x200;

/// The level of what the roots hang on, and of the roots.
const ABOVE_ROOTS: i16 = -1;
const ROOT: i16 = 0;

/// What an entry is: `fts_info`.
mod info {
    pub(super) const DIRECTORY: u16 = 1;
    pub(super) const CYCLE: u16 = 2;
    pub(super) const OTHER: u16 = 3;
    pub(super) const UNREADABLE: u16 = 4;
    pub(super) const DOT: u16 = 5;
    pub(super) const DIRECTORY_AFTER: u16 = 6;
    pub(super) const ERROR: u16 = 7;
    pub(super) const FILE: u16 = 8;
    pub(super) const BEGINNING: u16 = 9;
    pub(super) const NO_ATTRIBUTES: u16 = 10;
    pub(super) const NOT_ASKED: u16 = 11;
    pub(super) const LINK: u16 = 12;
    pub(super) const DANGLING_LINK: u16 = 13;
}

/// What is to be done with an entry: `fts_instr`.
mod instruction {
    pub(super) const AGAIN: u16 = 1;
    pub(super) const FOLLOW: u16 = 2;
    pub(super) const NONE: u16 = 3;
    pub(super) const SKIP: u16 = 4;
}

/// In `fts_flags`: the directory was not entered, so it need not be left.
const NOT_ENTERED: u16 = 1;
/// In `fts_flags`: entered by a link; `fts_symfd` leads back.
const BY_LINK: u16 = 2;

/// Paths are this long at most: their lengths have 16 bits.
const LONGEST: usize = u16::MAX as usize;
/// Room for the path of an entry, with its NUL.
const ROOM: usize = LONGEST + 1;

/// `FTSENT`.
#[repr(C)]
struct Entry {
    cycle: *mut Entry,
    parent: *mut Entry,
    link: *mut Entry,
    _number: c_long,
    _pointer: *mut c_void,
    access_path: *mut c_char,
    path: *mut c_char,
    error: c_int,
    way_back: c_int,
    path_length: u16,
    name_length: u16,
    inode: libc::ino_t,
    device: libc::dev_t,
    links: libc::nlink_t,
    level: i16,
    info: u16,
    flags: u16,
    instruction: u16,
    status: *mut Status,
    name: [c_char; 1],
}

type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;

/// `FTS`.
#[repr(C)]
struct Walk {
    current: *mut Entry,
    children: *mut Entry,
    /// libc's list to sort in; of a walk of ours, the walk itself.
    this: *mut Walk,
    device: libc::dev_t,
    path: *mut c_char,
    root: c_int,
    _room: c_int,
    _count: c_int,
    compare: Option<Compare>,
    options: c_int,
}

/// For what a directory is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The walk goes on into it.
    Walk,
    /// The caller asks for its entries.
    Children,
    /// The caller asks for its entries' names.
    Names,
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

fn close_raw(descriptor: c_int) {
    // SAFETY: a descriptor of the walk's own.
    unsafe { call!(libc::SYS_close, descriptor) };
}

fn open_here() -> c_int {
    // SAFETY: the path is NUL-terminated.
    unsafe { open(c".".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0) }
}

impl Entry {
    fn name(&self) -> *mut c_char {
        self.name.as_ptr().cast_mut()
    }

    fn name_bytes(&self) -> &[u8] {
        let length = usize::from(self.name_length);
        // SAFETY: `Walk::entry` made room for the name, and nothing lengthens it.
        unsafe { core::slice::from_raw_parts(self.name.as_ptr().cast(), length) }
    }

    /// Where the names of what is in this directory begin in the path: behind a slash.
    fn end(&self) -> usize {
        let length = usize::from(self.path_length);
        // SAFETY: the path is as long as the entry says.
        let ends_in_slash = length > 0 && unsafe { *self.path.add(length - 1) } == b'/' as c_char;
        length - usize::from(ends_in_slash)
    }

    fn forget_way_back(&mut self) {
        if self.flags & BY_LINK != 0 {
            close_raw(self.way_back);
            self.flags &= !BY_LINK;
        }
    }
}

/// Frees a list of entries.
///
/// # Safety
/// The list is the walk's, and not used again.
unsafe fn free_list(mut entry: *mut Entry) {
    while !entry.is_null() {
        // SAFETY: as the caller says.
        unsafe {
            let next = (*entry).link;
            libc::free(entry.cast());
            entry = next;
        }
    }
}

/// All entries that a walk links are alive until it frees them, and it frees what nothing links
/// any more; only its caller's thread uses them. This is what makes every look at an entry sound.
impl Walk {
    fn has(&self, option: c_int) -> bool {
        self.options & option != 0
    }

    /// Allocates an entry; null where memory is short.
    fn entry(&self, name: &[u8]) -> *mut Entry {
        let align = align_of::<Status>();
        let size = (size_of::<Entry>() + name.len() + 1).next_multiple_of(align);
        // SAFETY: plain allocation; all that is written lies within it.
        unsafe {
            let entry = libc::calloc(1, size + size_of::<Status>()).cast::<Entry>();
            if entry.is_null() {
                return entry;
            }
            (*entry).path = self.path;
            (*entry).instruction = instruction::NONE;
            (*entry).name_length = name.len() as u16;
            (*entry).status = entry.byte_add(size).cast();
            core::ptr::copy_nonoverlapping(name.as_ptr().cast(), (*entry).name(), name.len());
            entry
        }
    }

    /// Learns what an entry is.
    fn look(&self, entry: &mut Entry, follow: bool) -> u16 {
        let status = entry.status;
        // SAFETY: the entry's own path, and the room for attributes that it came with.
        unsafe {
            let follows = self.has(LOGICAL) || follow;
            let found = if follows {
                stat(entry.access_path, status)
            } else {
                lstat(entry.access_path, status)
            };
            if found != 0 {
                let error = errno();
                if follows && lstat(entry.access_path, status) == 0 {
                    set_errno(0);
                    return info::DANGLING_LINK;
                }
                entry.error = error;
                status.write(MaybeUninit::zeroed().assume_init());
                return info::NO_ATTRIBUTES;
            }
            match (*status).st_mode & S_IFMT {
                S_IFDIR => self.look_at_directory(entry),
                S_IFLNK => info::LINK,
                S_IFREG => info::FILE,
                _ => info::OTHER,
            }
        }
    }

    fn look_at_directory(&self, entry: &mut Entry) -> u16 {
        // SAFETY: the attributes were filled; the parents are the walk's entries.
        unsafe {
            let status = &*entry.status;
            entry.device = status.st_dev;
            entry.inode = status.st_ino;
            entry.links = status.st_nlink;
            if is_dot(entry.name_bytes()) {
                return info::DOT;
            }
            let mut above = entry.parent;
            while (*above).level >= ROOT {
                if (*above).inode == entry.inode && (*above).device == entry.device {
                    entry.cycle = above;
                    return info::CYCLE;
                }
                above = (*above).parent;
            }
        }
        info::DIRECTORY
    }

    /// Moves into the directory `entry` through `path` or, where that is none, `descriptor`; refuses
    /// where another directory is there by now.
    fn enter(&self, entry: &Entry, descriptor: c_int, path: *const c_char) -> bool {
        if self.has(STAY) {
            return true;
        }
        let mut status = MaybeUninit::<Status>::zeroed();
        // SAFETY: the path is NUL-terminated; `status` is zeroed, which is a valid one.
        unsafe {
            let opened = if path.is_null() {
                descriptor
            } else {
                open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0)
            };
            if opened < 0 {
                return false;
            }
            let looked = fstat(opened, status.as_mut_ptr()) == 0;
            let status = status.assume_init();
            let is_same = status.st_dev == entry.device && status.st_ino == entry.inode;
            if looked && !is_same {
                set_errno(libc::ENOENT);
            }
            let entered = looked && is_same && fchdir_within(opened) == 0;
            if !path.is_null() {
                let error = errno();
                close_raw(opened);
                set_errno(error);
            }
            entered
        }
    }

    /// Moves back to where the walk began.
    fn enter_root(&self) -> bool {
        // SAFETY: the walk's own descriptor.
        self.has(STAY) || unsafe { fchdir(self.root) } == 0
    }

    fn stop(&mut self) -> *mut Entry {
        self.options |= STOPPED;
        null_mut()
    }

    /// Ends what could not go on, with an error for the caller.
    fn give_up(&mut self, entry: &mut Entry, error: c_int) -> *mut Entry {
        entry.info = info::ERROR;
        set_errno(error);
        self.stop()
    }

    /// Sorts a list as the caller wants it. Where memory is short it stays as it is.
    fn sorted(&mut self, head: *mut Entry, count: usize) -> *mut Entry {
        let Some(compare) = self.compare.filter(|_| count > 1) else {
            return head;
        };
        // SAFETY: the list has `count` entries; the caller's function compares two of them.
        unsafe {
            let list = libc::malloc(count * size_of::<*mut Entry>()).cast::<*mut Entry>();
            if list.is_null() {
                return head;
            }
            let mut entry = head;
            for place in 0..count {
                *list.add(place) = entry;
                entry = (*entry).link;
            }
            libc::qsort(list.cast(), count, size_of::<*mut Entry>(), Some(compare));
            let head = *list;
            for place in 0..count {
                let is_last = place + 1 == count;
                (**list.add(place)).link = if is_last {
                    null_mut()
                } else {
                    *list.add(place + 1)
                };
            }
            libc::free(list.cast());
            head
        }
    }

    /// Writes an entry's name into the path, behind its directory's.
    fn write_name(&self, entry: &Entry) {
        // SAFETY: `Walk::read` checked that the path has room for it, with its NUL.
        unsafe {
            let end = (*entry.parent).end();
            *self.path.add(end) = b'/' as c_char;
            let length = usize::from(entry.name_length) + 1;
            core::ptr::copy(entry.name.as_ptr(), self.path.add(end + 1), length);
        }
    }

    /// Begins with a root: its path is the whole path.
    fn load(&mut self, entry: &mut Entry) {
        let length = usize::from(entry.name_length);
        entry.path_length = entry.name_length;
        // SAFETY: `begin` checked that the path has room for every root, with its NUL.
        unsafe {
            core::ptr::copy(entry.name.as_ptr(), self.path, length + 1);
            let last = entry.name_bytes().iter().rposition(|&byte| byte == b'/');
            if let Some(slash) = last.filter(|&slash| slash != 0 || length > 1) {
                core::ptr::copy(entry.name().add(slash + 1), entry.name(), length - slash);
                entry.name_length = (length - slash - 1) as u16;
            }
        }
        entry.path = self.path;
        entry.access_path = self.path;
        self.device = entry.device;
    }

    /// Reads the directory that the walk is at; null where there is nothing, or nothing to be read.
    fn build(&mut self, purpose: Purpose) -> *mut Entry {
        // SAFETY: the walk is at an entry; its access path is NUL-terminated.
        let (current, stream) = unsafe {
            let current = &mut *self.current;
            let stream = opendir(current.access_path);
            (current, stream)
        };
        if stream.is_null() {
            if purpose == Purpose::Walk {
                current.info = info::UNREADABLE;
                current.error = errno();
            }
            return null_mut();
        }
        // The number of directories to come, where that is known and they alone are of interest.
        let mut directories = match purpose {
            Purpose::Names => Some(0),
            _ if self.has(NO_ATTRIBUTES) && self.has(PHYSICAL) => {
                let dots = if self.has(SEE_DOT) { 0 } else { 2 };
                usize::try_from(current.links as i64 - dots).ok()
            }
            _ => None,
        };
        let enters = directories != Some(0) || purpose == Purpose::Walk;
        if enters && !self.has(STAY) {
            // SAFETY: the stream is open.
            let descriptor = unsafe { dirfd(stream) };
            if !self.enter(current, descriptor, core::ptr::null()) {
                if directories != Some(0) && purpose == Purpose::Walk {
                    current.error = errno();
                }
                current.flags |= NOT_ENTERED;
                // SAFETY: the stream is open, and not used again.
                unsafe { closedir(stream) };
                return self.nothing(current, purpose);
            }
        }
        let (head, count) = match self.read(current, stream, &mut directories) {
            Ok(read) => read,
            Err(error) => return self.give_up(current, error),
        };
        let goes_back = enters && (purpose == Purpose::Children || head.is_null());
        if goes_back && !self.leave(current) {
            current.info = info::ERROR;
            return self.stop();
        }
        if head.is_null() {
            return self.nothing(current, purpose);
        }
        self.sorted(head, count)
    }

    fn nothing(&self, current: &mut Entry, purpose: Purpose) -> *mut Entry {
        if purpose == Purpose::Walk {
            current.info = info::DIRECTORY_AFTER;
        }
        null_mut()
    }

    /// Moves to the directory that `entry` is in.
    fn leave(&self, entry: &Entry) -> bool {
        if entry.level == ROOT {
            self.enter_root()
        } else {
            // SAFETY: an entry that is no root has a parent.
            self.enter(unsafe { &*entry.parent }, -1, c"..".as_ptr())
        }
    }

    /// Makes entries of what is in a directory, and closes its stream.
    fn read(
        &mut self,
        current: &Entry,
        stream: *mut DIR,
        directories: &mut Option<usize>,
    ) -> Result<(*mut Entry, usize), c_int> {
        let start = current.end() + 1;
        let (mut head, mut tail, mut count) = (null_mut::<Entry>(), null_mut::<Entry>(), 0);
        let mut result = Ok(());
        // SAFETY: the stream is open and its entries' names are NUL-terminated; what is written to
        // the path fits, which is checked first.
        unsafe {
            if self.has(STAY) {
                *self.path.add(start - 1) = b'/' as c_char;
            }
            loop {
                let listed = readdir(stream);
                if listed.is_null() {
                    break;
                }
                let name = CStr::from_ptr((*listed).d_name.as_ptr()).to_bytes();
                if is_dot(name) && !self.has(SEE_DOT) {
                    continue;
                }
                let entry = if start + name.len() < LONGEST {
                    self.entry(name)
                } else {
                    result = Err(libc::ENAMETOOLONG);
                    break;
                };
                if entry.is_null() {
                    result = Err(libc::ENOMEM);
                    break;
                }
                (*entry).level = current.level.wrapping_add(1);
                (*entry).parent = self.current;
                (*entry).path_length = (start + name.len()) as u16;
                self.look_in_directory(&mut *entry, &*listed, start, directories);
                if head.is_null() {
                    head = entry;
                } else {
                    (*tail).link = entry;
                }
                tail = entry;
                count += 1;
            }
            closedir(stream);
            if let Err(error) = result {
                free_list(head);
                return Err(error);
            }
            if self.has(STAY) {
                *self.path.add(start - usize::from(head.is_null())) = 0;
            }
        }
        Ok((head, count))
    }

    /// Learns what the new entry of a directory is, where that is wanted.
    fn look_in_directory(
        &self,
        entry: &mut Entry,
        listed: &dirent,
        start: usize,
        directories: &mut Option<usize>,
    ) {
        entry.access_path = if self.has(STAY) {
            entry.path
        } else {
            entry.name()
        };
        let kind_is_enough = self.has(NO_ATTRIBUTES)
            && self.has(PHYSICAL)
            && !matches!(listed.d_type, DT_DIR | DT_UNKNOWN);
        if *directories == Some(0) || kind_is_enough {
            entry.info = info::NOT_ASKED;
            return;
        }
        if self.has(STAY) {
            let length = usize::from(entry.name_length) + 1;
            // SAFETY: `read` checked that the path has room for the name, with its NUL.
            unsafe {
                core::ptr::copy(entry.name.as_ptr(), self.path.add(start), length);
            }
        }
        entry.info = self.look(entry, false);
        let is_directory = matches!(entry.info, info::DIRECTORY | info::CYCLE | info::DOT);
        if let Some(left) = directories.as_mut().filter(|_| is_directory) {
            *left -= 1;
        }
    }

    /// Follows the link that the walk is at, and remembers the way back.
    fn follow(&self, entry: &mut Entry) {
        entry.info = self.look(entry, true);
        if entry.info == info::DIRECTORY && !self.has(STAY) {
            entry.way_back = open_here();
            if entry.way_back < 0 {
                entry.error = errno();
                entry.info = info::ERROR;
            } else {
                entry.flags |= BY_LINK;
            }
        }
    }

    /// `fts_read`.
    fn next(&mut self) -> *mut Entry {
        if self.current.is_null() || self.has(STOPPED) {
            return null_mut();
        }
        // SAFETY: the walk is at an entry of its own.
        let entry = unsafe { &mut *self.current };
        let wanted = core::mem::replace(&mut entry.instruction, instruction::NONE);
        let is_link = matches!(entry.info, info::LINK | info::DANGLING_LINK);
        if wanted == instruction::AGAIN {
            entry.info = self.look(entry, false);
            return entry;
        }
        if wanted == instruction::FOLLOW && is_link {
            self.follow(entry);
            return entry;
        }
        if entry.info != info::DIRECTORY {
            return self.onwards();
        }
        let elsewhere = self.has(ONE_SYSTEM) && entry.device != self.device;
        if wanted == instruction::SKIP || elsewhere {
            entry.forget_way_back();
            self.forget_children();
            entry.info = info::DIRECTORY_AFTER;
            return entry;
        }
        self.downwards(entry)
    }

    fn forget_children(&mut self) {
        // SAFETY: nothing else links the children.
        unsafe { free_list(core::mem::replace(&mut self.children, null_mut())) };
    }

    /// Goes to the first entry of a directory, or says that there is none.
    fn downwards(&mut self, entry: &mut Entry) -> *mut Entry {
        if !self.children.is_null() && self.has(NAMES_ONLY) {
            self.options &= !NAMES_ONLY;
            self.forget_children();
        }
        if self.children.is_null() {
            self.children = self.build(Purpose::Walk);
            if self.children.is_null() {
                return if self.has(STOPPED) { null_mut() } else { entry };
            }
        } else if !self.enter(entry, -1, entry.access_path) {
            // They are reached by the path of the directory that could not be entered.
            entry.error = errno();
            entry.flags |= NOT_ENTERED;
            let mut child = self.children;
            while !child.is_null() {
                // SAFETY: the children are the walk's.
                unsafe {
                    (*child).access_path = (*(*child).parent).access_path;
                    child = (*child).link;
                }
            }
        }
        self.current = core::mem::replace(&mut self.children, null_mut());
        // SAFETY: just read.
        self.write_name(unsafe { &*self.current });
        self.current
    }

    /// Goes to the next entry of a directory, or up.
    fn onwards(&mut self) -> *mut Entry {
        loop {
            // SAFETY: the walk is at an entry of its own; the one left behind is linked by nothing.
            let entry = unsafe {
                let done = self.current;
                let next = (*done).link;
                if next.is_null() {
                    return self.upwards();
                }
                libc::free(done.cast());
                self.current = next;
                &mut *next
            };
            if entry.level == ROOT {
                if !self.enter_root() {
                    return self.stop();
                }
                self.load(entry);
                return entry;
            }
            match entry.instruction {
                instruction::SKIP => continue,
                instruction::FOLLOW => {
                    self.follow(entry);
                    entry.instruction = instruction::NONE;
                }
                _ => {}
            }
            self.write_name(entry);
            return entry;
        }
    }

    /// Goes back to the directory whose last entry the walk is at, or ends.
    fn upwards(&mut self) -> *mut Entry {
        // SAFETY: the walk is at an entry of its own, below another; nothing links it any more.
        let entry = unsafe {
            let done = self.current;
            self.current = (*done).parent;
            libc::free(done.cast());
            &mut *self.current
        };
        if entry.level == ABOVE_ROOTS {
            self.current = null_mut();
            // SAFETY: nothing is below it any more.
            unsafe { libc::free(core::ptr::from_mut(entry).cast()) };
            set_errno(0);
            return null_mut();
        }
        // SAFETY: the path is as long as the entry says.
        unsafe { *self.path.add(usize::from(entry.path_length)) = 0 };
        let is_back = if entry.level == ROOT {
            self.enter_root()
        } else if entry.flags & BY_LINK != 0 {
            // SAFETY: the entry's own descriptor.
            let is_back = self.has(STAY) || unsafe { fchdir(entry.way_back) } == 0;
            let error = errno();
            entry.forget_way_back();
            set_errno(error);
            is_back
        } else {
            entry.flags & NOT_ENTERED != 0 || self.leave(entry)
        };
        if !is_back {
            return self.stop();
        }
        entry.info = if entry.error == 0 {
            info::DIRECTORY_AFTER
        } else {
            info::ERROR
        };
        entry
    }

    /// `fts_children`.
    fn list(&mut self, names_only: bool) -> *mut Entry {
        set_errno(0);
        if self.current.is_null() || self.has(STOPPED) {
            return null_mut();
        }
        // SAFETY: the walk is at an entry of its own.
        let entry = unsafe { &*self.current };
        match entry.info {
            info::BEGINNING => return entry.link,
            info::DIRECTORY => {}
            _ => return null_mut(),
        }
        self.forget_children();
        let purpose = if names_only {
            self.options |= NAMES_ONLY;
            Purpose::Names
        } else {
            Purpose::Children
        };
        // SAFETY: the access path is NUL-terminated.
        let is_absolute = unsafe { *entry.access_path } == b'/' as c_char;
        if entry.level != ROOT || is_absolute || self.has(STAY) {
            self.children = self.build(purpose);
            return self.children;
        }
        // The way back from a relative root is not "..".
        let here = open_here();
        if here < 0 {
            return null_mut();
        }
        self.children = self.build(purpose);
        // SAFETY: just opened.
        let is_back = unsafe { fchdir(here) } == 0;
        close_raw(here);
        if is_back { self.children } else { null_mut() }
    }

    /// `fts_close`: frees the walk, and moves back to where it began.
    fn end(this: *mut Walk) -> c_int {
        // SAFETY: the caller gives up the walk, and all entries are its own.
        unsafe {
            let walk = &mut *this;
            walk.this = null_mut();
            let mut entry = walk.current;
            while !entry.is_null() {
                let is_last = (*entry).level < ROOT;
                let next = if (*entry).link.is_null() {
                    (*entry).parent
                } else {
                    (*entry).link
                };
                (*entry).forget_way_back();
                libc::free(entry.cast());
                entry = if is_last { null_mut() } else { next };
            }
            walk.forget_children();
            let is_back = walk.enter_root();
            let error = errno();
            if !walk.has(STAY) {
                close_raw(walk.root);
            }
            libc::free(walk.path.cast());
            libc::free(this.cast());
            set_errno(error);
            if is_back { 0 } else { -1 }
        }
    }
}

/// Begins a walk at the caller's NULL-terminated list of roots, none of them empty.
///
/// # Safety
/// `roots` must be such a list.
unsafe fn begin(
    roots: *const *const c_char,
    options: c_int,
    compare: Option<Compare>,
) -> *mut Walk {
    let stays = if options & LOGICAL != 0 { STAY } else { 0 };
    // SAFETY: plain allocations, null where they fail; the list is as the caller says.
    unsafe {
        let walk = libc::calloc(1, size_of::<Walk>()).cast::<Walk>();
        let path = libc::calloc(1, ROOM).cast::<c_char>();
        if walk.is_null() || path.is_null() {
            libc::free(walk.cast());
            libc::free(path.cast());
            set_errno(libc::ENOMEM);
            return null_mut();
        }
        *walk = Walk {
            current: null_mut(),
            children: null_mut(),
            this: walk,
            device: 0,
            path,
            root: -1,
            _room: ROOM as c_int,
            _count: 0,
            compare,
            options: options | stays,
        };
        let this = &mut *walk;
        let above = this.entry(b"");
        let first = this.entry(b"");
        let list = if above.is_null() || first.is_null() {
            Err(())
        } else {
            (*above).level = ABOVE_ROOTS;
            (*first).parent = above;
            (*first).info = info::BEGINNING;
            this.current = first;
            make_roots(this, roots, above)
        };
        match list {
            Ok(list) => (*first).link = list,
            Err(()) => {
                if this.current.is_null() {
                    libc::free(above.cast());
                    libc::free(first.cast());
                }
                this.options |= STAY;
                Walk::end(walk);
                set_errno(libc::ENOMEM);
                return null_mut();
            }
        }
        if !this.has(STAY) {
            this.root = open_here();
            if this.root < 0 {
                this.options |= STAY;
            }
        }
        walk
    }
}

/// Makes the roots' entries, in the caller's order.
///
/// # Safety
/// As of [`begin`]; `above` is what they hang on.
unsafe fn make_roots(
    walk: &mut Walk,
    roots: *const *const c_char,
    above: *mut Entry,
) -> Result<*mut Entry, ()> {
    let (mut head, mut tail, mut count) = (null_mut::<Entry>(), null_mut::<Entry>(), 0);
    // SAFETY: the list is as the caller says, and the entries are the walk's.
    unsafe {
        while let Some(root) = roots.add(count).as_ref().filter(|root| !root.is_null()) {
            let entry = walk.entry(CStr::from_ptr(*root).to_bytes());
            if entry.is_null() {
                free_list(head);
                return Err(());
            }
            (*entry).level = ROOT;
            (*entry).parent = above;
            (*entry).access_path = (*entry).name();
            (*entry).info = match walk.look(&mut *entry, walk.has(FOLLOW_ROOTS)) {
                // A root that is called "." is a directory like any other.
                info::DOT => info::DIRECTORY,
                other => other,
            };
            // What is to be sorted is sorted from the last root to the first.
            if walk.compare.is_some() {
                (*entry).link = head;
                head = entry;
            } else if head.is_null() {
                head = entry;
            } else {
                (*tail).link = entry;
            }
            tail = entry;
            count += 1;
        }
    }
    Ok(walk.sorted(head, count))
}

/// The walk, if it is one of ours.
fn ours<'w>(walk: *mut c_void) -> Option<&'w mut Walk> {
    let walk = walk.cast::<Walk>();
    // SAFETY: the caller's FTS; libc's never has its own address there.
    unsafe { (!walk.is_null() && (*walk).this == walk).then(|| &mut *walk) }
}

/// Whether a walk is to be ours: its options and roots are good, and a root is covered.
///
/// # Safety
/// `roots` must be a NULL-terminated list of paths, or null.
unsafe fn takes(roots: *const *const c_char, options: c_int) -> bool {
    if roots.is_null() || options & !ALL_OPTIONS != 0 {
        return false;
    }
    let before = errno();
    let mut covered = false;
    let mut root = roots;
    // SAFETY: as the caller says.
    unsafe {
        while !(*root).is_null() {
            if !text(*root).is_some_and(|path| (1..LONGEST).contains(&path.len())) {
                set_errno(before);
                return false;
            }
            covered = covered || is_covered(*root);
            root = root.add(1);
        }
    }
    set_errno(before);
    covered
}

/// Defines the names of `fts`.
macro_rules! fts_hooks {
    ($($open:ident $read:ident $children:ident $close:ident)*) => {$(
        hooks! {
            fn $open(
                roots: *const *const c_char,
                options: c_int,
                compare: Option<Compare>,
            ) -> *mut c_void {
                // SAFETY: the caller's NULL-terminated list of paths.
                unsafe {
                    if takes(roots, options) {
                        return begin(roots, options, compare).cast();
                    }
                    let mut root = roots;
                    while !root.is_null() && !(*root).is_null() {
                        before_walk(*root);
                        root = root.add(1);
                    }
                }
                original!(
                    fn $open(
                        roots: *const *const c_char, options: c_int, compare: Option<Compare>,
                    ) -> *mut c_void;
                    or null_mut()
                )
            }

            fn $read(walk: *mut c_void) -> *mut c_void {
                match ours(walk) {
                    Some(walk) => walk.next().cast(),
                    None => original!(fn $read(walk: *mut c_void) -> *mut c_void; or null_mut()),
                }
            }

            fn $children(walk: *mut c_void, option: c_int) -> *mut c_void {
                match ours(walk) {
                    Some(walk) if matches!(option, 0 | NAMES_ONLY) => {
                        walk.list(option == NAMES_ONLY).cast()
                    }
                    Some(_) => {
                        set_errno(libc::EINVAL);
                        null_mut()
                    }
                    None => original!(
                        fn $children(walk: *mut c_void, option: c_int) -> *mut c_void;
                        or null_mut()
                    ),
                }
            }

            fn $close(walk: *mut c_void) -> c_int {
                match ours(walk) {
                    Some(walk) => Walk::end(walk),
                    None => original!(fn $close(walk: *mut c_void) -> c_int; or -1),
                }
            }
        }
    )*};
}

fts_hooks! {
    fts_open fts_read fts_children fts_close
    fts64_open fts64_read fts64_children fts64_close
}
