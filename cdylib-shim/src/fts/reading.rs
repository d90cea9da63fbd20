//! A directory of a walk: its entries, read in one go.

use super::entries::free_list;
use super::structures::{
    Entry, LONGEST, NO_ATTRIBUTES, NOT_ENTERED, PHYSICAL, SEE_DOT, STAY, Walk, info, is_dot,
};
use crate::directory::{closedir, dirfd, opendir, readdir};
use crate::sys::errno;
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use libc::{DIR, DT_DIR, DT_UNKNOWN, dirent};

/// For what a directory is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The walk goes on into it.
    Walk,
    /// The caller asks for its entries.
    Children,
    /// The caller asks for its entries' names.
    Names,
}

impl Walk {
    /// Reads the directory that the walk is at; null where there is nothing, or nothing to be read.
    pub(super) fn build(&mut self, purpose: Purpose) -> *mut Entry {
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

    pub(super) fn nothing(&self, current: &mut Entry, purpose: Purpose) -> *mut Entry {
        if purpose == Purpose::Walk {
            current.info = info::DIRECTORY_AFTER;
        }
        null_mut()
    }

    /// Makes entries of what is in a directory, and closes its stream.
    pub(super) fn read(
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
    pub(super) fn look_in_directory(
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
}
