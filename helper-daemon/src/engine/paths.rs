//! The paths that this node names in its status and in a survey: from the calls that were noted with
//! their paths, and from the journal.
#![forbid(unsafe_code)]

use super::Engine;
use crate::journal::{HotPath, show_path};
use crate::origin::work::collapse;
use copper_core::control::Table;
use copper_core::counters::Family;
use copper_core::counters::paths::{End, Kind, Noted};
use copper_core::path::{is_within, may_be_covered};
use copper_core::tree::Rank;
use copper_core::tree::paths::{Hot, Outside, Paths, may_be_worth_covering, name};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

impl Engine {
    /// The paths that stand out on this node, which is `rank`.
    pub(super) fn paths(&self, rank: Rank) -> Paths {
        let (slow, escaped) = self.journal.named(rank);
        let noted = self.tally.noted();
        let (covered, outside): (Vec<_>, Vec<_>) = noted
            .into_iter()
            .partition(|noted| noted.kind == Kind::Covered);
        let mut paths = Paths {
            hot: covered.iter().map(hot).collect(),
            outside: outside.iter().filter_map(|one| self.outside(one)).collect(),
            slow,
            escaped,
        };
        paths.hot.retain(|hot| hot.calls() > 0);
        paths.outside.retain(|outside| outside.calls() > 0);
        paths.settle();
        paths
    }

    /// A directory that is worth a word: not the view, the store or the system.
    fn outside(&self, noted: &Noted) -> Option<Outside> {
        let path = collapse(&noted.path);
        let store = self.store.root().as_os_str().as_bytes();
        let own = [&self.policy.view[..], store];
        let is_own = own.iter().any(|own| is_within(&path, own));
        (may_be_covered(&path) && may_be_worth_covering(&path) && !is_own).then(|| Outside {
            path: beginning(&path),
            families: std::array::from_fn(|number| match Family::ALL.get(number) {
                Some(&family) => noted.outside(family),
                None => 0,
            }),
        })
    }

    /// Covered paths with estimates of how often programs asked for them, the most asked for first.
    pub(super) fn hot_paths(&self) -> Vec<HotPath> {
        let noted = self.tally.noted().into_iter();
        let covered = noted.filter(|noted| noted.kind == Kind::Covered);
        let mut by_path: HashMap<(Vec<u8>, usize), HotPath> = HashMap::new();
        for noted in covered {
            for (number, table) in Table::ALL.into_iter().enumerate() {
                let calls = |end| noted.covered(table, end);
                if End::ALL.into_iter().all(|end| calls(end) == 0) {
                    continue;
                }
                let hot = by_path
                    .entry((noted.path.clone(), number))
                    .or_insert_with(|| HotPath::new(shown(&noted), table));
                hot.hits += calls(End::Hit);
                hot.absent += calls(End::Absent);
                hot.asked += calls(End::Asked);
                hot.passed += calls(End::TooLarge) + calls(End::Passed);
            }
        }
        let mut hot: Vec<HotPath> = by_path.into_values().collect();
        hot.sort_by(|one, other| {
            let more = other.calls().cmp(&one.calls());
            more.then_with(|| one.path.cmp(&other.path))
        });
        hot
    }
}

/// The path of what was noted, as text.
fn shown(noted: &Noted) -> String {
    let path = show_path(&noted.path);
    if noted.is_cut { path + "…" } else { path }
}

fn hot(noted: &Noted) -> Hot {
    let of = |end| {
        let calls = Table::ALL.map(|table| noted.covered(table, end));
        calls.into_iter().fold(0, u64::saturating_add)
    };
    Hot {
        path: name(&noted.path),
        ends: End::ALL.map(of),
    }
}

/// As much of a directory's path as can be named, in whole components.
fn beginning(directory: &[u8]) -> Box<[u8]> {
    let short = name(directory);
    if short.len() == directory.len() {
        return short;
    }
    let end = short.iter().rposition(|&byte| byte == b'/');
    short[..end.unwrap_or(0).max(1)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use copper_core::tree::paths::MAX_NAME;

    #[test]
    fn directories_are_named_in_whole_components() {
        assert_eq!(&*beginning(b"/a/b"), b"/a/b");
        let long = [b"/first/".to_vec(), vec![b'x'; MAX_NAME]].concat();
        assert_eq!(&*beginning(&long), b"/first");
    }
}
