//! The next definition of a function in the loader's order, found in the libraries' own tables.
//!
//! `dlsym(RTLD_NEXT)` finds the same, but takes several times as long, for a lock, a look into the
//! program and the preload libraries before this one, and an error to forget. With as many functions as
//! the shim stands in front of that is a good part of a short program's start. Whatever is out of the
//! ordinary is left to `dlsym`: an indirect function, a library with an old table, a name not found.
//!
//! The libraries are those that were loaded with the program, in the order in which they were: that is
//! where `RTLD_NEXT` looks, and they are never unloaded.

use crate::dynamic_section::DynamicSection;
use core::ffi::{CStr, c_char, c_int, c_void};

const SYMBOLS: i64 = 6;
const STRINGS: i64 = 5;
const SONAME: i64 = 14;
const GNU_HASH: i64 = 0x6fff_fef5;
const OLD_HASH: i64 = 4;
const SYMBOL_VERSIONS: i64 = 0x6fff_fff0;

/// A version that is not the default one of its name.
const HIDDEN: u16 = 0x8000;
/// `STT_FUNC` and `STT_NOTYPE`.
const PLAIN_KINDS: [u8; 2] = [2, 0];

/// The hash of a name in the tables.
pub(crate) const fn hash(name: &CStr) -> u32 {
    let bytes = name.to_bytes();
    let (mut sum, mut at) = (5381u32, 0);
    while at < bytes.len() {
        sum = sum.wrapping_mul(33).wrapping_add(bytes[at] as u32);
        at += 1;
    }
    sum
}

/// An entry of a symbol table (`Elf64_Sym`).
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: u64,
}

/// What became of a search in one library.
pub(crate) enum Found {
    /// The function begins there.
    Address(*const c_void),
    /// The library does not define it.
    Nothing,
    /// `dlsym` knows better.
    Unclear,
}

/// A library's table of the names that it defines.
pub(crate) struct Table {
    base: usize,
    symbols: *const Symbol,
    strings: *const c_char,
    versions: *const u16,
    bloom: *const usize,
    bloom_mask: u32,
    bloom_shift: u32,
    buckets: *const u32,
    bucket_count: u32,
    /// One for each symbol; the first of them are not in the table.
    chains: *const u32,
    /// The library is libc.
    pub(crate) is_libc: bool,
}

impl Table {
    /// The table of a library; `None` where it has none of this kind.
    fn of(library: &DynamicSection) -> Option<Table> {
        let header = library.address(GNU_HASH)? as *const u32;
        // SAFETY: the header's four words, and behind them the three arrays, as the format says, in
        // memory that is mapped as long as the library is.
        unsafe {
            let [bucket_count, first, bloom_length, bloom_shift] = *header.cast::<[u32; 4]>();
            let bloom = header.add(4).cast::<usize>();
            let buckets = bloom.add(bloom_length as usize).cast::<u32>();
            let chains = buckets.add(bucket_count as usize);
            (bucket_count > 0 && bloom_length.is_power_of_two()).then_some(())?;
            Some(Table {
                base: library.base,
                symbols: library.address(SYMBOLS)? as *const Symbol,
                strings: library.address(STRINGS)? as *const c_char,
                versions: library.address(SYMBOL_VERSIONS).unwrap_or(0) as *const u16,
                bloom,
                bloom_mask: bloom_length - 1,
                bloom_shift,
                buckets,
                bucket_count,
                chains: chains.wrapping_sub(first as usize),
                is_libc: library.text(SONAME) == Some(b"libc.so.6"),
            })
        }
    }

    /// The library's own definition of a name with this [`hash`], in its default version.
    pub(crate) fn find(&self, name: *const c_char, hash: u32) -> Found {
        const BITS: u32 = usize::BITS;
        // SAFETY: masked and reduced as the format says; a chain ends with an odd word.
        unsafe {
            let word = *self.bloom.add(((hash / BITS) & self.bloom_mask) as usize);
            if word >> (hash % BITS) & word >> ((hash >> self.bloom_shift) % BITS) & 1 == 0 {
                return Found::Nothing;
            }
            let mut index = *self.buckets.add((hash % self.bucket_count) as usize) as usize;
            while index != 0 {
                let word = *self.chains.wrapping_add(index);
                if word | 1 == hash | 1 && self.is_default_of(index, name) {
                    return self.definition(&*self.symbols.add(index));
                }
                index = if word & 1 == 0 { index + 1 } else { 0 };
            }
        }
        Found::Nothing
    }

    /// Whether a symbol is the default version of a name.
    ///
    /// # Safety
    /// The index must be one of the table's.
    unsafe fn is_default_of(&self, index: usize, name: *const c_char) -> bool {
        // SAFETY: there is a symbol, and a version if there are any, for each index; names are
        // NUL-terminated.
        unsafe {
            let symbol = &*self.symbols.add(index);
            libc::strcmp(self.strings.add(symbol.name as usize), name) == 0
                && (self.versions.is_null() || *self.versions.add(index) & HIDDEN == 0)
        }
    }

    fn definition(&self, symbol: &Symbol) -> Found {
        match PLAIN_KINDS.contains(&(symbol.info & 15)) && symbol.section != 0 {
            true => Found::Address((self.base + symbol.value) as *const c_void),
            false => Found::Unclear,
        }
    }
}

/// Gives the tables of the libraries behind this one, in their order, up to the first whose definitions
/// are not known; says whether there was none such. To be called while the program starts, when nothing
/// else is loaded yet.
pub(crate) fn each_library_behind(each: &mut dyn FnMut(&Table)) -> bool {
    let mut search = Search {
        own_seen: false,
        each,
    };
    // SAFETY: the callback gets what it expects, while this waits.
    let stopped = unsafe { libc::dl_iterate_phdr(Some(take_library), (&raw mut search).cast()) };
    stopped == 0
}

struct Search<'e> {
    own_seen: bool,
    each: &'e mut dyn FnMut(&Table),
}

/// Called by the loader with each loaded object, in the order in which they were loaded.
unsafe extern "C" fn take_library(
    info: *mut libc::dl_phdr_info,
    _: usize,
    search: *mut c_void,
) -> c_int {
    // SAFETY: given by `each_library_behind`, which waits.
    let search = unsafe { &mut *search.cast::<Search<'_>>() };
    // SAFETY: the loader's, for the time of the call.
    let info = unsafe { &*info };
    // SAFETY: the program headers are as many as it says.
    let segments =
        unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let base = info.dlpi_addr as usize;
    let start = |segment: &libc::Elf64_Phdr| base.wrapping_add(segment.p_vaddr as usize);
    if !search.own_seen {
        let own = take_library as *const () as usize;
        search.own_seen = segments.iter().any(|segment| {
            segment.p_type == libc::PT_LOAD
                && own.wrapping_sub(start(segment)) < segment.p_memsz as usize
        });
        return 0;
    }
    let dynamic = segments
        .iter()
        .find(|segment| segment.p_type == libc::PT_DYNAMIC);
    let Some(dynamic) = dynamic else {
        return 0;
    };
    // SAFETY: that of a library that the loader has put in memory.
    let section = unsafe { DynamicSection::new(base, start(dynamic) as *const u8) };
    match Table::of(&section) {
        Some(table) => (search.each)(&table),
        None if section.value(OLD_HASH).is_some() => return 1,
        None => {}
    }
    0
}
