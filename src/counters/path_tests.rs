//! Which calls are noted with their paths, and what becomes of the table under load, after a death
//! half-way, and when it is full of nonsense.

use super::layout::{self, BODIES, BODY_LENGTH, CLAIMS, LENGTH, PATHS, body, call};
use super::memory::{Memory, Place};
use super::paths::{End, Kind, Noted, PERIOD};
use super::tests::Room;
use super::{Family, Outcome};
use crate::control::{Control, Table};
use std::collections::HashMap;
use std::format;
use std::vec::Vec;

const HIT: (Family, Outcome) = (Family::Stat, Outcome::Hit);

/// Counts a call as a thread of the process `pid` does; whether it is to be noted.
fn count(place: &Place, memory: Memory, pid: u32, (family, outcome): (Family, Outcome)) -> bool {
    let (thread, word) = (pid as usize * 4096, call(family, outcome));
    let counted = place.count(thread, word);
    counted.unwrap_or_else(|| place.add_slowly(memory, (thread, word, 1), || pid, &|_| false))
}

fn by_path(memory: Memory) -> HashMap<Vec<u8>, Noted> {
    let noted = memory.noted().into_iter();
    noted.map(|noted| (noted.path.clone(), noted)).collect()
}

fn hits(noted: &Noted) -> u64 {
    noted.covered(Table::Metadata, End::Hit)
}

/// All that was noted of hits of stats, and that was left out.
fn all_hits(memory: Memory) -> u64 {
    let noted: u64 = memory.noted().iter().map(hits).sum();
    noted + memory.left_out(Kind::Covered)
}

#[test]
fn short_programs_are_represented_as_long_ones_are() {
    let room = Room::new();
    let memory = room.memory();
    let mut made = 0_u64;
    for pid in 1..=30_000_u32 {
        let place = Place::default();
        for _ in 0..1 + pid % 13 {
            made += 1;
            if count(&place, memory, pid, HIT) {
                memory.note(HIT.0, HIT.1, b"/lus/a");
            }
        }
        place.leave(memory, pid);
    }
    let noted = all_hits(memory);
    // Some 3,300 calls are noted, give or take 60.
    assert!(noted.abs_diff(made) < made / 8, "{noted} for {made}");
}

#[test]
fn a_program_that_goes_round_in_circles_is_noted_all_around() {
    const TURNS: u64 = 64_000;
    for length in [2_u64, 7, 8, 32, 64, 100, 128] {
        let room = Room::new();
        let (memory, place) = (room.memory(), Place::default());
        for turn in 0..TURNS {
            if count(&place, memory, 3, HIT) {
                let path = format!("/lus/{}", turn % length);
                memory.note(HIT.0, HIT.1, path.as_bytes());
            }
        }
        let noted = by_path(memory);
        let each = TURNS / length;
        assert_eq!(noted.len() as u64, length, "paths of a circle of {length}");
        for (path, noted) in &noted {
            let estimate = hits(noted);
            let wrong = estimate.abs_diff(each);
            let allowed = (each / 3).max(8 * PERIOD);
            assert!(
                wrong <= allowed,
                "{path:?} of {length}: {estimate} for {each}"
            );
        }
        assert_eq!(all_hits(memory), TURNS, "one of each round of calls");
    }
}

