//! Lock-free look-ups in the catalog, for the shim (and for the helper, in its own memory).
//!
//! Nothing here trusts the memory: every offset and length is checked, every loop is bounded, and
//! what does not fit together is "unknown", which sends the caller to the origin.
#![forbid(unsafe_code)]

use super::layout::{self, header, record};
use super::memory::{Memory, Part, from_bytes};
use crate::attributes::Attributes;
use crate::path;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many slots a look-up tries; the writer grows the index long before.
pub const PROBES: u64 = 256;

/// Length of the plain fixed part of a record, from its head to where the path begins.
const FIXED: usize = (record::PATH - record::HEAD) as usize;
/// Where the attributes lie in that part.
const ATTRIBUTES: usize = (record::ATTRIBUTES - record::HEAD) as usize;

/// How many directories are remembered, by the lengths of their paths.
const REMEMBERED: usize = 16;

/// A catalog in some memory.
pub struct Reader<M> {
    memory: M,
    directories: Directories,
}

/// Where the records of directories lie in which something was looked for; 0 where none was. In cache
/// lines of their own: threads write here, and read what lies beside.
#[repr(align(64))]
struct Directories([AtomicU64; REMEMBERED]);

/// One path's record, checked to be in bounds.
#[derive(Clone, Copy)]
pub struct Record<'m> {
    offset: u64,
    state: u64,
    listing: u64,
    head: &'m layout::RecordHead,
    attributes: &'m Attributes,
    text: &'m [u8],
}

/// What a record says of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It exists.
    Present,
    /// It does not, with this error number.
    Absent(i32),
    /// Only the origin can say.
    Pass,
}

impl<'m> Record<'m> {
    /// Where the record lies.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long it is, in bytes of the catalog.
    pub fn length(&self) -> u64 {
        self.head.length.into()
    }

    /// Whether it could be believed when it was looked up.
    pub fn is_live(&self) -> bool {
        self.state == layout::LIVE
    }

    /// What it says.
    pub fn kind(&self) -> Kind {
        match self.head.kind {
            layout::KIND_PRESENT => Kind::Present,
            layout::KIND_ABSENT => Kind::Absent(i32::from(self.head.errno)),
            _ => Kind::Pass,
        }
    }

    /// The attributes; meaningful where [`Kind::Present`].
    pub fn attributes(&self) -> &'m Attributes {
        self.attributes
    }

    /// The path, in normal form, free of links.
    pub fn path(&self) -> &'m [u8] {
        &self.text[..usize::from(self.head.path_length)]
    }

    /// The path with the NUL that closes it; `/` where the record is not sound.
    pub fn path_terminated(&self) -> &'m CStr {
        let length = usize::from(self.head.path_length);
        CStr::from_bytes_with_nul(&self.text[..=length]).unwrap_or(c"/")
    }

    /// A link's target, byte for byte; empty for all else.
    pub fn link(&self) -> &'m [u8] {
        let start = usize::from(self.head.path_length) + 1;
        &self.text[start..start + usize::from(self.head.link_length)]
    }

    /// Whether the directory's listing was known whole when the record was looked up.
    pub fn was_complete(&self) -> bool {
        self.listing != 0
    }

    /// Whether this exists and is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == Kind::Present && self.attributes.is_directory()
    }
}

/// Where a file's bytes are to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nobody asked for them yet, or they were evicted.
    Unknown,
    /// On the origin only.
    Pass,
    /// In the store, in the file with this inode.
    Stored(u64),
}

impl<M: Memory> Reader<M> {
    /// Reads `memory`, whose header may be anything.
    pub const fn new(memory: M) -> Reader<M> {
        Reader {
            memory,
            directories: Directories([const { AtomicU64::new(0) }; REMEMBERED]),
        }
    }

    /// The memory itself.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The memory itself, for its writer.
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Whether this is a catalog of this version.
    #[inline]
    pub fn is_ours(&self) -> bool {
        self.memory.load(header::MAGIC) == Some(layout::MAGIC)
            && self.memory.load(header::VERSION) == Some(layout::VERSION)
    }

