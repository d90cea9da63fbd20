//! The working directory of a walk: most walks move along with it.

use super::structures::{Entry, ROOT, STAY, Walk};
use crate::cwd::{fchdir, fchdir_within};
use crate::open::open;
use crate::stat::fstat;
use crate::sys::{call, errno, set_errno};
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use libc::stat as Status;

pub(super) fn close_raw(descriptor: c_int) {
    // SAFETY: a descriptor of the walk's own.
    unsafe { call!(libc::SYS_close, descriptor) };
}

pub(super) fn open_here() -> c_int {
    // SAFETY: the path is NUL-terminated.
    unsafe { open(c".".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0) }
}

impl Walk {
    /// Moves into the directory `entry` through `path` or, where that is none, `descriptor`; refuses
    /// where another directory is there by now.
    pub(super) fn enter(&self, entry: &Entry, descriptor: c_int, path: *const c_char) -> bool {
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
    pub(super) fn enter_root(&self) -> bool {
        // SAFETY: the walk's own descriptor.
        self.has(STAY) || unsafe { fchdir(self.root) } == 0
    }

    /// Moves to the directory that `entry` is in.
    pub(super) fn leave(&self, entry: &Entry) -> bool {
        if entry.level == ROOT {
            self.enter_root()
        } else {
            // SAFETY: an entry that is no root has a parent.
            self.enter(unsafe { &*entry.parent }, -1, c"..".as_ptr())
        }
    }
}