#[test]
fn what_was_noted_is_told_apart_by_path_kind_and_end() {
    let room = Room::new();
    let memory = room.memory();
    assert!(memory.noted().is_empty());
    memory.note(Family::Open, Outcome::Hit, b"/lus/a\xff\n");
    memory.note(Family::Open, Outcome::TooLarge, b"/lus/a\xff\n");
    memory.note(Family::Stat, Outcome::Absent, b"/lus/a\xff\n");
    memory.note(Family::List, Outcome::NoHelper, b"/");
    memory.note(Family::Access, Outcome::Uncovered, b"/");
    memory.note(Family::Stat, Outcome::Uncovered, b"");
    memory.note(Family::Stat, Outcome::Hit, b"relative");
    let noted = memory.noted();
    let of = |kind, path: &[u8]| {
        let mut found = noted.iter();
        let found = found.find(|noted| noted.kind == kind && noted.path == path);
        found.unwrap_or_else(|| panic!("{path:?} in {noted:?}"))
    };
    let file = of(Kind::Covered, b"/lus/a\xff\n");
    assert_eq!(file.covered(Table::Data, End::Hit), PERIOD);
    assert_eq!(file.covered(Table::Data, End::TooLarge), PERIOD);
    assert_eq!(file.covered(Table::Metadata, End::Absent), PERIOD);
    assert_eq!(file.covered(Table::Metadata, End::Hit), 0);
    let root = of(Kind::Covered, b"/");
    assert_eq!(root.covered(Table::Tree, End::Passed), PERIOD);
    assert_eq!(of(Kind::Outside, b"/").outside(Family::Access), PERIOD);
    assert_eq!(noted.len(), 3);
    assert_eq!(Kind::ALL.map(|kind| memory.left_out(kind)), [PERIOD; 2]);
}

#[test]
fn long_paths_are_cut_and_directories_in_whole_components() {
    let room = Room::new();
    let memory = room.memory();
    let long = format!("/first/{}", "x".repeat(2 * body::TEXT_MAX));
    memory.note(Family::Stat, Outcome::Hit, long.as_bytes());
    memory.note(Family::Stat, Outcome::Uncovered, long.as_bytes());
    for noted in memory.noted() {
        assert!(noted.is_cut);
        match noted.kind {
            Kind::Covered => assert_eq!(noted.path, &long.as_bytes()[..body::TEXT_MAX]),
            Kind::Outside => assert_eq!(noted.path, b"/first"),
        }
    }
    assert_eq!(memory.noted().len(), 2);
}

#[test]
fn what_is_asked_for_often_stays_where_many_pass_once() {
    let room = Room::new();
    let memory = room.memory();
    const ONCE: u64 = 200_000;
    for number in 0..ONCE {
        memory.note(HIT.0, HIT.1, format!("/lus/once/{number}").as_bytes());
        if number.is_multiple_of(50) {
            memory.note(HIT.0, HIT.1, b"/lus/often");
        }
    }
    let often = &by_path(memory)[&b"/lus/often"[..]];
    // Until it stood for some calls it may have lost its place.
    assert!(hits(often) > ONCE / 50 * PERIOD * 9 / 10, "{often:?}");
    assert_eq!(
        all_hits(memory),
        (ONCE + ONCE / 50) * PERIOD,
        "none is lost"
    );
}

#[test]
fn threads_note_the_same_paths_at_once() {
    const THREADS: u64 = 8;
    const TIMES: u64 = 20_000;
    let room = Room::new();
    let memory = room.memory();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for turn in 0..TIMES {
                    let path = format!("/lus/common/{}", (turn + thread) % 200);
                    memory.note(HIT.0, HIT.1, path.as_bytes());
                    if turn.is_multiple_of(1000) {
                        memory.noted();
                    }
                }
            });
        }
    });
    let noted = by_path(memory);
    assert_eq!(noted.len(), 200);
    let each = THREADS * TIMES / 200 * PERIOD;
    assert!(noted.values().all(|noted| hits(noted) == each), "{noted:?}");
}

/// Where the claims of places are that are taken.
fn taken(room: &Room) -> Vec<usize> {
    let claims = (0..PATHS).map(|at| CLAIMS as usize + at * 8);
    // SAFETY: within the room; nobody else looks at it meanwhile.
    let taken = claims.filter(|&at| unsafe { room.0.add(at).cast::<u64>().read() } != 0);
    taken.collect()
}

fn body_of(claim: usize) -> usize {
    BODIES as usize + (claim - CLAIMS as usize) / 8 * BODY_LENGTH as usize
}