    /// A word of the header; 0 where there is none.
    #[inline]
    pub fn word(&self, at: u64) -> u64 {
        self.memory.load(at).unwrap_or(0)
    }

    /// The strings of the header: mirror root, view, runtime directory, covered prefixes.
    pub fn strings(&self) -> impl Iterator<Item = &[u8]> {
        let block = self.strings_block().unwrap_or(&[]);
        let mut rest = block;
        core::iter::from_fn(move || {
            let (length, tail) = rest.split_at_checked(2)?;
            let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
            let (text, tail) = tail.split_at_checked(length)?;
            rest = tail;
            Some(text)
        })
    }

    fn strings_block(&self) -> Option<&[u8]> {
        let offset = self.memory.load(header::STRINGS)?;
        let head = self.memory.load(offset)?.to_ne_bytes();
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        self.memory.bytes(offset.checked_add(8)?, length as usize)
    }

    /// The record of `path`, live or retired, or `None`.
    #[inline]
    pub fn find(&self, path: &[u8]) -> Option<Record<'_>> {
        self.find_by(&self.paths()?, path)
    }

    /// The record of `path`, if it can be believed.
    #[inline]
    pub fn live(&self, path: &[u8]) -> Option<Record<'_>> {
        self.find(path).filter(Record::is_live)
    }

    /// The index of paths as it is now; what is published later may not be in it.
    #[inline]
    pub(super) fn paths(&self) -> Option<Index<impl Part<'_>>> {
        self.index(header::PATH_INDEX)
    }

    #[inline]
    fn index(&self, word: u64) -> Option<Index<impl Part<'_>>> {
        let (offset, mask) = layout::index_place(self.memory.load(word)?)?;
        let slots = self.memory.part(offset)?;
        Some(Index { slots, mask })
    }

    /// The record of `path` that an index leads to, live or retired.
    pub(super) fn find_by<'m>(
        &'m self,
        index: &Index<impl Part<'m>>,
        path: &[u8],
    ) -> Option<Record<'m>> {
        index.probe(path::hash(path), |offset| self.record_of(offset, path))
    }

    /// The live record of a directory in which something is looked for. Programs look for many names in
    /// one directory, so where its record lies is remembered: that spares the way through the index.
    #[inline(always)]
    pub(super) fn directory_by<'m>(
        &'m self,
        index: &Index<impl Part<'m>>,
        path: &[u8],
    ) -> Option<Record<'m>> {
        let remembered = &self.directories.0[path.len() % REMEMBERED];
        let offset = remembered.load(Ordering::Acquire);
        if offset != 0
            && let Some(found) = self.record_of(offset, path).filter(Record::is_live)
        {
            return Some(found);
        }
        let found = self.find_by(index, path).filter(Record::is_live)?;
        remembered.store(found.offset, Ordering::Release);
        Some(found)
    }

    /// The record at `offset`, if it is one of `path`.
    fn record_of(&self, offset: u64, path: &[u8]) -> Option<Record<'_>> {
        let found = self.record(offset)?;
        path::same(found.path(), path).then_some(found)
    }

    /// The record at `offset`, if its parts lie within their segment.
    #[inline]
    pub fn record(&self, offset: u64) -> Option<Record<'_>> {
        let part = self.memory.part(offset)?;
        let fixed = part.bytes(record::HEAD, FIXED)?;
        let state = part.load(record::STATE)?;
        let listing = part.load(record::LISTING)?;
        let head: &layout::RecordHead = from_bytes(fixed)?;
        let attributes = from_bytes(fixed.get(ATTRIBUTES..)?)?;
        let text = usize::from(head.path_length) + usize::from(head.link_length) + 2;
        let fits = record::HEAD as usize + FIXED + text <= head.length as usize;
        if !fits || head.path_length == 0 {
            return None;
        }
        Some(Record {
            offset,
            state,
            listing,
            head,
            attributes,
            text: part.bytes(record::PATH, text)?,
        })
    }

    /// Where the bytes of a record's file are to be had now.
    pub fn content(&self, found: &Record<'_>) -> Content {
        match self.memory.load(found.offset + record::CONTENT) {
            None | Some(0) => Content::Unknown,
            Some(layout::CONTENT_PASS) => Content::Pass,
            Some(inode) => Content::Stored(inode),
        }
    }

    /// Whether all that the loader will search on behalf of a record's file is in the store, next to
    /// the file itself.
    pub fn has_closure(&self, found: &Record<'_>) -> bool {
        let closure = self.memory.load(found.offset + record::CLOSURE);
        closure.is_some_and(|closure| closure == self.word(header::LOSSES).wrapping_add(1))
    }

    /// The listing of a record's directory, where it is known whole.
    pub fn listing(&self, found: &Record<'_>) -> Option<Listing<'_>> {
        let offset = self
            .memory
            .load(found.offset + record::LISTING)
            .filter(|&at| at != 0)?;
        let head = self.memory.load(offset)?.to_ne_bytes();
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let entries = self
            .memory
            .bytes(offset + layout::LISTING_HEAD, length as usize)?;
        Some(Listing { entries })
    }

    /// Whether the listing of a record's directory is known whole by now.
    pub fn is_complete(&self, found: &Record<'_>) -> bool {
        self.memory
            .load(found.offset + record::LISTING)
            .is_some_and(|at| at != 0)
    }

    /// All records that may be believed, in no order. What is published meanwhile may be missing.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let index = self.paths();
        let slots = index.as_ref().map_or(0, |index| index.mask + 1);
        (0..slots)
            .filter_map(move |slot| match index.as_ref()?.slots.load(slot * 8)? {
                0 => None,
                slot => self.record(layout::slot_offset(slot)),
            })
            .filter(Record::is_live)
    }

    /// The record whose attributes the store file with this inode has.
    pub fn by_store_inode(&self, inode: u64) -> Option<Record<'_>> {
        let index = self.index(header::INODE_INDEX)?;
        let entry = index.probe(layout::inode_hash(inode), |offset| {
            (self.memory.load(offset)? == inode).then_some(offset)
        })?;
        self.record(self.memory.load(entry.checked_add(8)?)?)
    }
}

