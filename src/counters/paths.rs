//! Which paths calls were about: one call of [`PERIOD`] is noted with its path, in a table of bounded
//! size in the counters' memory, so that a program's call is hardly ever slower for it.
//!
//! Which calls are noted looks random to any program, and each is as likely as any other: of every
//! [`PERIOD`] calls that one word counts there is one, at a place that differs from word to word,
//! from process to process and from one time to the next. So what was noted, times [`PERIOD`], is an
//! estimate without bias, of programs that make few calls as well.
//!
//! The table takes no lock. A place is claimed by what is computed from the text, so whoever finds
//! the claim without its text can write that text, and whoever reads a text that does not lead to its
//! claim does not believe it. Where all places for a path are taken, one that is little used falls to
//! others when more calls have missed theirs than it stands for.

use super::Family;
use super::Outcome;
use super::layout::{
    BODIES, BODY_LENGTH, CLAIMS, LEFT_OUT, NOTED, PATHS,
    body::{CELL_COUNT, CELLS, CUT, LENGTH, PRESSURE, TEXT, TEXT_MAX},
};
use super::memory::Memory;
use crate::control::{Control, Table, table};
use crate::path;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// One call of so many is noted, a power of two.
pub const PERIOD: u64 = 64;
const PERIOD_BITS: u32 = PERIOD.trailing_zeros();
/// Places that a path may have.
const PROBES: u64 = 8;

/// Whether a call is to be noted that was counted in `word`, where there were so many `before`.
#[inline(always)]
pub(super) fn is_noted(word: &AtomicU64, before: u64) -> bool {
    // The address differs from word to word, and where a process has its slot and its mappings.
    let round = (before >> PERIOD_BITS).wrapping_add(word.as_ptr() as u64 >> 3);
    let place = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PERIOD_BITS);
    before & (PERIOD - 1) == place
}

/// What a path is noted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path on the origin that Copper answers for.
    Covered,
    /// A directory that calls were made in, and that is not covered.
    Outside,
}

impl Kind {
    /// Both of them, by number.
    pub const ALL: [Kind; 2] = [Kind::Covered, Kind::Outside];
}

/// How a call on a covered path ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At once.
    Hit,
    /// At once: there is no such file.
    Absent,
    /// After a question to the helper.
    Asked,
    /// At the origin: the store does not hold the file.
    TooLarge,
    /// At the origin, for any other reason.
    Passed,
}

impl End {
    /// All of them, by number.
    pub const ALL: [End; 5] = [
        End::Hit,
        End::Absent,
        End::Asked,
        End::TooLarge,
        End::Passed,
    ];

    const fn of(outcome: Outcome) -> End {
        match outcome {
            Outcome::Hit => End::Hit,
            Outcome::Absent => End::Absent,
            Outcome::Asked => End::Asked,
            Outcome::TooLarge => End::TooLarge,
            _ => End::Passed,
        }
    }
}

const _: () = assert!(Table::ALL.len() * End::ALL.len() <= CELL_COUNT);

/// What a call is noted as, and in which cell: covered paths by table and [`End`], directories
/// outside by [`Family`].
const fn cell(family: Family, outcome: Outcome) -> (Kind, usize) {
    match outcome {
        Outcome::Uncovered => (Kind::Outside, family as usize),
        _ => (Kind::Covered, cell_of(table(family), End::of(outcome))),
    }
}

const fn cell_of(table: Table, end: End) -> usize {
    table as usize * End::ALL.len() + end as usize
}

/// Calls, by cell.
pub type Cells = [u64; CELL_COUNT];

/// What was noted of a path; calls are estimates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What it is.
    pub kind: Kind,
    /// Its text: bytes that any process of the job could have written.
    pub path: Vec<u8>,
    /// The path is longer than its text.
    pub is_cut: bool,
    cells: Cells,
}

impl Noted {
    /// Calls on a covered path.
    pub fn covered(&self, table: Table, end: End) -> u64 {
        self.cells[cell_of(table, end)]
    }

    /// Calls of a family in a directory outside.
    pub fn outside(&self, family: Family) -> u64 {
        self.cells[family as usize]
    }
}

