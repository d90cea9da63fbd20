//! The bytes of covered files: where the store has them, asking the helper for them where it has
//! not yet.

use crate::ask::{ask, has_given_up};
use crate::descriptor::OPENED_IN_VIEW;
use crate::sys::call;
use crate::target::{Found, Scope};
use copper_core::catalog::reader::Content;
use copper_core::counters::Outcome as Counted;
use copper_core::path::PATH_MAX;
use copper_core::request::{Operation, Outcome as Reply};
use copper_core::store::{self, FILE_PATH_MAX};
use core::ffi::{CStr, c_int};

/// Hands the store's path of a file or directory to `then`, or `None` where its bytes are to be
/// had from the origin only.
#[inline]
pub(crate) fn with_stored<R>(
    found: &Found<'_>,
    operation: Operation,
    then: impl FnOnce(Option<&CStr>) -> R,
) -> R {
    let Some(inode) = stored_inode(found, operation) else {
        return then(None);
    };
    // Only the loader goes by the mirror's names; directories lie nowhere else.
    if operation == Operation::Content && !found.record.attributes().is_directory() {
        let mut room = [0u8; FILE_PATH_MAX];
        let length = found.session.files.file_path(inode, &mut room);
        // SAFETY: the path ends with the NUL behind it, and has no other: the store's directory is
        // a path of the kernel's, the rest are digits.
        let path = unsafe { CStr::from_bytes_with_nul_unchecked(&room[..=length]) };
        return then(Some(path));
    }
    let mut room = [0u8; PATH_MAX + 1];
    let length = store::mirror_path(found.session.mirror, found.record.path(), &mut room);
    then(length.and_then(|length| terminated(&room, length)))
}

#[inline]
fn terminated(room: &[u8], length: usize) -> Option<&CStr> {
    CStr::from_bytes_with_nul(room.get(..=length)?).ok()
}

/// The inode of the store's file, after asking for the bytes, or for a library's closure, if need be.
#[inline]
fn stored_inode(found: &Found<'_>, operation: Operation) -> Option<u64> {
    match found.session.catalog.content(&found.record) {
        Content::Pass => {
            found.count_passed(Counted::TooLarge);
            None
        }
        Content::Stored(inode) if is_enough(found, operation) => {
            found.count_stored(false);
            Some(inode)
        }
        _ => asked_inode(found, operation),
    }
}

/// Whether a file that is in the store can be had by this operation without asking.
#[inline]
fn is_enough(found: &Found<'_>, operation: Operation) -> bool {
    operation == Operation::Content || found.session.catalog.has_closure(&found.record)
}

#[cold]
#[inline(never)]
fn asked_inode(found: &Found<'_>, operation: Operation) -> Option<u64> {
    let catalog = &found.session.catalog;
    let known = ask_for(found, operation);
    let content = catalog
        .live(found.record.path())
        .map(|record| catalog.content(&record));
    match content {
        Some(Content::Stored(inode)) if known => {
            found.count_stored(true);
            return Some(inode);
        }
        Some(Content::Pass) => found.count_passed(Counted::TooLarge),
        _ if has_given_up(found.session) => found.count_passed(Counted::NoHelper),
        _ => found.count_passed(Counted::Unknown),
    }
    None
}

fn ask_for(found: &Found<'_>, operation: Operation) -> bool {
    ask(found.session, operation, found.record.path(), b"") == Reply::Known
}

/// Opens the store's file of a covered path for reading; `None` where the origin must be opened.
///
/// `Some(Err)` is for errors that are the process's own (too many descriptors).
pub(crate) fn open_stored(found: &Found<'_>, flags: c_int) -> Option<Result<c_int, c_int>> {
    match try_open(found, flags)? {
        // Evicted a moment ago: once more, and asked for, since the record may say so by now.
        Err(libc::ENOENT) if ask_for(found, Operation::Content) => {
            let catalog = &found.session.catalog;
            let record = catalog.live(found.record.path())?;
            settle(try_open(
                &Found {
                    record,
                    counted: None,
                    ..*found
                },
                flags,
            )?)
        }
        result => settle(result),
    }
}

#[inline]
fn try_open(found: &Found<'_>, flags: c_int) -> Option<Result<c_int, c_int>> {
    with_stored(found, Operation::Content, |path| {
        Some(open_path(path?, flags | mark(found)))
    })
}

/// See [`OPENED_IN_VIEW`].
#[inline]
fn mark(found: &Found<'_>) -> c_int {
    if found.scope == Scope::View && found.session.covers(found.record.path()) {
        OPENED_IN_VIEW
    } else {
        0
    }
}

fn settle(result: Result<c_int, c_int>) -> Option<Result<c_int, c_int>> {
    match result {
        Ok(_) | Err(libc::EMFILE | libc::ENFILE) => Some(result),
        Err(_) => None,
    }
}

fn open_path(path: &CStr, flags: c_int) -> Result<c_int, c_int> {
    // SAFETY: the path is NUL-terminated.
    let result = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) };
    if result < 0 {
        Err(-result as c_int)
    } else {
        Ok(result as c_int)
    }
}
