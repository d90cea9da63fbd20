//! What a node has asked for and not been answered: requests, pulls, origin reads, transfers.
//!
//! An id is a slot and the slot's generation, so an answer that comes late, twice, or was made up
//! finds no flight.

use alloc::vec::Vec;

use super::super::interface::{RequestId, Time};
use super::super::topology::{Rank, TreeIndex};

/// Which part of an object a flight is to bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What the object is.
    Header,
    /// One chunk of its body.
    Chunk(u32),
}

/// Where a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nowhere: it waits for a credit, or for a busy peer.
    Parked,
    /// A peer was asked.
    Peer { rank: Rank, stand_in: bool },
    /// The origin was asked.
    Origin,
    /// A peer granted the chunk and the driver brings it.
    Transfer { from: Rank },
}

#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// The slot of the object under way that this belongs to.
    pub(super) open: u32,
    pub(super) part: Part,
    pub(super) tree: TreeIndex,
    pub(super) stage: Stage,
    /// Ask the origin, whoever else is there: this node stands in for a lost root.
    pub(super) at_origin: bool,
    /// Transfers that failed.
    pub(super) failures: u8,
    /// Last sign of life, or else when the present peer was first asked.
    pub(super) heard: Time,
    /// When to do something about it.
    pub(super) due: Time,
}

/// Ends the list of free slots.
const NONE: u32 = u32::MAX;

struct Slot {
    generation: u32,
    /// The slot that is free next, while this one is free.
    next_free: u32,
    flight: Option<Flight>,
}

/// All flights of a node.
pub(super) struct Flights {
    slots: Vec<Slot>,
    /// The slot that was freed last.
    free: u32,
    incarnation: u32,
}

impl Flights {
    /// `incarnation` tells this node from one of the same rank that died: its ids must not recur.
    pub(super) fn new(incarnation: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            incarnation,
        }
    }

    pub(super) fn insert(&mut self, flight: Flight) -> RequestId {
        if self.free == NONE {
            self.free = self.slots.len() as u32;
            self.slots.push(Slot {
                generation: self.incarnation,
                next_free: NONE,
                flight: None,
            });
        }
        let slot = self.free;
        let entry = &mut self.slots[slot as usize];
        self.free = entry.next_free;
        entry.flight = Some(flight);
        RequestId(u64::from(entry.generation) << 32 | u64::from(slot))
    }

    /// What a flight is to bring, if it is still under way.
    pub(super) fn part(&self, id: RequestId) -> Option<Part> {
        let slot = self.slots.get((id.0 & 0xffff_ffff) as usize)?;
        let flight = slot
            .flight
            .as_ref()
            .filter(|_| u64::from(slot.generation) == id.0 >> 32)?;
        Some(flight.part)
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Flight> {
        let slot = self.slots.get_mut((id.0 & 0xffff_ffff) as usize)?;
        if u64::from(slot.generation) == id.0 >> 32 {
            slot.flight.as_mut()
        } else {
            None
        }
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Flight> {
        let index = (id.0 & 0xffff_ffff) as usize;
        let slot = self.slots.get_mut(index)?;
        if u64::from(slot.generation) != id.0 >> 32 {
            return None;
        }
        let flight = slot.flight.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = core::mem::replace(&mut self.free, index as u32);
        Some(flight)
    }

    /// All flights with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Flight)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let id = RequestId(u64::from(slot.generation) << 32 | index as u64);
            slot.flight.as_ref().map(|flight| (id, flight))
        })
    }

    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }
}
