//! The public structures of `<fts.h>`, and what stands in them.

use super::place::close_raw;
use core::ffi::{c_char, c_int, c_long, c_void};
use libc::stat as Status;

/// `FTS_COMFOLLOW`: links among the roots are followed.
pub(super) const FOLLOW_ROOTS: c_int = 0x01;
/// `FTS_LOGICAL`: all links are followed.
pub(super) const LOGICAL: c_int = 0x02;
/// `FTS_NOCHDIR`: the working directory stays.
pub(super) const STAY: c_int = 0x04;
/// `FTS_NOSTAT`: attributes are not wanted.
pub(super) const NO_ATTRIBUTES: c_int = 0x08;
/// `FTS_PHYSICAL`: links are reported.
pub(super) const PHYSICAL: c_int = 0x10;
/// `FTS_SEEDOT`: `.` and `..` are reported.
pub(super) const SEE_DOT: c_int = 0x20;
/// `FTS_XDEV`: the walk stays on the file system of its root.
pub(super) const ONE_SYSTEM: c_int = 0x40;
/// All that a caller may ask for.
pub(super) const ALL_OPTIONS: c_int = 0xff;
/// The children at hand have no attributes: they were asked for by name only.
pub(super) const NAMES_ONLY: c_int = 0x100;
/// The walk cannot go on.
pub(super) const STOPPED: c_int = 0x200;

/// The level of what the roots hang on, and of the roots.
pub(super) const ABOVE_ROOTS: i16 = -1;
pub(super) const ROOT: i16 = 0;

/// What an entry is: `fts_info`.
pub(super) mod info {
    pub(in crate::fts) const DIRECTORY: u16 = 1;
    pub(in crate::fts) const CYCLE: u16 = 2;
    pub(in crate::fts) const OTHER: u16 = 3;
    pub(in crate::fts) const UNREADABLE: u16 = 4;
    pub(in crate::fts) const DOT: u16 = 5;
    pub(in crate::fts) const DIRECTORY_AFTER: u16 = 6;
    pub(in crate::fts) const ERROR: u16 = 7;
    pub(in crate::fts) const FILE: u16 = 8;
    pub(in crate::fts) const BEGINNING: u16 = 9;
    pub(in crate::fts) const NO_ATTRIBUTES: u16 = 10;
    pub(in crate::fts) const NOT_ASKED: u16 = 11;
    pub(in crate::fts) const LINK: u16 = 12;
    pub(in crate::fts) const DANGLING_LINK: u16 = 13;
}

/// What is to be done with an entry: `fts_instr`.
pub(super) mod instruction {
    pub(in crate::fts) const AGAIN: u16 = 1;
    pub(in crate::fts) const FOLLOW: u16 = 2;
    pub(in crate::fts) const NONE: u16 = 3;
    pub(in crate::fts) const SKIP: u16 = 4;
}

/// In `fts_flags`: the directory was not entered, so it need not be left.
pub(super) const NOT_ENTERED: u16 = 1;
/// In `fts_flags`: entered by a link; `fts_symfd` leads back.
pub(super) const BY_LINK: u16 = 2;

/// Paths are this long at most: their lengths have 16 bits.
pub(super) const LONGEST: usize = u16::MAX as usize;
/// Room for the path of an entry, with its NUL.
pub(super) const ROOM: usize = LONGEST + 1;

/// `FTSENT`.
#[repr(C)]
pub(super) struct Entry {
    pub(super) cycle: *mut Entry,
    pub(super) parent: *mut Entry,
    pub(super) link: *mut Entry,
    _number: c_long,
    _pointer: *mut c_void,
    pub(super) access_path: *mut c_char,
    pub(super) path: *mut c_char,
    pub(super) error: c_int,
    pub(super) way_back: c_int,
    pub(super) path_length: u16,
    pub(super) name_length: u16,
    pub(super) inode: libc::ino_t,
    pub(super) device: libc::dev_t,
    pub(super) links: libc::nlink_t,
    pub(super) level: i16,
    pub(super) info: u16,
    pub(super) flags: u16,
    pub(super) instruction: u16,
    pub(super) status: *mut Status,
    pub(super) name: [c_char; 1],
}

pub(super) type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;

/// `FTS`.
#[repr(C)]
pub(super) struct Walk {
    pub(super) current: *mut Entry,
    pub(super) children: *mut Entry,
    /// libc's list to sort in; of a walk of ours, the walk itself.
    pub(super) this: *mut Walk,
    pub(super) device: libc::dev_t,
    pub(super) path: *mut c_char,
    pub(super) root: c_int,
    pub(super) _room: c_int,
    pub(super) _count: c_int,
    pub(super) compare: Option<Compare>,
    pub(super) options: c_int,
}

pub(super) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

impl Entry {
    pub(super) fn name(&self) -> *mut c_char {
        self.name.as_ptr().cast_mut()
    }

    pub(super) fn name_bytes(&self) -> &[u8] {
        let length = usize::from(self.name_length);
        // SAFETY: `Walk::entry` made room for the name, and nothing lengthens it.
        unsafe { core::slice::from_raw_parts(self.name.as_ptr().cast(), length) }
    }

    /// Where the names of what is in this directory begin in the path: behind a slash.
    pub(super) fn end(&self) -> usize {
        let length = usize::from(self.path_length);
        // SAFETY: the path is as long as the entry says.
        let ends_in_slash = length > 0 && unsafe { *self.path.add(length - 1) } == b'/' as c_char;
        length - usize::from(ends_in_slash)
    }

    pub(super) fn forget_way_back(&mut self) {
        if self.flags & BY_LINK != 0 {
            close_raw(self.way_back);
            self.flags &= !BY_LINK;
        }
    }
}