/// What stands in a place for a path.
fn claim(kind: Kind, text: &[u8]) -> u64 {
    (path::hash(text) & !1 | kind as u64).max(2)
}

/// The part of a path that is noted, and whether there is more.
fn fit(kind: Kind, text: &[u8]) -> (&[u8], bool) {
    if text.len() <= TEXT_MAX {
        return (text, false);
    }
    let begin = &text[..TEXT_MAX];
    match kind {
        Kind::Covered => (begin, true),
        // What is left must be a directory that there is.
        Kind::Outside => (path::split_last(begin).0, true),
    }
}

impl Memory {
    fn claim_at(&self, at: u64) -> &AtomicU64 {
        self.word(CLAIMS + at % PATHS as u64 * 8)
    }

    fn body(&self, at: u64, what: u64) -> &AtomicU64 {
        self.word(BODIES + at % PATHS as u64 * BODY_LENGTH + what)
    }

    fn cells(&self, at: u64) -> impl Iterator<Item = &AtomicU64> {
        (0..CELL_COUNT as u64).map(move |cell| self.body(at, CELLS + cell * 8))
    }

    fn sum(&self, at: u64) -> u64 {
        let cells = self.cells(at).map(|cell| cell.load(Ordering::Relaxed));
        cells.fold(0, u64::saturating_add)
    }

    fn left_out_word(&self, kind: Kind) -> &AtomicU64 {
        self.word(LEFT_OUT + kind as u64 * 8)
    }

    /// Notes what a call was about: an absolute path on the origin, or where the path was not covered
    /// the directory that the call was made in; nothing where that is not known.
    pub fn note(&self, family: Family, outcome: Outcome, text: &[u8]) {
        let noted = self.word(NOTED);
        if noted.load(Ordering::Relaxed) == 0 {
            noted.store(1, Ordering::Relaxed);
        }
        let (kind, cell) = cell(family, outcome);
        let (text, is_cut) = fit(kind, text);
        let place = match text.first() {
            Some(b'/') => self.place_of(claim(kind, text)),
            _ => None,
        };
        let Some(at) = place else {
            self.left_out_word(kind).fetch_add(1, Ordering::Relaxed);
            return;
        };
        let length = self.body(at, LENGTH);
        if length.load(Ordering::Relaxed) == 0 {
            for (number, part) in text.chunks(8).enumerate() {
                let mut bytes = [0; 8];
                bytes[..part.len()].copy_from_slice(part);
                let word = self.body(at, TEXT + number as u64 * 8);
                word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            }
            let flag = if is_cut { CUT } else { 0 };
            length.store(text.len() as u64 | flag, Ordering::Release);
        }
        let counted = self.body(at, CELLS + cell as u64 * 8);
        counted.fetch_add(1, Ordering::Relaxed);
    }

    /// The place of a path, a new one if need be.
    fn place_of(&self, claim: u64) -> Option<u64> {
        let first = claim >> 32;
        for at in first..first + PROBES {
            let word = self.claim_at(at);
            let mut found = word.load(Ordering::Relaxed);
            if found == 0 {
                let order = (Ordering::AcqRel, Ordering::Relaxed);
                match word.compare_exchange(0, claim, order.0, order.1) {
                    Ok(_) => return Some(at),
                    Err(now) => found = now,
                }
            }
            if found == claim {
                return Some(at);
            }
        }
        self.take_place(first, claim)
    }

    /// Takes the place of a path that stands for fewer calls than have missed theirs here. One place is
    /// looked at for each that misses, in turn: all of them would take as long as many calls.
    #[cold]
    fn take_place(&self, first: u64, claim: u64) -> Option<u64> {
        let pressure = self.body(first, PRESSURE);
        let missed = pressure.fetch_add(1, Ordering::Relaxed);
        let at = first + missed % PROBES;
        if missed < self.sum(at) {
            return None;
        }
        let word = self.claim_at(at);
        let old = word.load(Ordering::Relaxed);
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        word.compare_exchange(old, claim, order.0, order.1).ok()?;
        pressure.store(0, Ordering::Relaxed);
        let lost = self.empty(at);
        let kind = Kind::ALL[(old & 1) as usize];
        self.left_out_word(kind).fetch_add(lost, Ordering::Relaxed);
        Some(at)
    }

