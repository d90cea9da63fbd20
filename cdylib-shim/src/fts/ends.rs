//! The beginning of a walk, at its roots, and its end.

use super::entries::free_list;
use super::place::{close_raw, open_here};
use super::structures::{
    ABOVE_ROOTS, Compare, Entry, FOLLOW_ROOTS, LOGICAL, ROOM, ROOT, STAY, Walk, info,
};
use crate::sys::{errno, set_errno};
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;

/// Begins a walk at the caller's NULL-terminated list of roots, none of them empty.
///
/// # Safety
/// `roots` must be such a list.
pub(super) unsafe fn begin(
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
pub(super) unsafe fn make_roots(
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

impl Walk {
    /// `fts_close`: frees the walk, and moves back to where it began.
    pub(super) fn end(this: *mut Walk) -> c_int {
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