/// An index at some time; it stays readable when a larger one takes its place.
pub(super) struct Index<P> {
    slots: P,
    mask: u64,
}

impl<'m, P: Part<'m>> Index<P> {
    /// Tries the slots of `hash` until `accept` takes a record's offset.
    #[inline(always)]
    fn probe<T>(&self, hash: u64, accept: impl Fn(u64) -> Option<T>) -> Option<T> {
        for step in 0..PROBES.min(self.mask + 1) {
            let at = (hash.wrapping_add(step) & self.mask) * 8;
            match self.slots.load(at)? {
                0 => return None,
                slot if layout::slot_matches(slot, hash) => {
                    if let Some(found) = accept(layout::slot_offset(slot)) {
                        return Some(found);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// A directory's listing, in the origin's order.
#[derive(Clone, Copy)]
pub struct Listing<'m> {
    entries: &'m [u8],
}

/// One name of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListingEntry<'m> {
    /// Inode on the origin.
    pub inode: u64,
    /// `DT_REG` and its kin.
    pub directory_type: u8,
    /// The name.
    pub name: &'m [u8],
    /// Position of the entry behind this one.
    pub next: usize,
}

impl<'m> Listing<'m> {
    /// The entry at `position` (0 for the first); `None` at the end or where it is not sound.
    pub fn entry(&self, position: usize) -> Option<ListingEntry<'m>> {
        let rest = self.entries.get(position..)?;
        let (head, names) = rest.split_at_checked(layout::LISTING_ENTRY_HEAD)?;
        let inode = u64::from_ne_bytes(core::array::from_fn(|i| head[i]));
        let name = names.get(..usize::from(head[9]))?;
        let length = layout::align((layout::LISTING_ENTRY_HEAD + name.len() + 1) as u64);
        Some(ListingEntry {
            inode,
            directory_type: head[8],
            name,
            next: position + length as usize,
        })
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = ListingEntry<'m>> + use<'m> {
        let listing = *self;
        let mut position = 0;
        core::iter::from_fn(move || {
            let entry = listing.entry(position)?;
            position = entry.next;
            Some(entry)
        })
    }
}
