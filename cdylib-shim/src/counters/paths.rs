//! What a counted call was about, where [it is noted](copper_core::counters::paths): the path by the
//! origin's name, or the directory where the path is not covered.
//!
//! Only what the hook knows already is used: no system call is made, and nothing is written that
//! needs more stack than a signal handler has.

use super::memory;
use crate::session;
use crate::target::classify;
use copper_core::counters::{Family, Outcome};
use copper_core::path::{self, PATH_MAX};

/// Notes a call on `text`: absolute; else, as where nothing is known, it counts as one on any path.
/// A slash at its end says that the call was made in that directory.
#[cold]
#[inline(never)]
pub(super) fn note(family: Family, outcome: Outcome, text: &[u8]) {
    let Some(memory) = memory() else {
        return;
    };
    let named = match (text.first(), outcome) {
        (Some(b'/'), _) if text.len() > PATH_MAX => b"",
        (Some(b'/'), Outcome::Uncovered) => directory_of(family, text),
        (Some(b'/'), _) => origin_name(text),
        _ => b"",
    };
    memory.note(family, outcome, named);
}

/// The directory that a call on this path looks into.
fn directory_of(family: Family, text: &[u8]) -> &[u8] {
    match family {
        Family::List | Family::Chdir => text,
        _ => path::split_last(text).0,
    }
}

/// The origin's name for a path in the view or in the store.
fn origin_name(text: &[u8]) -> &[u8] {
    let place = session::known().and_then(|session| {
        let word = path::first_word(text);
        classify(session, text, word)
    });
    place.map_or(text, |place| place.path)
}
