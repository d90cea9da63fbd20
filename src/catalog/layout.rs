//! The catalog's memory, byte by byte, version 4.
//!
//! The catalog is one sealed memory file (`memfd`), sparse, that only the helper can write. It is
//! divided into segments of doubling length, so that a process maps what is in use and no more:
//! segment *k* begins at (2^k − 1) · 4 MiB and is 2^k · 4 MiB long. Nothing straddles two segments.
//! All integers are in the machine's byte order; all offsets count from the start of the file and
//! are multiples of 8. Words marked *atomic* change while others read; the rest is written before
//! it is published and never again.
//!
//! **Header**, at 0, 4096 bytes, all words of 8 bytes:
//!
//! | at | what |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 8 | [`VERSION`] |
//! | 16 | *atomic* state: [`SERVING`] or [`STOPPED`] |
//! | 24 | the helper's pid |
//! | 32 | *atomic* number of alarms the helper has acted upon (see [`Alarm`]) |
//! | 40 | *atomic* path index: offset · 64 + log2 of its slots |
//! | 48 | *atomic* inode index: the same |
//! | 56 | *atomic* generation: grows when records that complete a directory have been published |
//! | 64 | device number of the store's file system |
//! | 72 | *atomic* offset of the strings |
//! | 80 | uid of the helper |
//! | 88 | *atomic* bytes in use |
//! | 96 | inode of the helper's user namespace, 0 where the kernel has none |
//! | 104 | inode of the helper's process namespace, 0 where the kernel has none |
//! | 112 | *atomic* losses: grows before something that was known, or stored, is so no more |
//!
//! **Strings**: u32 length of all that follows the count, u32 count, then for each a u16 length
//! and the bytes. The first is the root of the store's mirror, the second the view, the third the
//! runtime directory, the rest are covered prefixes.
//!
//! **Index**: a power of two of *atomic* slots, 8 bytes each, probed linearly. 0 is empty; else
//! the low 40 bits are a record's offset / 8 and the high 24 bits those of the hash. A slot is
//! stored with release order after its record is complete. A slot's path never changes; its record
//! does, when a newer one takes its place. A larger index is built aside and published whole; the
//! old one stays readable.
//!
//! **Record** of a path ([`record`] has the offsets): *atomic* state ([`LIVE`], [`RETIRED`]),
//! u64 hash of the path, *atomic* content, *atomic* listing, *atomic* closure, u32 length of the record,
//! u16 length of the path, u16 length of the link target, u8 kind, u8 reserved, u16 errno,
//! u32 reserved, the [`Attributes`](crate::attributes::Attributes), the path, a NUL, the link
//! target, a NUL, padding to 8. *Content* is 0 where the bytes are not in the store,
//! [`CONTENT_PASS`] where they will not be, else the inode of the store's file. *Listing* is 0
//! where a directory's listing is not known whole, or not any more, else its offset. *Closure* is one
//! more than the losses were when all that the loader will search on behalf of this file was in the
//! store, 0 where it never was; it holds as long as there are no further losses. An absence that was
//! retired may become live again.
//!
//! **Listing**: u32 length of the entries, u32 count; then each entry: u64 inode, u8 type, u8 length
//! of the name, the name, a NUL, padding to 8; in the origin's order, `.` and `..` included.
//!
//! **Inode index**: slots as above, hashed by inode; each leads to an inode entry: u64 inode of a
//! store file, u64 offset of the record whose attributes it has.

/// First word: "COPPERC" and a format letter.
pub const MAGIC: u64 = u64::from_le_bytes(*b"COPPERCa");
/// Version of this layout; a reader of another version passes everything through.
pub const VERSION: u64 = 4;

/// Offsets of the header's words.
pub mod header {
    /// See the module's table.
    pub const MAGIC: u64 = 0;
    /// See the module's table.
    pub const VERSION: u64 = 8;
    /// See the module's table.
    pub const STATE: u64 = 16;
    /// See the module's table.
    pub const PID: u64 = 24;
    /// See the module's table.
    pub const ALARMS_SEEN: u64 = 32;
    /// See the module's table.
    pub const PATH_INDEX: u64 = 40;
    /// See the module's table.
    pub const INODE_INDEX: u64 = 48;
    /// See the module's table.
    pub const GENERATION: u64 = 56;
    /// See the module's table.
    pub const STORE_DEVICE: u64 = 64;
    /// See the module's table.
    pub const STRINGS: u64 = 72;
    /// See the module's table.
    pub const UID: u64 = 80;
    /// See the module's table.
    pub const IN_USE: u64 = 88;
    /// See the module's table.
    pub const USER_NAMESPACE: u64 = 96;
    /// See the module's table.
    pub const PROCESS_NAMESPACE: u64 = 104;
    /// See the module's table.
    pub const LOSSES: u64 = 112;
    /// Where records begin.
    pub const LENGTH: u64 = 4096;
}

