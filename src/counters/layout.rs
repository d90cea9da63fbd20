//! The counters' memory, byte by byte, version 2.
//!
//! It lies behind the alarm page, in one sealed memory file (`memfd`, against shrinking and growing),
//! sparse, that every process of the job maps and writes. All words are of 8 bytes, in the machine's
//! byte order, *atomic*, and zero at first. Offsets count from the end of the alarm page.
//!
//! **Header**, at 0, 4096 bytes:
//!
//! | at | what |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 8 | [`VERSION`] |
//! | [`NOTED`] | not 0 where a path was ever noted |
//! | [`LEFT_OUT`] | calls that were to be noted and are not, by [`Kind`](super::paths::Kind) |
//!
//! **Directory**, at [`DIRECTORY`]: [`SLOTS`] entries of [`ENTRY_LENGTH`] bytes, one for each slot:
//!
//! | at | what |
//! |---|---|
//! | 0 | pid of the process that owns the slot, 0 where none does |
//! | 8 | how many processes have owned it |
//! | 16 | a bit for each stripe of the slot that was ever used |
//! | 24 | zero |
//!
//! **Slots**, at [`SLOTS_START`]: [`SLOTS`] of [`SLOT_LENGTH`] bytes. A process owns one, or shares
//! the last ([`SHARED_SLOT`]) with all that found none. Whoever takes over a slot whose owner is
//! gone goes on counting in it: counts only ever grow, so the sum over all slots is right whoever
//! counted in which. Nothing is ever set back; whoever wants to count from now on remembers what
//! there was.
//!
//! **Stripe**: a slot is [`STRIPES`] stripes of [`STRIPE_WORDS`] words. A thread of the owner that
//! has a stripe to itself adds to it by plain additions; the last stripe, and all those of the
//! shared slot, are added to by atomic ones. In a stripe:
//!
//! | word | what |
//! |---|---|
//! | 0 | calls, by family · 12 + outcome |
//! | [`WAITS`] | waits for the helper, by [`wait_bucket`](super::wait_bucket) |
//! | [`WAITED`] | microseconds waited, by [`question`](super::question) |
//! | [`BYTES`] | bytes served |
//! | [`USED_WORDS`] | zero |
//!
//! **Paths**: what one call of [`PERIOD`](super::paths::PERIOD) was about. At [`CLAIMS`] one word for
//! each of [`PATHS`] places, 0 or what [`paths`](super::paths) makes of kind and text; at [`BODIES`] for
//! each place [`BODY_LENGTH`] bytes:
//!
//! | at | what |
//! |---|---|
//! | 0 | length of the text, 0 while it is not there; and [`CUT`](body::CUT) |
//! | 8 | calls about others that found no place since this was noted |
//! | 16 | calls that were noted, by [`cell`](super::paths::cell) |
//! | 144 | the text |
//!
//! A path may lose its place to another, and the helper sets all of them back.

use super::{FAMILY_ROOM, Family, OUTCOME_ROOM, Outcome, QUESTION_ROOM, WAIT_BUCKETS};

/// First word: "COPPERN" and a format letter.
pub const MAGIC: u64 = u64::from_le_bytes(*b"COPPERNa");
/// Version of this layout; a process of another version counts nothing.
pub const VERSION: u64 = 2;

/// See the module's table.
pub const NOTED: u64 = 16;
/// See the module's table.
pub const LEFT_OUT: u64 = 24;

/// Where the directory begins.
pub const DIRECTORY: u64 = 4096;
/// Length of an entry of the directory.
pub const ENTRY_LENGTH: u64 = 32;
/// Offsets in an entry.
pub mod entry {
    /// See the module's table.
    pub const OWNER: u64 = 0;
    /// See the module's table.
    pub const PROCESSES: u64 = 8;
    /// See the module's table.
    pub const USED: u64 = 16;
}

/// How many slots there are.
pub const SLOTS: usize = 1024;
/// The slot of those who found none.
pub const SHARED_SLOT: usize = SLOTS - 1;
/// Where the slots begin.
pub const SLOTS_START: u64 = DIRECTORY + SLOTS as u64 * ENTRY_LENGTH;
/// Length of a slot.
pub const SLOT_LENGTH: u64 = 16_384;
/// Stripes of a slot.
pub const STRIPES: usize = 9;
/// Those that one thread can have to itself; the one behind them is for all others.
pub const OWNED_STRIPES: usize = STRIPES - 1;
/// Words of a stripe.
pub const STRIPE_WORDS: usize = 224;
/// How many paths there is room for, a power of two.
pub const PATHS: usize = 4096;
/// Where their claims begin.
pub const CLAIMS: u64 = SLOTS_START + SLOTS as u64 * SLOT_LENGTH;
/// Where their bodies begin.
pub const BODIES: u64 = CLAIMS + PATHS as u64 * 8;
/// Length of a body.
pub const BODY_LENGTH: u64 = 512;
/// Offsets in a body.
pub mod body {
    /// See the module's table.
    pub const LENGTH: u64 = 0;
    /// See the module's table.
    pub const PRESSURE: u64 = 8;
    /// See the module's table.
    pub const CELLS: u64 = 16;
    /// How many cells there are.
    pub const CELL_COUNT: usize = 16;
    /// See the module's table.
    pub const TEXT: u64 = CELLS + CELL_COUNT as u64 * 8;
    /// The longest text.
    pub const TEXT_MAX: usize = (super::BODY_LENGTH - TEXT) as usize;
    /// The bit of a length that says that the text was longer.
    pub const CUT: u64 = 1 << 32;
}

/// Length of the memory.
pub const LENGTH: u64 = BODIES + PATHS as u64 * BODY_LENGTH;

/// First word of the waits.
pub const WAITS: usize = FAMILY_ROOM * OUTCOME_ROOM;
/// First word of the microseconds waited.
pub const WAITED: usize = WAITS + WAIT_BUCKETS;
/// The word of the bytes served.
pub const BYTES: usize = WAITED + QUESTION_ROOM;
/// Words of a stripe that mean something.
pub const USED_WORDS: usize = BYTES + 1;

/// The word, in a stripe, of a family's calls that ended so.
#[inline(always)]
pub const fn call(family: Family, outcome: Outcome) -> usize {
    family as usize * OUTCOME_ROOM + outcome as usize
}

const _: () = assert!(PATHS.is_power_of_two() && body::TEXT_MAX.is_multiple_of(8));
const _: () = assert!(FAMILY_ROOM <= body::CELL_COUNT);
const _: () = assert!(USED_WORDS <= STRIPE_WORDS);
const _: () = assert!((STRIPES * STRIPE_WORDS * 8) as u64 <= SLOT_LENGTH);
const _: () = assert!(Family::ALL.len() <= FAMILY_ROOM && Outcome::ALL.len() <= OUTCOME_ROOM);
const _: () = assert!(super::QUESTIONS.len() <= QUESTION_ROOM);
