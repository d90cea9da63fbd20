//! The catalog's one writer, in the helper.
//!
//! Order of calls: [`Writer::create`] once; then, in any order, the `publish_` calls, which make a
//! path known, the `set_` calls, which say where bytes are, and the `retire` calls, which make a
//! path unknown again. A directory's children are published before its listing is, so that a
//! reader that sees a complete directory and no child may call the child absent.
//!
//! Nothing is ever overwritten in place; what is retired stays readable until the catalog goes.
#![forbid(unsafe_code)]

use super::layout::{self, RecordHead, header, record};
use super::memory::{MemoryMut, as_bytes, fits_segment};
use super::reader::{Kind, PROBES, Reader, Record};
use crate::attributes::Attributes;
use crate::path;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The catalog has no room left; what is in it stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("the catalog is full")
    }
}

impl core::error::Error for Full {}

/// What the catalog says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The helper's process id.
    pub pid: u32,
    /// The helper's user.
    pub uid: u32,
    /// Inode of the helper's user namespace, 0 where the kernel has none.
    pub user_namespace: u64,
    /// Inode of the helper's process namespace, 0 where the kernel has none.
    pub process_namespace: u64,
    /// Device number of the store's file system.
    pub store_device: u64,
    /// Root of the store's mirror, e.g. `/dev/shm/copper-1000/tree`.
    pub mirror: &'a [u8],
    /// The view's directory.
    pub view: &'a [u8],
    /// The runtime directory.
    pub runtime: &'a [u8],
    /// Covered prefixes, in normal form.
    pub covered: &'a [Vec<u8>],
}

/// One name of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Inode as the listing gave it.
    pub inode: u64,
    /// Type as the listing gave it.
    pub directory_type: u8,
    /// What is known of the path; `None` for `.` and `..`, which have no record of their own.
    pub what: Option<What<'a>>,
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// It exists, with these attributes and, for a link, this target.
    Present(&'a Attributes, &'a [u8]),
    /// It does not exist, and this is how the origin says so.
    Absent(u16),
    /// Only the origin can answer for it.
    Pass,
}

/// The writer and its memory.
pub struct Writer<M> {
    reader: Reader<M>,
    end: u64,
    records: IndexUse,
    inodes: IndexUse,
    /// Listings that lapsed, by the offset of their directory's record.
    lapsed: BTreeMap<u64, u64>,
}

#[derive(Clone, Copy)]
struct IndexUse {
    header: u64,
    used: u64,
}

/// Small under the model checker, which looks at every slot.
const FIRST_INDEX_LOG2: u32 = if cfg!(loom) { 2 } else { 12 };

impl<M: MemoryMut> Writer<M> {
    /// Begins a catalog in zeroed memory. The magic word is stored last.
    ///
    /// # Errors
    /// [`Full`] where the memory does not hold the header, the strings and the first index.
    pub fn create(memory: M, identity: &Identity<'_>) -> Result<Writer<M>, Full> {
        let mut writer = Writer {
            reader: Reader::new(memory),
            end: header::LENGTH,
            records: IndexUse {
                header: header::PATH_INDEX,
                used: 0,
            },
            inodes: IndexUse {
                header: header::INODE_INDEX,
                used: 0,
            },
            lapsed: BTreeMap::new(),
        };
        if writer.memory().capacity() < header::LENGTH {
            return Err(Full);
        }
        writer.memory().store(header::VERSION, layout::VERSION);
        writer.memory().store(header::PID, u64::from(identity.pid));
        writer.memory().store(header::UID, u64::from(identity.uid));
        for (word, namespace) in [
            (header::USER_NAMESPACE, identity.user_namespace),
            (header::PROCESS_NAMESPACE, identity.process_namespace),
        ] {
            writer.memory().store(word, namespace);
        }
        writer
            .memory()
            .store(header::STORE_DEVICE, identity.store_device);
        writer.put_strings(identity)?;
        for index in [header::PATH_INDEX, header::INODE_INDEX] {
            let offset = writer.allocate(8 << FIRST_INDEX_LOG2)?;
            writer
                .memory()
                .store(index, layout::index_word(offset, FIRST_INDEX_LOG2));
        }
        writer.memory().store(header::STATE, layout::SERVING);
        writer.memory().store(header::MAGIC, layout::MAGIC);
        Ok(writer)
    }

