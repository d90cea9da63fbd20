//! The steps of a walk: down into a directory, on to the next entry, up again.

use super::entries::free_list;
use super::place::{close_raw, open_here};
use super::reading::Purpose;
use super::structures::{
    ABOVE_ROOTS, BY_LINK, Entry, NAMES_ONLY, NOT_ENTERED, ONE_SYSTEM, ROOT, STAY, STOPPED, Walk,
    info, instruction,
};
use crate::cwd::fchdir;
use crate::sys::{errno, set_errno};
use core::ffi::{c_char, c_int};
use core::ptr::null_mut;

impl Walk {
    pub(super) fn stop(&mut self) -> *mut Entry {
        self.options |= STOPPED;
        null_mut()
    }

    /// Ends what could not go on, with an error for the caller.
    pub(super) fn give_up(&mut self, entry: &mut Entry, error: c_int) -> *mut Entry {
        entry.info = info::ERROR;
        set_errno(error);
        self.stop()
    }

    /// Follows the link that the walk is at, and remembers the way back.
    pub(super) fn follow(&self, entry: &mut Entry) {
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
    pub(super) fn next(&mut self) -> *mut Entry {
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

    pub(super) fn forget_children(&mut self) {
        // SAFETY: nothing else links the children.
        unsafe { free_list(core::mem::replace(&mut self.children, null_mut())) };
    }

    /// Goes to the first entry of a directory, or says that there is none.
    pub(super) fn downwards(&mut self, entry: &mut Entry) -> *mut Entry {
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
    pub(super) fn onwards(&mut self) -> *mut Entry {
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
    pub(super) fn upwards(&mut self) -> *mut Entry {
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
    pub(super) fn list(&mut self, names_only: bool) -> *mut Entry {
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
}
