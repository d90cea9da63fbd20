//! What programs ask and how it is answered, counted by the shim in shared memory of its own.
//!
//! - this file: the table of families and outcomes, and what a node's counts add up to
//! - [`layout`]: the memory, byte by byte
//! - [`memory`]: the one place that turns it into references: claiming, counting, adding up
//! - [`paths`]: which paths calls were about, by noting one of many
//!
//! Nothing here decides anything: a program runs the same where the memory is missing, too short,
//! of another version or full of nonsense.

pub mod layout;
pub mod memory;
pub mod paths;

#[cfg(all(test, not(loom)))]
mod path_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use serde::{Deserialize, Serialize};

/// Defines an enumeration whose numbers are places in the memory, with the names users see.
macro_rules! named {
    ($(#[$about:meta])* $kind:ident, $all:ident, $count:literal:
        $($(#[$what:meta])* $variant:ident = $name:literal,)*) =>
    {
        $(#[$about])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$what])* $variant,)*
        }

        impl $kind {
            /// All of them, by number.
            pub const ALL: [$kind; $count] = [$($kind::$variant,)*];

            /// What users know it by.
            pub const fn name(self) -> &'static str {
                match self {
                    $($kind::$variant => $name,)*
                }
            }
        }
    };
}

named! {
    /// What kind of call a program made.
    Family, FAMILIES, 11:
    /// `open` and its kin, `fopen`.
    Open = "open",
    /// `stat`, `lstat`, `statx` and their kin, by path.
    Stat = "stat",
    /// The same by descriptor, of a file in the store.
    Fstat = "fstat",
    /// `access` and its kin.
    Access = "access",
    /// `readlink`, `realpath` and their kin.
    Readlink = "readlink",
    /// Directories opened to be listed, `scandir`, tree walks.
    List = "list",
    /// `chdir`.
    Chdir = "chdir",
    /// `dlopen`, `dlmopen`.
    Dlopen = "dlopen",
    /// `exec` and its kin, `posix_spawn`.
    Exec = "exec",
    /// Calls that change something, opening for writing left out.
    Change = "change",
    /// File systems and extended attributes.
    Other = "other",
}

named! {
    /// How a call was answered. All from [`Outcome::Uncovered`] on were passed to the origin, for
    /// the reason that the outcome names.
    Outcome, OUTCOMES, 9:
    /// At once, from the catalog and the store.
    Hit = "hit",
    /// At once: there is no such file.
    Absent = "absent",
    /// After a question to the helper.
    Asked = "asked",
    /// Not for Copper to answer: the path is not covered.
    Uncovered = "uncovered",
    /// The helper did not know either, or did not answer in time.
    Unknown = "unknown",
    /// The store does not hold the file: it is larger than the limit or the memory, or it changes.
    TooLarge = "too_large",
    /// Only the origin can do what was asked.
    Special = "special",
    /// It changes a covered path.
    Written = "written",
    /// The helper is gone, or a change could not be told to it.
    NoHelper = "no_helper",
}

impl Outcome {
    /// Whether the call went to the origin.
    pub const fn is_passed(self) -> bool {
        self as u8 >= Outcome::Uncovered as u8
    }
}

/// Families there is room for.
pub const FAMILY_ROOM: usize = 12;
/// Outcomes there is room for.
pub const OUTCOME_ROOM: usize = 12;
/// Waits for the helper are counted by their length: the first bucket up to 2 microseconds, bucket
/// *i* from 2^i up to 2^(i+1), the last all that are longer.
pub const WAIT_BUCKETS: usize = 32;
/// What is waited for, by the number that [`question`] gives it.
pub const QUESTION_ROOM: usize = 8;

/// The names of what the helper is asked for, by [`question`]'s numbers.
pub const QUESTIONS: [&str; 6] = [
    "resolve", "listing", "content", "closure", "changed", "writing",
];

/// The place of a question to the helper among those that are counted.
pub const fn question(operation: crate::request::Operation) -> Option<usize> {
    let number = operation as u16 as usize;
    if number >= 1 && number <= QUESTIONS.len() {
        Some(number - 1)
    } else {
        None
    }
}

/// The bucket of a wait of so many microseconds.
pub const fn wait_bucket(microseconds: u64) -> usize {
    let bucket = (microseconds | 1).ilog2() as usize;
    if bucket < WAIT_BUCKETS {
        bucket
    } else {
        WAIT_BUCKETS - 1
    }
}

/// What the programs of a node, or of many, have asked; the gone ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Processes that were counted.
    pub processes: u64,
    /// Of these, those that run.
    pub running: u64,
    /// Calls, by [`Family`] and [`Outcome`].
    pub calls: [[u64; OUTCOME_ROOM]; FAMILY_ROOM],
    /// Waits for the helper, by [`wait_bucket`].
    pub waits: [u64; WAIT_BUCKETS],
    /// Microseconds waited, by [`question`].
    pub waited: [u64; QUESTION_ROOM],
    /// Sizes of the files that were opened in the store, in bytes.
    pub bytes_served: u64,
}

impl Totals {
    /// How many calls of a family ended so.
    pub fn of(&self, family: Family, outcome: Outcome) -> u64 {
        self.calls[family as usize][outcome as usize]
    }

    /// Calls of all families that ended so.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        let all = self.calls.iter().map(|family| family[outcome as usize]);
        all.fold(0, u64::saturating_add)
    }

    /// How many waits there were.
    pub fn waits(&self) -> u64 {
        self.waits.iter().copied().fold(0, u64::saturating_add)
    }

    /// How long they took, in microseconds.
    pub fn waited(&self) -> u64 {
        self.waited.iter().copied().fold(0, u64::saturating_add)
    }

    /// Adds another node's.
    pub fn add(&mut self, other: &Totals) {
        self.combine(other, u64::saturating_add);
        self.running = self.running.saturating_add(other.running);
    }

    /// Takes away what was counted before `since`.
    pub fn subtract(&mut self, since: &Totals) {
        self.combine(since, u64::saturating_sub);
    }

    fn combine(&mut self, other: &Totals, with: fn(u64, u64) -> u64) {
        let each = |mine: &mut [u64], theirs: &[u64]| {
            mine.iter_mut()
                .zip(theirs)
                .for_each(|(mine, &theirs)| *mine = with(*mine, theirs));
        };
        self.processes = with(self.processes, other.processes);
        self.bytes_served = with(self.bytes_served, other.bytes_served);
        each(self.calls.as_flattened_mut(), other.calls.as_flattened());
        each(&mut self.waits, &other.waits);
        each(&mut self.waited, &other.waited);
    }
}
