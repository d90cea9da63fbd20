//! The objects that a node is finding out about or whose bodies it is bringing in.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashTable;

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
    pub(super) waiters: Vec<(Waiter, Time)>,
    pub(super) askers: Vec<Asker>,
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

/// All objects under way, found by object or by slot.
#[derive(Default)]
pub(super) struct Opens {
    slots: Vec<Option<Open>>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

impl Opens {
    pub(super) fn find(&self, object: &Object) -> Option<u32> {
        let slots = &self.slots;
        self.index
            .find(object.hash(), |&slot| {
                slots[slot as usize]
                    .as_ref()
                    .is_some_and(|open| open.object == *object)
            })
            .copied()
    }

    pub(super) fn insert(&mut self, open: Open) -> u32 {
        let hash = open.object.hash();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(open);
        let slots = &self.slots;
        self.index.insert_unique(hash, slot, |&other| {
            slots[other as usize]
                .as_ref()
                .map_or(0, |open| open.object.hash())
        });
        slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Open> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Open> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Open> {
        let open = self.slots.get_mut(slot as usize)?.take()?;
        if let Ok(entry) = self
            .index
            .find_entry(open.object.hash(), |&other| other == slot)
        {
            entry.remove();
        }
        self.free.push(slot);
        Some(open)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Open)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, open)| open.as_ref().map(|open| (slot as u32, open)))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