#[test]
fn who_ends_half_way_leaves_a_place_that_others_can_use() {
    let room = Room::new();
    let memory = room.memory();
    memory.note(HIT.0, HIT.1, b"/lus/a");
    let place = taken(&room)[0];
    // SAFETY: within the room; nobody else looks at it meanwhile.
    let write = |at: usize, word: u64| unsafe { room.0.add(at).cast::<u64>().write(word) };
    // It was claimed, and the text was not written yet.
    write(body_of(place), 0);
    assert!(memory.noted().is_empty());
    memory.note(HIT.0, HIT.1, b"/lus/a");
    assert_eq!(hits(&memory.noted()[0]), 2 * PERIOD);
    // It was taken from another, whose text is still there.
    write(
        body_of(place) + body::TEXT as usize,
        u64::from_ne_bytes(*b"/lus/b\0\0"),
    );
    assert!(memory.noted().is_empty());
    memory.note(HIT.0, HIT.1, b"/lus/a");
    assert_eq!(memory.noted()[0].path, b"/lus/a");
}

#[test]
fn nonsense_in_the_table_is_not_believed_and_goes() {
    let room = Room::new();
    let memory = room.memory();
    let start = layout::NOTED as usize;
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..3 {
        for at in (CLAIMS as usize..LENGTH as usize)
            .step_by(8)
            .chain([start, start + 8])
        {
            let word = match round {
                0 => u64::MAX,
                1 => random(),
                // Lengths that could be true.
                _ => random() % 64,
            };
            // SAFETY: within the room; nobody else looks at it meanwhile.
            unsafe { room.0.add(at).cast::<u64>().write(word) };
        }
        for noted in memory.noted() {
            assert!(!noted.path.is_empty(), "round {round}");
        }
        for number in 0..5_000 {
            memory.note(HIT.0, HIT.1, format!("/lus/{number}").as_bytes());
        }
        memory.set_noted_back(Control::ResetCounts);
        assert!(memory.noted().is_empty());
        memory.note(HIT.0, HIT.1, b"/lus/a");
        assert_eq!(hits(&by_path(memory)[&b"/lus/a"[..]]), PERIOD);
    }
}

#[test]
fn what_is_set_back_begins_anew_and_nothing_else() {
    let left = |control: Control| {
        let room = Room::new();
        let memory = room.memory();
        for family in [Family::Open, Family::List, Family::Stat] {
            for outcome in [Outcome::Hit, Outcome::Absent, Outcome::Asked] {
                memory.note(family, outcome, b"/lus/a");
            }
            memory.note(family, Outcome::Uncovered, b"/home");
        }
        memory.set_noted_back(control);
        let noted = memory.noted();
        let of = |kind| noted.iter().find(|noted| noted.kind == kind).cloned();
        (of(Kind::Covered), of(Kind::Outside))
    };
    let calls = |noted: &Option<Noted>, table, end| {
        let noted = noted.as_ref().expect("it is still there");
        noted.covered(table, end) / PERIOD
    };
    let (covered, outside) = left(Control::ResetHits);
    assert_eq!(calls(&covered, Table::Data, End::Hit), 0);
    assert_eq!(calls(&covered, Table::Data, End::Absent), 1);
    assert_eq!(outside.expect("it is there").outside(Family::Open), PERIOD);
    let (covered, _) = left(Control::ResetTreeEvents);
    assert_eq!(calls(&covered, Table::Tree, End::Asked), 0);
    assert_eq!(calls(&covered, Table::Metadata, End::Asked), 1);
    let (covered, _) = left(Control::ResetNegatives);
    assert_eq!(calls(&covered, Table::Metadata, End::Absent), 0);
    let (covered, _) = left(Control::ResetTimes);
    assert_eq!(calls(&covered, Table::Data, End::Hit), 1);
    for all in [Control::ResetCounts, Control::ResetAll] {
        assert_eq!(left(all), (None, None));
    }
}
