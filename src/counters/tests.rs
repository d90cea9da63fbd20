//! Claiming, counting and adding up, by many threads at once.

use super::layout::{self, LENGTH, SHARED_SLOT, call};
use super::memory::{Memory, Place};
use super::{Family, Outcome, QUESTIONS, Totals, WAIT_BUCKETS, question, wait_bucket};
use crate::request::Operation;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashSet;
use std::vec::Vec;

/// Memory of a test's own.
pub(super) struct Room(pub(super) *mut u8);

impl Room {
    const LAYOUT: Layout = match Layout::from_size_align(LENGTH as usize, 4096) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    };

    pub(super) fn new() -> Room {
        // SAFETY: the layout is not empty.
        Room(unsafe { alloc_zeroed(Room::LAYOUT) })
    }

    pub(super) fn memory(&self) -> Memory {
        // SAFETY: zeroed, long enough, accessed through the result alone.
        unsafe { Memory::create(self.0) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.0, Room::LAYOUT) };
    }
}

const NOBODY_GONE: &dyn Fn(u32) -> bool = &|_| false;

fn count(place: &Place, memory: Memory, pid: u32, thread: usize, times: u64) {
    let word = call(Family::Stat, Outcome::Hit);
    for _ in 0..times {
        if !place.add(thread, word, 1) {
            place.add_slowly(memory, (thread, word, 1), || pid, NOBODY_GONE);
        }
    }
}

#[test]
fn memory_of_another_kind_is_not_used() {
    let room = Room::new();
    // SAFETY: as long as the layout says; zeroed.
    let read = || unsafe { Memory::new(room.0) };
    assert!(read().is_none(), "memory without a header");
    room.memory();
    assert!(read().is_some());
    // SAFETY: the second word of the header, which nobody else looks at meanwhile.
    unsafe { room.0.add(8).cast::<u64>().write(layout::VERSION + 1) };
    assert!(read().is_none(), "memory of another version");
}

#[test]
fn every_call_of_many_threads_is_counted() {
    const THREADS: usize = 24;
    const TIMES: u64 = 20_000;
    let room = Room::new();
    let (memory, place) = (room.memory(), Place::default());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let place = &place;
            scope.spawn(move || count(place, memory, 7, 0x7f00_0000_0000 + thread * 4096, TIMES));
        }
    });
    let totals = memory.totals();
    assert_eq!(
        totals.of(Family::Stat, Outcome::Hit),
        THREADS as u64 * TIMES
    );
    assert_eq!((totals.processes, totals.running), (1, 1));
}

#[test]
fn processes_are_told_apart_and_none_is_left_out() {
    const PROCESSES: u32 = 2000;
    let room = Room::new();
    let memory = room.memory();
    std::thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || {
                for pid in (1 + first..=PROCESSES).step_by(4) {
                    count(&Place::default(), memory, pid, 4096 * pid as usize, 3);
                }
            });
        }
    });
    let totals = memory.totals();
    assert_eq!(
        totals.of(Family::Stat, Outcome::Hit),
        3 * u64::from(PROCESSES)
    );
    assert_eq!(totals.processes, u64::from(PROCESSES));
    assert_eq!(totals.running, SHARED_SLOT as u64, "all slots are owned");
}

#[test]
fn a_new_image_goes_on_in_the_slot_of_its_process() {
    let room = Room::new();
    let memory = room.memory();
    let first = Place::default().settle(memory, 11, NOBODY_GONE);
    let other = Place::default().settle(memory, 11 + SHARED_SLOT as u32, NOBODY_GONE);
    assert_ne!(first, other);
    assert_eq!(Place::default().settle(memory, 11, NOBODY_GONE), first);
    assert_eq!(memory.totals().processes, 2);
}

