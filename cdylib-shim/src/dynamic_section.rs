//! A loaded library's dynamic section: where its tables are.

use core::ffi::{CStr, c_char};

/// The dynamic section of a library in memory, which stays there as long as this is used.
#[derive(Clone, Copy)]
pub(crate) struct DynamicSection {
    /// What is to be added to addresses in the library's file.
    pub(crate) base: usize,
    entries: *const Entry,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    tag: i64,
    value: usize,
}

const END: i64 = 0;
const STRINGS: i64 = 5;
const STRINGS_LENGTH: i64 = 10;

/// More entries than any sound file has.
const ENTRIES_MAX: usize = 4096;

impl DynamicSection {
    /// The section at an address.
    ///
    /// # Safety
    /// It must be that of a library that the loader has put in memory in full, or null.
    pub(crate) unsafe fn new(base: usize, address: *const u8) -> DynamicSection {
        DynamicSection {
            base,
            entries: address.cast(),
        }
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let readable = if self.entries.is_null() {
            0
        } else {
            ENTRIES_MAX
        };
        // SAFETY: a dynamic section ends with an entry that says so, and none is read behind it.
        (0..readable)
            .map(|index| unsafe { *self.entries.add(index) })
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
