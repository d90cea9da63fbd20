//! The entries of a walk: how they are made, what is learnt of them, their order and their names.

use super::structures::{Entry, LOGICAL, ROOT, Walk, info, instruction, is_dot};
use crate::stat::{lstat, stat};
use crate::sys::{errno, set_errno};
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use libc::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, stat as Status};

/// Frees a list of entries.
///
/// # Safety
/// The list is the walk's, and not used again.
pub(super) unsafe fn free_list(mut entry: *mut Entry) {
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
    pub(super) fn has(&self, option: c_int) -> bool {
        self.options & option != 0
    }

    /// Allocates an entry; null where memory is short.
    pub(super) fn entry(&self, name: &[u8]) -> *mut Entry {
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
    pub(super) fn look(&self, entry: &mut Entry, follow: bool) -> u16 {
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

    pub(super) fn look_at_directory(&self, entry: &mut Entry) -> u16 {
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

    /// Sorts a list as the caller wants it. Where memory is short it stays as it is.
    pub(super) fn sorted(&mut self, head: *mut Entry, count: usize) -> *mut Entry {
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
    pub(super) fn write_name(&self, entry: &Entry) {
        // SAFETY: `Walk::read` checked that the path has room for it, with its NUL.
        unsafe {
            let end = (*entry.parent).end();
            *self.path.add(end) = b'/' as c_char;
            let length = usize::from(entry.name_length) + 1;
            core::ptr::copy(entry.name.as_ptr(), self.path.add(end + 1), length);
        }
    }

    /// Begins with a root: its path is the whole path.
    pub(super) fn load(&mut self, entry: &mut Entry) {
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
}