#[test]
fn what_a_gone_process_counted_stays_when_its_slot_is_taken() {
    let room = Room::new();
    let memory = room.memory();
    let (killed, next) = (Place::default(), Place::default());
    count(&killed, memory, 5, 4096, 10);
    let slot = next.settle(memory, 5 + SHARED_SLOT as u32, &|pid| pid == 5);
    assert_eq!(slot, 5, "the slot of the process that is gone");
    count(&next, memory, 5 + SHARED_SLOT as u32, 8192, 1);
    let totals = memory.totals();
    assert_eq!(totals.of(Family::Stat, Outcome::Hit), 11);
    assert_eq!((totals.processes, totals.running), (2, 1));
    memory.release_gone(&|_| true);
    assert_eq!(memory.totals().running, 0);
    assert_eq!(memory.totals().of(Family::Stat, Outcome::Hit), 11);
}

#[test]
fn whoever_leaves_makes_room() {
    let room = Room::new();
    let memory = room.memory();
    let place = Place::default();
    let slot = place.settle(memory, 3, NOBODY_GONE);
    place.leave(memory, 4);
    assert_eq!(
        memory.totals().running,
        1,
        "another process cannot give it back"
    );
    place.leave(memory, 3);
    assert_eq!(memory.totals().running, 0);
    let next = Place::default().settle(memory, 3 + SHARED_SLOT as u32, NOBODY_GONE);
    assert_eq!(next, slot);
}

#[test]
fn nonsense_in_the_memory_leads_nowhere_else() {
    let room = Room::new();
    let memory = room.memory();
    let header = layout::DIRECTORY as usize;
    // SAFETY: within the room; nobody else looks at it meanwhile.
    unsafe {
        room.0
            .add(header)
            .write_bytes(0xff, LENGTH as usize - header)
    };
    let place = Place::default();
    count(&place, memory, 1, 4096, 3);
    assert_eq!(place.settle(memory, 1, NOBODY_GONE), SHARED_SLOT);
    assert_eq!(
        memory.totals().processes,
        u64::MAX,
        "sums end at the largest number"
    );
}

#[test]
fn totals_add_up_and_start_anew() {
    let room = Room::new();
    let (memory, place) = (room.memory(), Place::default());
    count(&place, memory, 9, 4096, 4);
    let since = memory.totals();
    count(&place, memory, 9, 4096, 2);
    let mut now = memory.totals();
    now.subtract(&since);
    assert_eq!(now.of(Family::Stat, Outcome::Hit), 2);
    assert_eq!((now.processes, now.running), (0, 1), "it still runs");
    let mut both = now.clone();
    both.add(&since);
    assert_eq!(both.ended(Outcome::Hit), 6);
    assert_eq!(both.ended(Outcome::Absent), 0);
    assert_eq!(both.running, 2);
}

#[test]
fn waits_have_buckets_of_powers_of_two() {
    let buckets = [0, 1, 2, 3, 4, 1023, 1024, u64::MAX].map(wait_bucket);
    assert_eq!(buckets, [0, 0, 1, 1, 2, 9, 10, WAIT_BUCKETS - 1]);
}

#[test]
fn names_and_places_are_unique() {
    let names = Family::ALL.map(Family::name);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    let names = Outcome::ALL.map(Outcome::name);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    let places: HashSet<_> = Family::ALL
        .iter()
        .flat_map(|&family| Outcome::ALL.map(|outcome| call(family, outcome)))
        .collect();
    assert_eq!(places.len(), Family::ALL.len() * Outcome::ALL.len());
    assert!(places.iter().all(|&place| place < layout::WAITS));
    let questions: Vec<_> = [
        Operation::Resolve,
        Operation::Listing,
        Operation::Content,
        Operation::Closure,
        Operation::Changed,
        Operation::Writing,
    ]
    .into_iter()
    .filter_map(question)
    .collect();
    assert_eq!(questions, (0..QUESTIONS.len()).collect::<Vec<_>>());
    assert_eq!(question(Operation::Status), None);
    assert_eq!(Totals::default().waits(), 0);
}
