//! Descriptors on the store's files and directories: what they stand for, and how one is turned
//! into a descriptor on the origin's directory where the kernel has to list it.

use crate::original::{hooks, original};
use crate::session::{self, Session};
use crate::sys::{self, Descriptor, call, finish};
use crate::target::{Scope, text};
use copper_core::catalog::reader::Record;
use core::ffi::{c_char, c_int, c_void};
use libc::{size_t, ssize_t};

/// The record of the file or directory that a descriptor on the store stands for.
pub(crate) fn record_of(session: &'static Session, descriptor: c_int) -> Option<Record<'static>> {
    let status = sys::fstat(descriptor)?;
    if status.st_dev != session.store_device {
        return None;
    }
    session.catalog.by_store_inode(status.st_ino)
}

/// What tells a descriptor that was opened through the view from one that was opened by a covered
/// name, where both lead to the same file of the store. The kernel keeps it with the descriptor;
/// on the store it means nothing else.
pub(crate) const OPENED_IN_VIEW: c_int = libc::O_NOATIME;

/// How the file was named that a descriptor on the store is open on.
pub(crate) fn scope_of(session: &Session, descriptor: c_int, origin: &[u8]) -> Scope {
    if !session.covers(origin) {
        return Scope::View;
    }
    // SAFETY: asks for the flags of the caller's descriptor.
    let flags = unsafe { call!(libc::SYS_fcntl, descriptor, libc::F_GETFL) };
    if flags >= 0 && flags & OPENED_IN_VIEW as isize != 0 {
        Scope::View
    } else {
        Scope::Prefix
    }
}

/// The origin's file that a descriptor on the store stands for, opened for reading; `None` where
/// the descriptor is not on the store, or another file has the name by now.
pub(crate) fn origin_of(descriptor: c_int) -> Option<Descriptor> {
    let session = session::known()?;
    let record = record_of(session, descriptor)?;
    let origin = sys::open(record.path_terminated().as_ptr().cast(), libc::O_NONBLOCK)?;
    let now = sys::fstat(origin.number())?;
    let then = record.attributes();
    ((now.st_dev, now.st_ino) == (then.device, then.inode)).then_some(origin)
}

/// Whether a path may lead to an open file by a link of the kernel's, which nothing but the kernel
/// can follow: `/proc/self/fd/3`, `/dev/stdin`.
#[inline]
pub(crate) fn may_be_link_to_open(path: &[u8]) -> bool {
    [&b"/proc/"[..], b"/dev/fd/", b"/dev/std"]
        .iter()
        .any(|leading| path.starts_with(leading))
}

/// The file of the store that a path leads to by such a link.
#[inline]
pub(crate) fn stored_by_link(path: *const c_char) -> Option<Record<'static>> {
    if !text(path).is_some_and(may_be_link_to_open) {
        return None;
    }
    let session = session::known()?;
    let status = sys::stat_at(libc::AT_FDCWD, path, 0).ok()?;
    if status.st_dev != session.store_device {
        return None;
    }
    session.catalog.by_store_inode(status.st_ino)
}

/// What the catalog says now of the file that `record` was made for; `None` where that was
/// changed since and nothing newer is known, or it is another file that has the name now.
pub(crate) fn latest(
    session: &'static Session,
    record: Record<'static>,
) -> Option<Record<'static>> {
    if record.is_live() {
        return Some(record);
    }
    let then = record.attributes();
    session.catalog.live(record.path()).filter(|now| {
        let now = now.attributes();
        (now.device, now.inode) == (then.device, then.inode)
    })
}

/// Puts the origin's directory in the place of a directory in the store, under the same number.
///
/// The store's directory holds only what was asked for; whoever lets the kernel list it needs
/// the origin's. Does nothing with any other descriptor.
pub(crate) fn demote(descriptor: c_int) {
    let Some(session) = session::known() else {
        return;
    };
    let Some(record) = record_of(session, descriptor).filter(Record::is_directory) else {
        return;
    };
    let path = record.path_terminated().as_ptr().cast();
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let Some(opened) = sys::open(path, flags) else {
        return;
    };
    replace(descriptor, &opened);
}

/// Puts what `by` is open on in the place of what `descriptor` is open on, under the same number.
pub(crate) fn replace(descriptor: c_int, by: &Descriptor) {
    // SAFETY: reads the flags of the caller's descriptor, then replaces it in one step.
    unsafe {
        let kept = call!(libc::SYS_fcntl, descriptor, libc::F_GETFD);
        let close_on_exec = if kept >= 0 && kept & libc::FD_CLOEXEC as isize != 0 {
            libc::O_CLOEXEC
        } else {
            0
        };
        call!(libc::SYS_dup3, by.number(), descriptor, close_on_exec);
    }
}

/// Defines the names of `getdirentries`.
macro_rules! entries_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            descriptor: c_int,
            out: *mut c_char,
            length: size_t,
            base: *mut i64,
        ) -> ssize_t {
            demote(descriptor);
            original!(
                fn $name(
                    descriptor: c_int, out: *mut c_char, length: size_t, base: *mut i64,
                ) -> ssize_t;
                or -1
            )
        } }
    )*};
}

entries_hooks! { getdirentries getdirentries64 }

hooks! {
    fn getdents64(descriptor: c_int, out: *mut c_void, length: size_t) -> ssize_t {
        demote(descriptor);
        original!(
            fn getdents64(descriptor: c_int, out: *mut c_void, length: size_t) -> ssize_t;
            else {
                // SAFETY: the caller's own arguments.
                finish(unsafe { call!(libc::SYS_getdents64, descriptor, out, length) })
            }
        )
    }
}