    fn put_strings(&mut self, identity: &Identity<'_>) -> Result<(), Full> {
        let fixed = [identity.mirror, identity.view, identity.runtime];
        let texts = fixed
            .into_iter()
            .chain(identity.covered.iter().map(Vec::as_slice));
        let mut block = Vec::new();
        let mut count = 0u32;
        for text in texts {
            let length = u16::try_from(text.len()).map_err(|_| Full)?;
            block.extend_from_slice(&length.to_ne_bytes());
            block.extend_from_slice(text);
            count += 1;
        }
        let length = u32::try_from(block.len()).map_err(|_| Full)?;
        let offset = self.allocate(8 + block.len() as u64)?;
        self.fill(offset, &length.to_ne_bytes());
        self.fill(offset + 4, &count.to_ne_bytes());
        self.fill(offset + 8, &block);
        self.memory().store(header::STRINGS, offset);
        Ok(())
    }

    /// Look-ups in what was written.
    pub fn reader(&self) -> &Reader<M> {
        &self.reader
    }

    fn memory(&self) -> &M {
        self.reader.memory()
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) {
        self.reader.memory_mut().fill(offset, bytes);
    }

    /// Bytes in use.
    pub fn in_use(&self) -> u64 {
        self.end
    }

    /// Number of paths known or once known.
    pub fn paths(&self) -> u64 {
        self.records.used
    }

    fn allocate(&mut self, length: u64) -> Result<u64, Full> {
        let length = layout::align(length);
        let mut start = self.end;
        while !fits_segment(start, length) {
            let next = layout::segment_of(start) + 1;
            if next >= layout::SEGMENTS {
                return Err(Full);
            }
            start = layout::segment_start(next);
        }
        if start + length > self.memory().capacity() {
            return Err(Full);
        }
        self.end = start + length;
        self.memory().store(header::IN_USE, self.end);
        Ok(start)
    }

    /// Makes one path known.
    ///
    /// A live record that already says the same is kept, and an absence that was retired is believed
    /// again, so that asking twice takes no room.
    ///
    /// # Errors
    /// [`Full`]; the path then stays as it was.
    pub fn publish(&mut self, path: &[u8], what: What<'_>) -> Result<u64, Full> {
        if let Some(old) = self.reader.find(path).filter(|old| says(old, what)) {
            let (offset, live) = (old.offset(), old.is_live());
            if live || matches!(what, What::Absent(_)) {
                self.memory().store(offset + record::STATE, layout::LIVE);
                return Ok(offset);
            }
        }
        let offset = self.append(path, what)?;
        self.point(path, offset)?;
        Ok(offset)
    }

