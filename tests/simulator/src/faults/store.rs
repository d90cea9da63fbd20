//! The store of a simulated node: which bodies it holds, in which version, how much of each.

use copper_core::tree::{Object, Record};
use std::collections::HashMap;

#[derive(Clone, Debug)]
struct Stored {
    stamp: u64,
    missing: usize,
    chunks: Vec<bool>,
    published: bool,
}

/// All bodies of one node.
#[derive(Default)]
pub(super) struct Store {
    bodies: HashMap<(Object, u64), Stored>,
}

impl Store {
    /// A whole body came at once.
    pub(super) fn put_whole(&mut self, object: &Object, stamp: u64) {
        let entry = self.bodies.entry((object.clone(), stamp));
        let stored = entry.or_insert(Stored {
            stamp,
            missing: 0,
            chunks: Vec::new(),
            published: false,
        });
        stored.missing = 0;
        stored.chunks.iter_mut().for_each(|chunk| *chunk = true);
    }

    /// One chunk of `of` came.
    pub(super) fn put_chunk(&mut self, object: &Object, stamp: u64, chunk: u32, of: u32) {
        let entry = self.bodies.entry((object.clone(), stamp));
        let of = of as usize;
        let stored = entry.or_insert_with(|| Stored {
            stamp,
            missing: of,
            chunks: vec![false; of],
            published: false,
        });
        if let Some(have) = stored.chunks.get_mut(chunk as usize)
            && !std::mem::replace(have, true)
        {
            stored.missing -= 1;
        }
    }

    /// Whether a chunk can be read by a peer.
    pub(super) fn has_chunk(&self, object: &Object, stamp: u64, chunk: u32) -> bool {
        self.bodies
            .get(&(object.clone(), stamp))
            .is_some_and(|stored| {
                stored.missing == 0 || stored.chunks.get(chunk as usize).copied().unwrap_or(false)
            })
    }

    /// Whether all of a body is here.
    pub(super) fn is_whole(&self, record: &Record) -> bool {
        self.bodies
            .get(&(record.object.clone(), record.stamp()))
            .is_some_and(|stored| stored.missing == 0 && stored.stamp == record.stamp())
    }

    pub(super) fn is_published(&self, record: &Record) -> bool {
        self.bodies
            .get(&(record.object.clone(), record.stamp()))
            .is_some_and(|stored| stored.published)
    }

    /// All that the catalog holds.
    pub(super) fn published(&self) -> impl Iterator<Item = (&Object, u64)> {
        let published = self.bodies.iter().filter(|(_, stored)| stored.published);
        published.map(|((object, stamp), _)| (object, *stamp))
    }

    pub(super) fn publish(&mut self, record: &Record) {
        let key = (record.object.clone(), record.stamp());
        let entry = self.bodies.entry(key);
        let fresh = Stored {
            stamp: record.stamp(),
            missing: 0,
            chunks: Vec::new(),
            published: false,
        };
        entry.or_insert(fresh).published = true;
    }

    pub(super) fn remove(&mut self, record: &Record) {
        self.bodies.remove(&(record.object.clone(), record.stamp()));
    }
}
