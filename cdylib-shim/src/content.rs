//! The bytes of covered files: where the store has them, asking the helper for them where it has
//! not yet.

use crate::ask::ask;
use crate::session::Session;
use crate::sys::call;
use crate::target::Found;
use copper_core::catalog::reader::Content;
use copper_core::path::PATH_MAX;
use copper_core::request::{Operation, Outcome as Reply};
use copper_core::store;
use core::ffi::{CStr, c_int};

/// Store paths up to this length are put together on a small stack.
const SHORT: usize = 512;

/// Hands the store's path of a file or directory to `then`, or `None` where its bytes are to be
/// had from the origin only.
pub(crate) fn with_stored<R>(
    found: &Found<'_>,
    operation: Operation,
    then: impl FnOnce(Option<&CStr>) -> R,
) -> R {
    let path = found.record.path();
    if !is_stored(found, operation) {
        return then(None);
    }
    if found.session.mirror.len() + path.len() < SHORT {
        let mut room = [0u8; SHORT];
        then(put_together(found.session, path, &mut room))
    } else {
        with_long_path(found.session, path, then)
    }
}

#[cold]
#[inline(never)]
fn with_long_path<R>(session: &Session, path: &[u8], then: impl FnOnce(Option<&CStr>) -> R) -> R {
    let mut room = [0u8; PATH_MAX + 1];
    then(put_together(session, path, &mut room))
}

fn put_together<'r>(session: &Session, path: &[u8], room: &'r mut [u8]) -> Option<&'r CStr> {
    let length = store::mirror_path(session.mirror, path, room)?;
    CStr::from_bytes_with_nul(&room[..=length]).ok()
}

/// Whether the bytes are in the store now, after asking for them if need be.
///
/// A library's closure is asked for each time: the record does not tell whether it is there.
fn is_stored(found: &Found<'_>, operation: Operation) -> bool {
    let catalog = &found.session.catalog;
    match catalog.content(&found.record) {
        Content::Pass => return false,
        Content::Stored(_) if operation == Operation::Content => return true,
        _ => {}
    }
    ask_for(found, operation)
        && catalog
            .live(found.record.path())
            .is_some_and(|record| matches!(catalog.content(&record), Content::Stored(_)))
}

fn ask_for(found: &Found<'_>, operation: Operation) -> bool {
    ask(found.session, operation, found.record.path(), b"") == Reply::Known
}

/// Opens the store's file of a covered path for reading; `None` where the origin must be opened.
///
/// `Some(Err)` is for errors that are the process's own (too many descriptors).
pub(crate) fn open_stored(found: &Found<'_>, flags: c_int) -> Option<Result<c_int, c_int>> {
    with_stored(found, Operation::Content, |path| {
        let path = path?;
        match open_path(path, flags) {
            // Evicted a moment ago: once more.
            Err(libc::ENOENT) if ask_for(found, Operation::Content) => {
                settle(open_path(path, flags))
            }
            result => settle(result),
        }
    })
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
