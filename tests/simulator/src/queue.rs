//! What is to happen, in order of time; at equal times in the order in which it was scheduled.
//!
//! A wheel of short slots holds the near future, where almost all events of a large run lie, and a
//! heap the rest, so that scheduling costs the same at 100,000 nodes as at ten.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds per slot, as a power of two.
const SLOT_BITS: u32 = 8;

/// Slots in the wheel.
const SLOTS: u64 = 1 << 15;

/// The largest burst of events in one slot whose space is kept for other slots.
const USUAL: usize = 1 << 9;

/// The most events in a group that is looked at in advance.
const AHEAD: usize = 32;

struct Entry<T> {
    time: u64,
    sequence: u64,
    event: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.time, self.sequence)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A priority queue of events by time.
pub struct Queue<T> {
    /// The slot that is being emptied, sorted with the earliest last.
    current: Vec<Entry<T>>,
    /// How many events of it were not shown by [`Queue::coming`] yet.
    unseen: usize,
    /// What was scheduled for that slot, or an earlier time, since.
    late: BinaryHeap<Reverse<Entry<T>>>,
    at: u64,
    wheel: Vec<Vec<Entry<T>>>,
    /// Space of slots that were emptied, for slots that begin to fill.
    spare: Vec<Vec<Entry<T>>>,
    in_wheel: usize,
    far: BinaryHeap<Reverse<Entry<T>>>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            current: Vec::new(),
            unseen: 0,
            late: BinaryHeap::new(),
            at: 0,
            wheel: (0..SLOTS).map(|_| Vec::new()).collect(),
            spare: Vec::new(),
            in_wheel: 0,
            far: BinaryHeap::new(),
            sequence: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Schedules `event` at `time` in nanoseconds; a time in the past counts as now.
    pub fn push(&mut self, time: u64, event: T) {
        self.sequence += 1;
        let entry = Entry {
            time,
            sequence: self.sequence,
            event,
        };
        let slot = time >> SLOT_BITS;
        if slot <= self.at {
            self.late.push(Reverse(entry));
        } else if slot < self.at + SLOTS {
            let slot = &mut self.wheel[(slot % SLOTS) as usize];
            if slot.capacity() == 0
                && let Some(spare) = self.spare.pop()
            {
                *slot = spare;
            }
            slot.push(entry);
            self.in_wheel += 1;
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// Takes the earliest event.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        while self.is_slot_empty() {
            self.turn()?;
        }
        let is_late = match (self.current.last(), self.late.peek()) {
            (Some(next), Some(Reverse(late))) => late < next,
            (next, _) => next.is_none(),
        };
        let entry = if is_late {
            self.late.pop().map(|Reverse(entry)| entry)
        } else {
            self.current.pop()
        };
        entry.map(|entry| (entry.time, entry.event))
    }

    fn is_slot_empty(&self) -> bool {
        self.current.is_empty() && self.late.is_empty()
    }

    /// If a group of events begins with the next, all of the group; else none. Whoever looks before
    /// every [`Self::pop`] sees almost all events in advance (not those scheduled for the very slot
    /// that is being emptied), and can have what they are about fetched from memory together instead of
    /// one by one.
    pub fn coming(&mut self) -> impl Iterator<Item = &T> + Clone {
        while self.is_slot_empty() && self.turn().is_some() {}
        let length = self.current.len();
        let count = if length == self.unseen {
            length.min(AHEAD)
        } else {
            0
        };
        self.unseen -= count;
        let group = self.current.iter().rev().take(count);
        group.map(|entry| &entry.event)
    }

    /// The number of events scheduled.
    pub fn len(&self) -> usize {
        self.current.len() + self.late.len() + self.in_wheel + self.far.len()
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes on to the next slot that may hold something.
    fn turn(&mut self) -> Option<()> {
        if self.in_wheel == 0 {
            let Reverse(next) = self.far.peek()?;
            self.at = next.time >> SLOT_BITS;
        } else {
            self.at += 1;
        }
        let slot = &mut self.wheel[(self.at % SLOTS) as usize];
        if !slot.is_empty() {
            self.in_wheel -= slot.len();
            let emptied = std::mem::replace(&mut self.current, std::mem::take(slot));
            // A large burst may not leave its space behind in every slot that it passes through.
            if (1..=USUAL).contains(&emptied.capacity()) {
                self.spare.push(emptied);
            }
        }
        while let Some(Reverse(next)) = self.far.peek() {
            if next.time >> SLOT_BITS > self.at {
                break;
            }
            self.current
                .extend(self.far.pop().map(|Reverse(entry)| entry));
        }
        self.current.sort_unstable_by(|a, b| b.cmp(a));
        self.unseen = self.current.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_whatever_the_distance() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut queue = Queue::default();
        let mut now = 0;
        let mut number = 0_u64;
        for _ in 0..1_000 {
            queue.push(random.u64(0..100_000_000), 0);
        }
        while let Some((time, _)) = queue.pop() {
            assert!(time >= now, "{time} came after {now}");
            now = time;
            if number < 200_000 {
                number += 1;
                let span = [1, 300, 5_000_000, 9_000_000, 2_000_000_000][random.usize(0..5)];
                queue.push(now + random.u64(0..span), number);
            }
        }
        assert_eq!(number, 200_000);
    }

    #[test]
    fn looking_ahead_shows_what_is_scheduled_and_changes_nothing() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut plain, mut looked) = (Queue::default(), Queue::default());
        for number in 0..10_000_u64 {
            // Not in the slot that is being emptied: what is put there is not shown.
            let time = random.u64(1 << SLOT_BITS..200_000);
            plain.push(time, number);
            looked.push(time, number);
        }
        let mut shown = std::collections::HashSet::new();
        while let Some((time, number)) = plain.pop() {
            shown.extend(looked.coming().copied());
            assert!(shown.contains(&number), "{number} was not shown");
            assert_eq!(looked.pop(), Some((time, number)));
        }
        assert_eq!(looked.coming().count(), 0);
    }

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut queue = Queue::default();
        (0..100).for_each(|i| queue.push(5_000_000_000, i));
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop())
            .map(|(_, event)| event)
            .collect();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
