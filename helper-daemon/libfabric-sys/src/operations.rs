//! The operations that an endpoint has under way.
//!
//! libfabric keeps a pointer to a context of each until its completion, and writes into it, so
//! contexts never move and are reused only after the completion.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::time::Instant;

use crate::region::Region;

/// What a provider may use as it likes while an operation is under way (`FI_CONTEXT2`).
#[repr(C, align(64))]
struct Context(UnsafeCell<[u64; 8]>);

/// What is under way.
pub(crate) enum Operation {
    /// A receive into this slot of the receive ring.
    Receive { slot: usize },
    /// A message to a peer.
    Send {
        token: u64,
        peer: usize,
        deadline: Instant,
        source: Source,
    },
    /// A read of a peer's memory into a region, which stays registered until the end.
    Read {
        token: u64,
        peer: usize,
        deadline: Instant,
        _destination: Region,
    },
}

/// Where the bytes of a message lie.
pub(crate) enum Source {
    /// In this slot of the send ring.
    Slot(usize),
    /// In a region of the caller's.
    Region { _region: Region },
}

impl Operation {
    /// Token, peer and deadline of a send or read.
    fn posted(&self) -> Option<(u64, usize, Instant)> {
        match self {
            Self::Receive { .. } => None,
            Self::Send {
                token,
                peer,
                deadline,
                ..
            }
            | Self::Read {
                token,
                peer,
                deadline,
                ..
            } => Some((*token, *peer, *deadline)),
        }
    }
}

struct Entry {
    operation: Operation,
    /// Its deadline has passed and that was reported: the completion will not be.
    expired: bool,
}

/// A table of fixed size.
pub(crate) struct Operations {
    contexts: Box<[Context]>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Sends and reads under way, expired ones among them.
    posted: usize,
}

impl Operations {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            contexts: (0..capacity)
                .map(|_| Context(UnsafeCell::new([0; 8])))
                .collect(),
            entries: (0..capacity).map(|_| None).collect(),
            free: (0..capacity).rev().collect(),
            posted: 0,
        }
    }

    /// Reserves a place, or `None` when the table is full.
    pub(crate) fn reserve(&mut self) -> Option<usize> {
        self.free.pop()
    }

    /// Gives back a place whose operation was not accepted.
    pub(crate) fn release(&mut self, index: usize) {
        self.free.push(index);
    }

    /// Notes that the operation at a reserved place was accepted.
    pub(crate) fn start(&mut self, index: usize, operation: Operation) {
        self.posted += usize::from(operation.posted().is_some());
        self.entries[index] = Some(Entry {
            operation,
            expired: false,
        });
    }

    pub(crate) fn context(&self, index: usize) -> *mut c_void {
        self.contexts[index].0.get().cast()
    }

    /// Takes the operation that a completion's context belongs to, and whether it had expired.
    pub(crate) fn finish(&mut self, context: *mut c_void) -> Option<(Operation, bool)> {
        let start = self.contexts.as_ptr() as usize;
        let offset = (context as usize).checked_sub(start)?;
        let index = offset / size_of::<Context>();
        if offset % size_of::<Context>() != 0 {
            return None;
        }
        let entry = self.entries.get_mut(index)?.take()?;
        self.posted -= usize::from(entry.operation.posted().is_some());
        self.free.push(index);
        Some((entry.operation, entry.expired))
    }

    /// Sends and reads under way.
    pub(crate) fn posted(&self) -> usize {
        self.posted
    }

    /// Whether a send to or read from `peer` is under way.
    pub(crate) fn uses_peer(&self, peer: usize) -> bool {
        self.live()
            .any(|entry| entry.operation.posted().is_some_and(|(_, p, _)| p == peer))
    }

    /// The contexts of all receives under way.
    pub(crate) fn receives(&self) -> Vec<*mut c_void> {
        let is_receive = |entry: &Option<Entry>| {
            entry
                .as_ref()
                .is_some_and(|e| matches!(e.operation, Operation::Receive { .. }))
        };
        (0..self.entries.len())
            .filter(|&index| is_receive(&self.entries[index]))
            .map(|index| self.context(index))
            .collect()
    }

    /// Marks the sends and reads whose deadline has passed, and returns their tokens.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let mut tokens = Vec::new();
        for entry in self
            .entries
            .iter_mut()
            .flatten()
            .filter(|entry| !entry.expired)
        {
            if let Some((token, _, deadline)) = entry.operation.posted()
                && deadline <= now
            {
                entry.expired = true;
                tokens.push(token);
            }
        }
        tokens
    }

    /// The earliest deadline that has not been reported.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.live()
            .filter(|entry| !entry.expired)
            .filter_map(|entry| entry.operation.posted().map(|(_, _, deadline)| deadline))
            .min()
    }

    fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn send(token: u64, peer: usize, deadline: Instant) -> Operation {
        Operation::Send {
            token,
            peer,
            deadline,
            source: Source::Slot(0),
        }
    }

    #[test]
    fn a_completion_finds_its_operation_once() {
        let mut operations = Operations::new(2);
        let now = Instant::now();
        let (a, b) = (operations.reserve().unwrap(), operations.reserve().unwrap());
        assert!(operations.reserve().is_none());
        operations.start(a, send(7, 0, now));
        operations.start(b, Operation::Receive { slot: 3 });
        assert_eq!((operations.posted(), operations.receives().len()), (1, 1));
        let context = operations.context(a);
        let finished = operations.finish(context);
        assert!(matches!(
            finished,
            Some((Operation::Send { token: 7, .. }, false))
        ));
        assert!(operations.finish(context).is_none());
        assert_eq!(operations.posted(), 0);
        assert!(operations.reserve().is_some());
    }

    #[test]
    fn a_context_that_is_not_ours_finds_nothing() {
        let mut operations = Operations::new(2);
        let index = operations.reserve().unwrap();
        operations.start(index, Operation::Receive { slot: 0 });
        let inside = operations.context(index).wrapping_byte_add(8);
        let beyond = operations.context(1).wrapping_byte_add(64);
        assert!(operations.finish(std::ptr::null_mut()).is_none());
        assert!(operations.finish(inside).is_none());
        assert!(operations.finish(beyond).is_none());
    }

    #[test]
    fn an_expired_operation_is_reported_once_and_stays_under_way() {
        let mut operations = Operations::new(4);
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        for (token, deadline) in [(1, now), (2, later)] {
            let index = operations.reserve().unwrap();
            operations.start(index, send(token, 5, deadline));
        }
        assert_eq!(operations.next_deadline(), Some(now));
        assert_eq!(operations.expire(now), [1]);
        assert_eq!(operations.expire(now), [0; 0]);
        assert_eq!(operations.next_deadline(), Some(later));
        assert_eq!(operations.posted(), 2);
        assert!(operations.uses_peer(5) && !operations.uses_peer(4));
    }
}