    /// Makes a directory known whole: its own attributes, and every name in it.
    ///
    /// # Errors
    /// [`Full`]; some of the names may have become known, the directory has not.
    pub fn publish_directory(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        children: &[Child<'_>],
    ) -> Result<u64, Full> {
        let mut whole = Vec::with_capacity(path.len() + path::NAME_MAX + 1);
        for child in children {
            let Some(what) = child.what else { continue };
            whole.clear();
            whole.extend_from_slice(if path == b"/" { b"" } else { path });
            whole.push(b'/');
            whole.extend_from_slice(child.name);
            self.publish(&whole, what)?;
        }
        let listing = self.listing(path, children)?;
        self.complete(path, attributes, listing)
    }

    /// The last step of a directory: after this its missing names are absent.
    fn complete(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        listing: u64,
    ) -> Result<u64, Full> {
        let generation = self.reader.word(header::GENERATION);
        self.memory().store(header::GENERATION, generation + 1);
        let kept = self
            .reader
            .live(path)
            .filter(|live| says(live, What::Present(attributes, b"")));
        if let Some(live) = kept {
            let offset = live.offset();
            self.memory().store(offset + record::LISTING, listing);
            return Ok(offset);
        }
        let offset = self.append(path, What::Present(attributes, b""))?;
        self.memory().store(offset + record::LISTING, listing);
        self.point(path, offset)?;
        Ok(offset)
    }

    /// Where the listing lies: where it lay before it lapsed, if it is still the same.
    fn listing(&mut self, path: &[u8], children: &[Child<'_>]) -> Result<u64, Full> {
        let entries = entries(children)?;
        let known = self.reader.find(path).map(|known| known.offset());
        let lapsed = known.and_then(|offset| self.lapsed.remove(&offset));
        if let Some(lapsed) = lapsed
            && self.holds_listing(lapsed, &entries)
        {
            return Ok(lapsed);
        }
        let length = u32::try_from(entries.len()).map_err(|_| Full)?;
        let offset = self.allocate(layout::LISTING_HEAD + entries.len() as u64)?;
        self.fill(offset, &length.to_ne_bytes());
        self.fill(offset + 4, &(children.len() as u32).to_ne_bytes());
        self.fill(offset + layout::LISTING_HEAD, &entries);
        Ok(offset)
    }

    /// Whether the listing at `offset` has these entries.
    fn holds_listing(&self, offset: u64, entries: &[u8]) -> bool {
        let head = self.memory().load(offset).unwrap_or(0).to_ne_bytes();
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let start = offset + layout::LISTING_HEAD;
        length == entries.len() && self.memory().bytes(start, length) == Some(entries)
    }

    /// Writes a record that nobody finds yet.
    fn append(&mut self, path: &[u8], what: What<'_>) -> Result<u64, Full> {
        let none = Attributes::default();
        let (kind, errno, attributes, link): (u8, u16, &Attributes, &[u8]) = match what {
            What::Present(attributes, link) => (layout::KIND_PRESENT, 0, attributes, link),
            What::Absent(errno) => (layout::KIND_ABSENT, errno, &none, b""),
            What::Pass => (layout::KIND_PASS, 0, &none, b""),
        };
        let text = path.len() + link.len() + 2;
        let length = layout::align(record::PATH + text as u64);
        let head = RecordHead {
            length: u32::try_from(length).map_err(|_| Full)?,
            path_length: u16::try_from(path.len()).map_err(|_| Full)?,
            link_length: u16::try_from(link.len()).map_err(|_| Full)?,
            kind,
            reserved: 0,
            errno,
            reserved_too: 0,
        };
        let offset = self.allocate(length)?;
        self.fill(offset + record::HASH, &path::hash(path).to_ne_bytes());
        self.fill(offset + record::HEAD, as_bytes(&head));
        self.fill(offset + record::ATTRIBUTES, as_bytes(attributes));
        self.fill(offset + record::PATH, path);
        self.fill(offset + record::PATH + path.len() as u64 + 1, link);
        self.memory().store(offset + record::STATE, layout::LIVE);
        Ok(offset)
    }

    /// Lets the index lead from `path` to the record at `offset`; the older record is retired.
    fn point(&mut self, path: &[u8], offset: u64) -> Result<(), Full> {
        let hash = path::hash(path);
        let old = self.reader.find(path).map(|old| old.offset());
        if let Some(old) = old {
            let at = self.slot_of(header::PATH_INDEX, hash, |slot| {
                layout::slot_offset(slot) == old
            });
            let at = at.ok_or(Full)?;
            self.note_loss();
            self.memory().store(at, layout::slot(offset, hash));
            self.memory().store(old + record::STATE, layout::RETIRED);
            return Ok(());
        }
        let mut index = self.records;
        self.insert(&mut index, hash, offset)?;
        self.records = index;
        Ok(())
    }

    fn slot_of(&self, index: u64, hash: u64, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let (offset, mask) = layout::index_place(self.reader.word(index))?;
        (0..PROBES.min(mask + 1))
            .map(|step| offset + (hash.wrapping_add(step) & mask) * 8)
            .find(|&at| self.memory().load(at).is_some_and(&wanted))
    }

    fn insert(&mut self, index: &mut IndexUse, hash: u64, offset: u64) -> Result<(), Full> {
        let (_, mask) = layout::index_place(self.reader.word(index.header)).ok_or(Full)?;
        if (index.used + 1) * 4 > mask + 1 {
            self.grow(index)?;
        }
        loop {
            if let Some(at) = self.slot_of(index.header, hash, |slot| slot == 0) {
                self.memory().store(at, layout::slot(offset, hash));
                index.used += 1;
                return Ok(());
            }
            self.grow(index)?;
        }
    }

    /// Builds a larger index aside, with all that the old one leads to, and publishes it whole.
    fn grow(&mut self, index: &mut IndexUse) -> Result<(), Full> {
        let word = self.reader.word(index.header);
        let (old, old_mask) = layout::index_place(word).ok_or(Full)?;
        let mut log2 = (word & 63) as u32 + 1;
        'larger: loop {
            let new = self.allocate(8 << log2)?;
            let mask = (1u64 << log2) - 1;
            for number in 0..=old_mask {
                let slot = self.memory().load(old + number * 8).unwrap_or(0);
                if slot != 0 && !self.put_aside(new, mask, slot, index.header) {
                    log2 += 1;
                    continue 'larger;
                }
            }
            self.memory()
                .store(index.header, layout::index_word(new, log2));
            return Ok(());
        }
    }

    fn put_aside(&self, index: u64, mask: u64, slot: u64, header: u64) -> bool {
        let hash = self.hash_behind(slot, header);
        let free = (0..PROBES.min(mask + 1))
            .map(|step| index + (hash.wrapping_add(step) & mask) * 8)
            .find(|&at| self.memory().load(at) == Some(0));
        if let Some(at) = free {
            self.memory().store(at, slot);
        }
        free.is_some()
    }

    fn hash_behind(&self, slot: u64, index: u64) -> u64 {
        let offset = layout::slot_offset(slot);
        if index == header::INODE_INDEX {
            layout::inode_hash(self.memory().load(offset).unwrap_or(0))
        } else {
            self.memory().load(offset + record::HASH).unwrap_or(0)
        }
    }

    /// Says that the bytes of the record at `offset` are in the store's file `inode`.
    ///
    /// # Errors
    /// [`Full`]; the content then stays unknown.
    pub fn set_stored(&mut self, offset: u64, inode: u64) -> Result<(), Full> {
        let known = self
            .reader
            .by_store_inode(inode)
            .map(|known| known.offset());
        if known != Some(offset) {
            let entry = self.allocate(16)?;
            self.fill(entry, &inode.to_ne_bytes());
            self.fill(entry + 8, &offset.to_ne_bytes());
            let mut index = self.inodes;
            let hash = layout::inode_hash(inode);
            let old = self.slot_of(index.header, hash, |slot| {
                slot != 0 && self.memory().load(layout::slot_offset(slot)) == Some(inode)
            });
            match old {
                Some(at) => self.memory().store(at, layout::slot(entry, hash)),
                None => self.insert(&mut index, hash, entry)?,
            }
            self.inodes = index;
        }
        self.memory().store(offset + record::CONTENT, inode);
        Ok(())
    }

    /// Says that all that the loader will search on behalf of the file of the record at `offset` is in
    /// the store; it is believed until the next loss.
    pub fn set_closure(&mut self, offset: u64) {
        let losses = self.reader.word(header::LOSSES);
        self.memory()
            .store(offset + record::CLOSURE, losses.wrapping_add(1));
    }

    /// Called before what was known, or stored, is so no more.
    fn note_loss(&self) {
        let losses = self.reader.word(header::LOSSES);
        self.memory().store(header::LOSSES, losses.wrapping_add(1));
    }

    /// Says that the bytes of the record at `offset` are to be had from the origin only.
    pub fn set_pass(&mut self, offset: u64) {
        self.note_loss();
        self.memory()
            .store(offset + record::CONTENT, layout::CONTENT_PASS);
    }

    /// Says that the bytes of the record at `offset` are no longer in the store.
    pub fn set_evicted(&mut self, offset: u64) {
        self.note_loss();
        self.memory().store(offset + record::CONTENT, 0);
    }

    /// Makes `path` unknown; its directory as well, so that nobody takes it for absent.
    pub fn retire(&mut self, path: &[u8]) {
        let (parent, _) = path::split_last(path);
        self.retire_one(parent);
        self.retire_one(path);
    }

    fn retire_one(&mut self, path: &[u8]) {
        if let Some(offset) = self.reader.live(path).map(|live| live.offset()) {
            self.note_loss();
            self.memory().store(offset + record::STATE, layout::RETIRED);
        }
    }

    /// Makes `path`, its directory and all below it unknown; returns the store inodes that the
    /// retired files had, with their paths.
    pub fn retire_below(&mut self, path: &[u8]) -> Vec<Vec<u8>> {
        self.note_loss();
        self.retire(path);
        let mut retired = Vec::new();
        let Some((index, mask)) = layout::index_place(self.reader.word(header::PATH_INDEX)) else {
            return retired;
        };
        for number in 0..=mask {
            let slot = self.memory().load(index + number * 8).unwrap_or(0);
            if slot == 0 {
                continue;
            }
            let Some(found) = self.reader.record(layout::slot_offset(slot)) else {
                continue;
            };
            if !path::is_within(found.path(), path) {
                continue;
            }
            let (offset, name) = (found.offset(), found.path().to_vec());
            self.memory().store(offset + record::STATE, layout::RETIRED);
            retired.push(name);
        }
        retired
    }

    /// Makes the names unknown that the directory `path` lacks; the directory and the names it has
    /// stay known. True where its listing was known whole.
    pub fn lapse_listing(&mut self, path: &[u8]) -> bool {
        let Some(offset) = self.reader.live(path).map(|live| live.offset()) else {
            return false;
        };
        let listing = self
            .memory()
            .load(offset + record::LISTING)
            .filter(|&at| at != 0);
        if let Some(listing) = listing {
            self.note_loss();
            self.memory().store(offset + record::LISTING, 0);
            self.lapsed.insert(offset, listing);
        }
        listing.is_some()
    }

    /// Makes `path` unknown if it is known to be absent.
    pub fn lapse_absence(&mut self, path: &[u8]) {
        let absent = |live: &Record<'_>| matches!(live.kind(), Kind::Absent(_));
        if self.reader.live(path).is_some_and(|live| absent(&live)) {
            self.retire_one(path);
        }
    }

    /// Tells readers how many alarms have been acted upon.
    pub fn set_alarms_seen(&mut self, alarms: u64) {
        self.memory().store(header::ALARMS_SEEN, alarms);
    }

    /// Tells readers that nobody keeps the catalog any more.
    pub fn stop(&mut self) {
        self.memory().store(header::STATE, layout::STOPPED);
    }
}

/// A listing's entries as they lie in memory.
fn entries(children: &[Child<'_>]) -> Result<Vec<u8>, Full> {
    let mut entries = Vec::new();
    for child in children {
        entries.extend_from_slice(&child.inode.to_ne_bytes());
        entries.push(child.directory_type);
        entries.push(u8::try_from(child.name.len()).map_err(|_| Full)?);
        entries.extend_from_slice(child.name);
        entries.push(0);
        entries.resize(layout::align(entries.len() as u64) as usize, 0);
    }
    Ok(entries)
}

fn says(known: &Record<'_>, what: What<'_>) -> bool {
    match (known.kind(), what) {
        (Kind::Present, What::Present(attributes, link)) => {
            known.attributes() == attributes && known.link() == link
        }
        (Kind::Absent(errno), What::Absent(other)) => errno == i32::from(other),
        (Kind::Pass, What::Pass) => true,
        _ => false,
    }
}