/// The catalog may be believed.
pub const SERVING: u64 = 1;
/// The helper has ended; the catalog must not be believed any more.
pub const STOPPED: u64 = 2;

/// Offsets inside a record.
pub mod record {
    /// Atomic state word.
    pub const STATE: u64 = 0;
    /// Hash of the path.
    pub const HASH: u64 = 8;
    /// Atomic content word.
    pub const CONTENT: u64 = 16;
    /// Atomic listing word.
    pub const LISTING: u64 = 24;
    /// Atomic closure word.
    pub const CLOSURE: u64 = 32;
    /// The rest of the fixed part, as [`super::RecordHead`].
    pub const HEAD: u64 = 40;
    /// Where the attributes lie.
    pub const ATTRIBUTES: u64 = 56;
    /// Where the path begins.
    pub const PATH: u64 = ATTRIBUTES + crate::attributes::ATTRIBUTES_LENGTH as u64;
}

/// A record that may be believed.
pub const LIVE: u64 = 1;
/// A record that was true once.
pub const RETIRED: u64 = 2;

/// The path exists and the attributes are its own.
pub const KIND_PRESENT: u8 = 1;
/// The path does not exist; the record's errno says how the origin said so.
pub const KIND_ABSENT: u8 = 2;
/// Only the origin can answer for this path (it is being written, or could not be read).
pub const KIND_PASS: u8 = 3;

/// Content word of a file that is to be read from the origin.
pub const CONTENT_PASS: u64 = 1;

/// The plain fields of a record between its atomic words and its attributes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Length of the whole record, in bytes.
    pub length: u32,
    /// Length of the path.
    pub path_length: u16,
    /// Length of the link target, 0 where this is no link.
    pub link_length: u16,
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
    /// Error number of an absent path.
    pub errno: u16,
    /// Zero.
    pub reserved_too: u32,
}

/// Fixed part of a listing's entry: inode, type, length of the name.
pub const LISTING_ENTRY_HEAD: usize = 10;
/// Fixed part of a listing: length of its entries and their count.
pub const LISTING_HEAD: u64 = 8;

/// The one page that applications may write, in the file `alarm` of the runtime directory.
///
/// A process that changed a covered path and could not tell the helper adds one to `raised`; from
/// then on nobody believes the catalog until the helper has dropped all it knew and has set the
/// header's count to the same number. A process that waited in vain for the helper sets `silent`,
/// and nobody waits again until the helper, alive, has cleared it.
pub struct Alarm;

impl Alarm {
    /// Offset of the atomic count of changes that could not be told.
    pub const RAISED: usize = 0;
    /// Offset of the atomic flag of a helper that did not answer.
    pub const SILENT: usize = 8;
    /// Length of the page.
    pub const LENGTH: usize = 4096;
}

const FIRST_SEGMENT_BITS: u32 = 22;
/// Number of segments a catalog can have: 16 GiB in all.
pub const SEGMENTS: usize = 12;

/// The segment that holds `offset`.
#[inline]
pub fn segment_of(offset: u64) -> usize {
    ((offset >> FIRST_SEGMENT_BITS) + 1).ilog2() as usize
}

/// Where segment `index` begins.
#[inline]
pub fn segment_start(index: usize) -> u64 {
    ((1u64 << index) - 1) << FIRST_SEGMENT_BITS
}

/// How long segment `index` is.
#[inline]
pub fn segment_length(index: usize) -> u64 {
    1u64 << (FIRST_SEGMENT_BITS as usize + index)
}

/// Rounds up to a multiple of 8.
pub fn align(length: u64) -> u64 {
    (length + 7) & !7
}

/// A slot that leads to `offset` for `hash`.
pub fn slot(offset: u64, hash: u64) -> u64 {
    (hash & !((1 << 40) - 1)) | (offset >> 3)
}

/// The offset a slot leads to.
#[inline]
pub fn slot_offset(slot: u64) -> u64 {
    (slot & ((1 << 40) - 1)) << 3
}

/// Whether a slot may be of `hash`.
#[inline]
pub fn slot_matches(slot: u64, hash: u64) -> bool {
    (slot ^ hash) >> 40 == 0
}

/// Packs an index's place into its header word.
pub fn index_word(offset: u64, log2_slots: u32) -> u64 {
    offset << 6 | u64::from(log2_slots)
}

/// Offset of an index and the mask of its slots; `None` where the word is not sound.
#[inline]
pub fn index_place(word: u64) -> Option<(u64, u64)> {
    let log2_slots = word & 63;
    let offset = word >> 6;
    (offset >= header::LENGTH && offset.is_multiple_of(8) && (1..=31).contains(&log2_slots))
        .then(|| (offset, (1 << log2_slots) - 1))
}

/// Hash of a store inode, for the inode index.
pub fn inode_hash(inode: u64) -> u64 {
    crate::path::hash(&inode.to_ne_bytes())
}
