//! What the audit library asks of a loaded library: its name, its thread-local memory, its search paths.

use crate::dynamic_section::DynamicSection;
use core::ffi::{CStr, c_char};

/// The public part of glibc's `struct link_map`.
#[repr(C)]
pub(crate) struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const u8,
}

const RPATH: i64 = 15;
const RUNPATH: i64 = 29;
const FLAGS: i64 = 30;
const STATIC_TLS: usize = 0x10;
const FLAGS_1: i64 = 0x6fff_fffb;
const NO_DEFAULT_LIBRARIES: usize = 0x800;

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
    fn dynamic(&self) -> DynamicSection {
        // SAFETY: the loader's own, of a library that it has loaded.
        unsafe { DynamicSection::new(self.base, self.dynamic) }
    }

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
        self.dynamic().value(FLAGS).unwrap_or(0) & STATIC_TLS != 0
    }

    /// Where it searches.
    pub(crate) fn search_paths(&self) -> SearchPaths {
        let dynamic = self.dynamic();
        let own = dynamic.text(RUNPATH);
        SearchPaths {
            inherited: if own.is_none() {
                dynamic.text(RPATH)
            } else {
                None
            },
            own,
            takes_system: dynamic.value(FLAGS_1).unwrap_or(0) & NO_DEFAULT_LIBRARIES == 0,
        }
    }
}
