//! What the loader lets everybody see of a loaded library: where it lies, and its dynamic section in
//! memory.

use core::ffi::{CStr, c_char};

/// The public part of glibc's `struct link_map`.
#[repr(C)]
pub(crate) struct LinkMap {
    /// What is to be added to addresses in the library's file.
    pub(crate) base: usize,
    /// The name under which the loader has it, NUL-terminated; empty for the program.
    pub(crate) name: *const c_char,
    dynamic: *const Dynamic,
    /// The one that was loaded after it.
    pub(crate) next: *const LinkMap,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Dynamic {
    tag: i64,
    value: usize,
}

const END: i64 = 0;
const STRINGS: i64 = 5;
const STRINGS_LENGTH: i64 = 10;

/// More entries than any sound file has.
const ENTRIES_MAX: usize = 4096;

impl LinkMap {
    fn entries(&self) -> impl Iterator<Item = Dynamic> + '_ {
        let readable = if self.dynamic.is_null() {
            0
        } else {
            ENTRIES_MAX
        };
        // SAFETY: a dynamic section ends with an entry that says so, and none is read behind it.
        (0..readable)
            .map(|index| unsafe { *self.dynamic.add(index) })
            .take_while(|entry| entry.tag != END)
    }

    /// The value of the first entry with this tag.
    pub(crate) fn value(&self, tag: i64) -> Option<usize> {
        let mut entries = self.entries();
        entries
            .find(|entry| entry.tag == tag)
            .map(|entry| entry.value)
    }

    /// The address that an entry gives.
    pub(crate) fn address(&self, tag: i64) -> Option<usize> {
        // Most loaders write the address in memory into the section itself.
        match self.value(tag)? {
            offset if offset < self.base => offset.checked_add(self.base),
            address => Some(address),
        }
    }

    /// The text that an entry gives.
    pub(crate) fn text(&self, tag: i64) -> Option<&'static [u8]> {
        let (table, length) = (self.address(STRINGS)?, self.value(STRINGS_LENGTH)?);
        let offset = self.value(tag).filter(|&offset| offset < length)?;
        // SAFETY: the table is mapped as long as the library is, and its last byte is a NUL.
        Some(unsafe { CStr::from_ptr((table + offset) as *const c_char) }.to_bytes())
    }
}
