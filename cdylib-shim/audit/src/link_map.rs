//! What the loader lets everybody see of a loaded library: its name, and its dynamic section in
//! memory.

use core::ffi::{CStr, c_char};

/// The public part of glibc's `struct link_map`.
#[repr(C)]
pub struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
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
const RPATH: i64 = 15;
const RUNPATH: i64 = 29;
const FLAGS: i64 = 30;
const STATIC_TLS: usize = 0x10;
const FLAGS_1: i64 = 0x6fff_fffb;
const NO_DEFAULT_LIBRARIES: usize = 0x800;

/// More entries than any sound file has.
const ENTRIES_MAX: usize = 4096;

/// How a library searches for those that it needs.
#[derive(Clone, Copy, Default)]
pub(crate) struct SearchPaths {
    /// `DT_RPATH`, which holds for those that its libraries need as well; none where there is a
    /// `DT_RUNPATH`.
    pub(crate) inherited: Option<&'static [u8]>,
    /// `DT_RUNPATH`.
    pub(crate) own: Option<&'static [u8]>,
    /// It takes libraries from where the system keeps them, too.
    pub(crate) takes_system: bool,
}

impl LinkMap {
    /// The name under which the loader has it; empty for the program.
    pub(crate) fn name(&self) -> &'static [u8] {
        if self.name.is_null() {
            return b"";
        }
        // SAFETY: the loader's name is NUL-terminated and stays while the library is loaded.
        unsafe { CStr::from_ptr(self.name) }.to_bytes()
    }

    /// The same for the kernel.
    pub(crate) fn name_terminated(&self) -> *const c_char {
        self.name
    }

    /// Whether its thread-local memory must lie at fixed places.
    pub(crate) fn needs_static_tls(&self) -> bool {
        self.value(FLAGS).unwrap_or(0) & STATIC_TLS != 0
    }

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

    fn value(&self, tag: i64) -> Option<usize> {
        let mut entries = self.entries();
        entries
            .find(|entry| entry.tag == tag)
            .map(|entry| entry.value)
    }

    /// The text at an offset of its string table.
    fn string(&self, offset: usize) -> Option<&'static [u8]> {
        let (table, length) = (self.value(STRINGS)?, self.value(STRINGS_LENGTH)?);
        if offset >= length {
            return None;
        }
        // Most loaders write the address in memory into the section itself.
        let table = if table < self.base {
            table.checked_add(self.base)?
        } else {
            table
        };
        // SAFETY: the table is mapped, and its last byte is a NUL.
        Some(unsafe { CStr::from_ptr((table + offset) as *const c_char) }.to_bytes())
    }

    /// Where it searches.
    pub(crate) fn search_paths(&self) -> SearchPaths {
        let text = |tag| self.value(tag).and_then(|offset| self.string(offset));
        let own = text(RUNPATH);
        SearchPaths {
            inherited: if own.is_none() { text(RPATH) } else { None },
            own,
            takes_system: self.value(FLAGS_1).unwrap_or(0) & NO_DEFAULT_LIBRARIES == 0,
        }
    }
}
