//! Reads what the call counter wrote.

use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of one slot of the table, see `tests/call-counter/src/table.rs`.
const SLOT_BYTES: usize = 64;
const NAME_BYTES: usize = 48;

/// Calls of one libc function that reached glibc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// All calls.
    pub all: u64,
    /// Those on a path below the prefixes that the counter was given.
    pub covered: u64,
}

/// The calls by function, of functions that were called at all.
///
/// # Errors
/// When the counter wrote no table, so was not loaded.
pub fn read(table: &Path) -> std::io::Result<BTreeMap<String, Calls>> {
    let mut calls = BTreeMap::new();
    for slot in std::fs::read(table)?.chunks_exact(SLOT_BYTES) {
        let name = slot[..NAME_BYTES]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&slot[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        let of_name = Calls {
            all: number(NAME_BYTES),
            covered: number(NAME_BYTES + 8),
        };
        if of_name.all > 0 {
            calls.insert(String::from_utf8_lossy(name).into_owned(), of_name);
        }
    }
    Ok(calls)
}

/// The covered calls as `symbol path`, most frequent first, with their number.
///
/// # Errors
/// When the counter wrote no log.
pub fn covered(table: &Path) -> std::io::Result<Vec<(String, usize)>> {
    let mut log = table.as_os_str().to_owned();
    log.push(".log");
    let mut counted = BTreeMap::<String, usize>::new();
    for line in String::from_utf8_lossy(&std::fs::read(log)?).lines() {
        *counted.entry(line.replace('\t', " ")).or_default() += 1;
    }
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    Ok(counted)
}
