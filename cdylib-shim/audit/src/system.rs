//! What the search needs to know of the system by system calls: the program's own place, files
//! that are not covered, and where the system keeps its libraries.

use crate::cache;
use crate::place::join;
use crate::stored::Room;
use crate::sys::{self, call};
use copper_core::path::{self, PATH_MAX};
use core::ffi::CStr;

/// Writes the directory of the program into `room`; `None` where it cannot be told.
pub(crate) fn program(room: &mut [u8; PATH_MAX + 1]) -> Option<usize> {
    let link = c"/proc/self/exe";
    // SAFETY: the link is NUL-terminated; the room and its length belong together.
    let length = unsafe {
        let (link, out) = (link.as_ptr(), room.as_mut_ptr());
        call!(libc::SYS_readlinkat, libc::AT_FDCWD, link, out, PATH_MAX)
    };
    let length = usize::try_from(length).ok()?;
    let name = room.get(..length)?;
    let (directory, file) = path::split_last(name);
    // Where the loader is run as a command it is the program.
    let is_told = directory.first() == Some(&b'/')
        && !name.ends_with(b" (deleted)")
        && !file.starts_with(b"ld-")
        && !file.starts_with(b"ld.so");
    is_told.then_some(directory.len())
}

/// Whether a directory that is not covered holds `name` or one of `others`.
pub(crate) fn holds_any(directory: &[u8], name: &[u8], others: &[&[u8]]) -> bool {
    let mut room = [0u8; PATH_MAX + 1];
    let mut holds = |name: &[u8]| {
        join(directory, name, &mut room).is_none_or(|_| is_there(room.as_ptr().cast()))
    };
    // Most directories of a long list have nothing to do with one library.
    holds(b"") && (holds(name) || others.iter().any(|other| holds(other)))
}

/// Whether there is something at a NUL-terminated path, as far as can be told.
fn is_there(path: *const core::ffi::c_char) -> bool {
    !matches!(
        sys::stat_at(libc::AT_FDCWD, path, 0),
        Err(libc::ENOENT | libc::ENOTDIR)
    )
}

/// Where the system has the library `name`, if there is no doubt.
pub(crate) fn library(name: &[u8]) -> Option<&'static CStr> {
    static GIVEN: Room<{ PATH_MAX + 1 }> = Room::new();
    let list = Mapped::open(c"/etc/ld.so.cache")?;
    let path = cache::only_path(list.bytes(), name)?;
    let given = GIVEN.keep(path.to_bytes_with_nul())?;
    is_there(given.as_ptr()).then_some(given)
}

/// A file's bytes in memory, until it goes.
struct Mapped {
    base: *const u8,
    length: usize,
}

impl Mapped {
    fn open(path: &CStr) -> Option<Mapped> {
        let opened = sys::open(path.as_ptr().cast(), libc::O_RDONLY)?;
        let length = usize::try_from(sys::fstat(opened.number())?.st_size).ok()?;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            call!(
                libc::SYS_mmap,
                0,
                length,
                protection,
                flags,
                opened.number(),
                0
            )
        };
        (base > 0).then_some(Mapped {
            base: base as *const u8,
            length,
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as this lives; whoever changes the list puts another in its place.
        unsafe { core::slice::from_raw_parts(self.base, self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody refers to the mapping any more.
        unsafe { call!(libc::SYS_munmap, self.base, self.length) };
    }
}
