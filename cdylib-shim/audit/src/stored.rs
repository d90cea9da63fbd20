//! Files of the store as the loader will find them: there, and libraries that it would take.

use crate::session::Session;
use crate::static_tls::read_plain;
use crate::sys;
use core::cell::UnsafeCell;
use core::ffi::CStr;

/// Room for a path that is given to the loader, which has done with it before it asks again for
/// the same.
pub(crate) struct Room<const LENGTH: usize>(UnsafeCell<[u8; LENGTH]>);

// SAFETY: only used from calls of the loader, which makes them under its lock.
unsafe impl<const LENGTH: usize> Sync for Room<LENGTH> {}

impl<const LENGTH: usize> Room<LENGTH> {
    pub(crate) const fn new() -> Room<LENGTH> {
        Room(UnsafeCell::new([0; LENGTH]))
    }

    /// Keeps a text that ends with a NUL, if it does and fits.
    pub(crate) fn keep(&'static self, text: &[u8]) -> Option<&'static CStr> {
        // SAFETY: the loader holds its lock, and has done with what was kept here before.
        let room = unsafe { &mut *self.0.get() };
        room.get_mut(..text.len())?.copy_from_slice(text);
        CStr::from_bytes_until_nul(room).ok()
    }
}

/// Whether the path leads to the store's file with this inode (in a chroot it may not), and that is
/// a library for this machine, so that the loader would neither pass it over nor complain of it by
/// the store's name.
pub(crate) fn is_library(session: &Session, path: &CStr, inode: u64) -> bool {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let Some(opened) = sys::open(path.as_ptr().cast(), flags) else {
        return false;
    };
    let is_stored = sys::fstat(opened.number())
        .is_some_and(|found| found.st_dev == session.store_device && found.st_ino == inode);
    is_stored && read_plain(opened.number(), 0).is_some_and(|header| is_for_here(&header))
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

const SHARED_OBJECT: u16 = 3;

/// What the loader looks at before it maps a file.
fn is_for_here(header: &libc::Elf64_Ehdr) -> bool {
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const SYSTEM_V: u8 = 0;
    const GNU: u8 = 3;
    let [
        b'\x7f',
        b'E',
        b'L',
        b'F',
        class,
        order,
        1,
        system,
        0,
        padding @ ..,
    ] = header.e_ident
    else {
        return false;
    };
    class == CLASS_64
        && order == LITTLE_ENDIAN
        && (system == SYSTEM_V || system == GNU)
        && padding == [0; 7]
        && header.e_type == SHARED_OBJECT
        && header.e_machine == MACHINE
        && header.e_version == 1
        && usize::from(header.e_phentsize) == size_of::<libc::Elf64_Phdr>()
}