    /// Empties a place; how many calls it stood for.
    fn empty(&self, at: u64) -> u64 {
        self.body(at, LENGTH).store(0, Ordering::Relaxed);
        let cells = self.cells(at).map(|cell| cell.swap(0, Ordering::Relaxed));
        cells.fold(0, u64::saturating_add)
    }

    /// Places that are taken.
    fn taken(&self) -> impl Iterator<Item = (u64, u64)> {
        // Looking at what was never used would make the kernel find memory for it.
        let all = match self.word(NOTED).load(Ordering::Relaxed) {
            0 => 0,
            _ => PATHS as u64,
        };
        (0..all).filter_map(|at| match self.claim_at(at).load(Ordering::Acquire) {
            0 => None,
            claim => Some((at, claim)),
        })
    }

    /// All that was noted.
    pub fn noted(&self) -> Vec<Noted> {
        let believed = self.taken().filter_map(|(at, claim)| {
            let noted = self.noted_at(at, claim);
            if noted.is_none() && self.body(at, LENGTH).load(Ordering::Relaxed) != 0 {
                // Whoever took it ended half-way, or it was never true.
                self.empty(at);
            }
            noted
        });
        believed.collect()
    }

    fn noted_at(&self, at: u64, claimed: u64) -> Option<Noted> {
        let length = self.body(at, LENGTH).load(Ordering::Acquire);
        let bytes = usize::try_from(length & !CUT).ok()?;
        if bytes == 0 || bytes > TEXT_MAX {
            return None;
        }
        let words = 0..bytes.div_ceil(8) as u64;
        let mut path: Vec<u8> = words
            .flat_map(|word| {
                let word = self.body(at, TEXT + word * 8).load(Ordering::Relaxed);
                word.to_ne_bytes()
            })
            .collect();
        path.truncate(bytes);
        let kind = Kind::ALL[(claimed & 1) as usize];
        if claim(kind, &path) != claimed {
            return None;
        }
        let mut cells = [0; CELL_COUNT];
        for (sum, cell) in cells.iter_mut().zip(self.cells(at)) {
            *sum = cell.load(Ordering::Relaxed).saturating_mul(PERIOD);
        }
        Some(Noted {
            kind,
            path,
            is_cut: length & CUT != 0,
            cells,
        })
    }

    /// Calls that were made on other paths than those that are noted, an estimate.
    pub fn left_out(&self, kind: Kind) -> u64 {
        let calls = self.left_out_word(kind).load(Ordering::Relaxed);
        calls.saturating_mul(PERIOD)
    }

    /// Sets back what a control sets back of what was noted. A call that is being noted meanwhile may
    /// be lost, or stay.
    pub fn set_noted_back(&self, control: Control) {
        let ends: &[End] = match control {
            Control::ResetHits => &[End::Hit],
            Control::ResetMisses => &[End::Asked],
            Control::ResetNegatives => &[End::Absent],
            Control::ResetDataEvents | Control::ResetTreeEvents | Control::ResetMetadataEvents => {
                &[End::Hit, End::Asked, End::Absent]
            }
            Control::ResetCounts | Control::ResetAll => {
                self.forget_noted();
                return;
            }
            _ => return,
        };
        let of: &[Table] = match control {
            Control::ResetDataEvents => &[Table::Data],
            Control::ResetTreeEvents => &[Table::Tree],
            Control::ResetMetadataEvents => &[Table::Metadata],
            _ => &Table::ALL,
        };
        for (at, claim) in self.taken() {
            if claim & 1 != Kind::Covered as u64 {
                continue;
            }
            for (&table, &end) in of
                .iter()
                .flat_map(|table| ends.iter().map(move |end| (table, end)))
            {
                let cell = cell_of(table, end) as u64;
                self.body(at, CELLS + cell * 8).store(0, Ordering::Relaxed);
            }
        }
    }

    fn forget_noted(&self) {
        for (at, claim) in self.taken() {
            self.empty(at);
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            // Unless another has taken it just now.
            let _ = self
                .claim_at(at)
                .compare_exchange(claim, 0, order.0, order.1);
        }
        for kind in Kind::ALL {
            self.left_out_word(kind).store(0, Ordering::Relaxed);
        }
    }
}
