//! The objects that a node is finding out about or whose bodies it is bringing in.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::super::interface::{RequestId, Time, Waiter};
use super::super::object::{Object, Record};
use super::super::topology::{Rank, TreeIndex};

/// A request of a peer that waits for what an object is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) rank: Rank,
    pub(super) request: RequestId,
}

/// A peer's pull that waits for its chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    pub(super) rank: Rank,
    pub(super) request: RequestId,
    pub(super) chunk: u32,
}

/// How far a body's chunks of one tree have been asked for.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// The next chunk of this tree that was never asked for.
    pub(super) next: u32,
    pub(super) flying: u16,
}

/// A body that is coming in chunk by chunk.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) record: Arc<Record>,
    pub(super) chunks: u32,
    pub(super) missing: u32,
    have: Vec<u64>,
    asked: Vec<u64>,
    /// Bring all of it, not only what peers pull.
    pub(super) whole: bool,
    /// One per tree, made when the whole is first wanted.
    pub(super) lanes: Vec<Lane>,
    /// Chunks to be asked for again.
    pub(super) again: Vec<u32>,
    pub(super) flights: Vec<RequestId>,
    pub(super) pulls: Vec<Pull>,
}

impl Body {
    pub(super) fn new(record: Arc<Record>, chunks: u32) -> Self {
        let words = chunks.div_ceil(64) as usize;
        Self {
            record,
            chunks,
            missing: chunks,
            have: alloc::vec![0; words],
            asked: alloc::vec![0; words],
            whole: false,
            lanes: Vec::new(),
            again: Vec::new(),
            flights: Vec::new(),
            pulls: Vec::new(),
        }
    }

    pub(super) fn has(&self, chunk: u32) -> bool {
        self.have[(chunk / 64) as usize] >> (chunk % 64) & 1 == 1
    }

    /// Notes that a chunk is here; false if it was already.
    pub(super) fn set(&mut self, chunk: u32) -> bool {
        let new = !self.has(chunk);
        self.have[(chunk / 64) as usize] |= 1 << (chunk % 64);
        self.missing -= u32::from(new);
        new
    }

    pub(super) fn is_asked(&self, chunk: u32) -> bool {
        self.asked[(chunk / 64) as usize] >> (chunk % 64) & 1 == 1
    }

    pub(super) fn set_asked(&mut self, chunk: u32, asked: bool) {
        let bit = 1 << (chunk % 64);
        let word = &mut self.asked[(chunk / 64) as usize];
        *word = if asked { *word | bit } else { *word & !bit };
    }

    pub(super) fn lane(&mut self, tree: TreeIndex) -> Option<&mut Lane> {
        self.lanes.get_mut(usize::from(tree))
    }
}

/// An object under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) object: Object,
    /// When it last came forward.
    pub(super) moved: Time,
    /// The stamp of a version that is gone, or 0.
    pub(super) avoid: u64,
    pub(super) restarts: u8,
    pub(super) header: Option<RequestId>,
    /// Mostly one of either, or none.
    pub(super) waiters: SmallVec<[(Waiter, Time); 1]>,
    pub(super) askers: SmallVec<[Asker; 1]>,
    pub(super) body: Option<Box<Body>>,
}

impl Open {
    /// Whether nobody waits for it and nothing is under way: a part of a body, kept for peers.
    pub(super) fn is_idle(&self) -> bool {
        self.header.is_none()
            && self.waiters.is_empty()
            && self.askers.is_empty()
            && self
                .body
                .as_ref()
                .is_none_or(|body| body.flights.is_empty() && body.pulls.is_empty())
    }
}

/// Ends the list of free slots.
const NONE: u32 = u32::MAX;

enum Slot {
    Used(Open),
    /// Free; with the slot that is free next.
    Free(u32),
}

impl Slot {
    fn open(&self) -> Option<&Open> {
        match self {
            Self::Used(open) => Some(open),
            Self::Free(_) => None,
        }
    }
}

/// All objects under way, found by object or by slot.
pub(super) struct Opens {
    slots: Vec<Slot>,
    /// The slot that was freed last.
    free: u32,
    used: usize,
    /// Used slots by object.
    index: HashTable<u32>,
}

impl Default for Opens {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            used: 0,
            index: HashTable::new(),
        }
    }
}

impl Opens {
    pub(super) fn find(&self, object: &Object) -> Option<u32> {
        self.index
            .find(object.hash(), |&slot| {
                self.get(slot).is_some_and(|open| open.object == *object)
            })
            .copied()
    }

    pub(super) fn insert(&mut self, open: Open) -> u32 {
        if self.free == NONE {
            self.free = self.slots.len() as u32;
            self.slots.push(Slot::Free(NONE));
        }
        let (slot, hash) = (self.free, open.object.hash());
        if let Slot::Free(next) =
            core::mem::replace(&mut self.slots[slot as usize], Slot::Used(open))
        {
            self.free = next;
        }
        self.used += 1;
        let slots = &self.slots;
        self.index.insert_unique(hash, slot, |&other| {
            let open = slots[other as usize].open();
            open.map_or(0, |open| open.object.hash())
        });
        slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Open> {
        self.slots.get(slot as usize)?.open()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Open> {
        match self.slots.get_mut(slot as usize)? {
            Slot::Used(open) => Some(open),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Open> {
        let hash = self.get(slot)?.object.hash();
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        self.used -= 1;
        let next = core::mem::replace(&mut self.free, slot);
        match core::mem::replace(self.slots.get_mut(slot as usize)?, Slot::Free(next)) {
            Slot::Used(open) => Some(open),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Open)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| entry.open().map(|open| (slot as u32, open)))
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }
}
