//! The paths that a survey names: those that programs ask for most, the directories outside that they
//! look into, what was slowest to come and what was left to the origin. Each list is bounded, on every
//! node and in every sum of nodes.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use serde::{Deserialize, Serialize};

use super::object::Kind;
use super::topology::Rank;
use crate::counters::paths::End;
use crate::counters::{FAMILY_ROOM, Family};
use crate::path::{is_node_local, is_within, split_last};

/// The most paths of each list.
pub const MAX_NAMED: usize = 24;
/// The longest path of a list, in bytes; of longer ones that much is named.
pub const MAX_NAME: usize = 255;

/// The paths of one node, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Covered paths that programs ask for, the most asked for first.
    pub hot: Vec<Hot>,
    /// Directories that programs look into and that are not covered, the most asked for first.
    pub outside: Vec<Outside>,
    /// Objects that took longest to come, the slowest first.
    pub slow: Vec<SlowObject>,
    /// What was left to the origin, the most frequent first.
    pub escaped: Vec<Escaped>,
}

/// A covered path, with estimates of how often it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hot {
    /// It, on the origin.
    pub path: Box<[u8]>,
    /// Calls, by [`End`].
    pub ends: [u64; End::ALL.len()],
}

/// A directory that is not covered, with estimates of the calls in it or below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// It.
    pub path: Box<[u8]>,
    /// Calls, by [`Family`].
    pub families: [u64; FAMILY_ROOM],
}

/// An object that programs waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowObject {
    /// Its path on the origin.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: Kind,
    /// The node where it took so long.
    pub rank: Rank,
    /// That node read it from the origin itself.
    pub from_origin: bool,
    /// When it was first asked for there, in microseconds since 1970.
    pub asked_at: u64,
    /// How long it took to come, in microseconds.
    pub took: u64,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// A path that was left to the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escaped {
    /// It.
    pub path: Box<[u8]>,
    /// Why, in the drivers' own numbers.
    pub why: u8,
    /// How often a helper said so.
    pub times: u64,
    /// Its length, in bytes, where it is a file.
    pub bytes: u64,
}

impl Hot {
    /// All calls.
    pub fn calls(&self) -> u64 {
        sum(&self.ends)
    }
}

impl Outside {
    /// All calls.
    pub fn calls(&self) -> u64 {
        sum(&self.families)
    }

    /// Calls of a family.
    pub fn of(&self, family: Family) -> u64 {
        self.families[family as usize]
    }
}

/// The beginning of a path that is short enough to be named.
pub fn name(path: &[u8]) -> Box<[u8]> {
    path[..path.len().min(MAX_NAME)].into()
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().copied().fold(0, u64::saturating_add)
}

fn add(mine: &mut [u64], theirs: &[u64]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine = mine.saturating_add(*theirs);
    }
}

/// Where no origin lies, besides what is node-local: systems have these on their nodes.
const SYSTEM: [&[u8]; 9] = [
    b"/bin", b"/boot", b"/etc", b"/lib", b"/lib32", b"/lib64", b"/libx32", b"/sbin", b"/usr",
];
/// What is no part of the system though it lies there.
const LOCAL: &[u8] = b"/usr/local";

/// Whether it could help to cover a directory: one that is neither node-local nor a system's own.
pub fn may_be_worth_covering(directory: &[u8]) -> bool {
    let is_systems = SYSTEM.iter().any(|system| is_within(directory, system));
    !is_node_local(directory) && (!is_systems || is_within(directory, LOCAL))
}

impl Paths {
    /// Whether all is within its bounds.
    pub fn is_valid(&self) -> bool {
        let counts = [
            self.hot.len(),
            self.outside.len(),
            self.slow.len(),
            self.escaped.len(),
        ];
        let hot = self.hot.iter().map(|one| &one.path);
        let outside = self.outside.iter().map(|one| &one.path);
        let slow = self.slow.iter().map(|one| &one.path);
        let escaped = self.escaped.iter().map(|one| &one.path);
        counts.iter().all(|&count| count <= MAX_NAMED)
            && hot
                .chain(outside)
                .chain(slow)
                .chain(escaped)
                .all(|path| path.len() <= MAX_NAME && path.first() == Some(&b'/'))
    }

    /// Adds other nodes'.
    pub fn add(&mut self, other: &Paths) {
        self.hot.extend_from_slice(&other.hot);
        self.outside.extend_from_slice(&other.outside);
        self.slow.extend_from_slice(&other.slow);
        self.escaped.extend_from_slice(&other.escaped);
        self.settle();
    }

    /// Puts all in order, each path once, and leaves out what is beyond the bounds.
    pub fn settle(&mut self) {
        once(
            &mut self.hot,
            |one| &one.path,
            |mine, other| {
                add(&mut mine.ends, &other.ends);
            },
        );
        self.hot.sort_by_key(|one| Reverse(one.calls()));
        self.hot.truncate(MAX_NAMED);

        once(
            &mut self.outside,
            |one| &one.path,
            |mine, other| {
                add(&mut mine.families, &other.families);
            },
        );
        gather_outside(&mut self.outside);
        self.outside.sort_by_key(|one| Reverse(one.calls()));
        self.outside.truncate(MAX_NAMED);

        // The same object on several nodes: where it took longest.
        self.slow.sort_by(|one, other| {
            let names = one.path.cmp(&other.path);
            names.then(other.took.cmp(&one.took))
        });
        self.slow
            .dedup_by(|later, first| later.path == first.path && later.kind == first.kind);
        self.slow.sort_by_key(|one| Reverse(one.took));
        self.slow.truncate(MAX_NAMED);

        once(
            &mut self.escaped,
            |one| &one.path,
            |mine, other| {
                mine.times = mine.times.saturating_add(other.times);
                mine.bytes = mine.bytes.max(other.bytes);
            },
        );
        self.escaped.sort_by_key(|one| Reverse(one.times));
        self.escaped.truncate(MAX_NAMED);
    }
}

/// Puts entries of the same path together; in the order of the paths.
fn once<T>(list: &mut Vec<T>, path: fn(&T) -> &[u8], join: fn(&mut T, &T)) {
    list.sort_by(|one, other| path(one).cmp(path(other)));
    list.dedup_by(|later, first| {
        let same = path(later) == path(first);
        if same {
            join(first, later);
        }
        same
    });
}

/// Where there are too many directories, those with few calls are counted as the directories that
/// they lie in, the deepest first; so no call is lost.
fn gather_outside(list: &mut Vec<Outside>) {
    if list.len() <= MAX_NAMED {
        return;
    }
    let all = list.iter().map(Outside::calls);
    let few = all.fold(0, u64::saturating_add) / MAX_NAMED as u64;
    let depth = |path: &[u8]| path.iter().filter(|&&byte| byte == b'/').count();
    let mut levels: BTreeMap<usize, BTreeMap<Box<[u8]>, Outside>> = BTreeMap::new();
    for one in list.drain(..) {
        let level = levels.entry(depth(&one.path)).or_default();
        level.insert(one.path.clone(), one);
    }
    while let Some((level, entries)) = levels.pop_last() {
        for (path, mut one) in entries {
            if one.calls() > few || level <= 1 {
                list.push(one);
                continue;
            }
            let parent: Box<[u8]> = split_last(&path).0.to_owned().into();
            one.path.clone_from(&parent);
            levels
                .entry(level - 1)
                .or_default()
                .entry(parent)
                .and_modify(|known| add(&mut known.families, &one.families))
                .or_insert(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn outside(path: &str, stats: u64) -> Outside {
        let mut families = [0; FAMILY_ROOM];
        families[Family::Stat as usize] = stats;
        Outside {
            path: path.as_bytes().into(),
            families,
        }
    }

    fn hot(path: &str, hits: u64) -> Hot {
        let mut ends = [0; End::ALL.len()];
        ends[End::Hit as usize] = hits;
        Hot {
            path: path.as_bytes().into(),
            ends,
        }
    }

    fn slow(path: &str, rank: Rank, took: u64) -> SlowObject {
        SlowObject {
            path: path.as_bytes().into(),
            kind: Kind::Content,
            rank,
            from_origin: false,
            asked_at: 5,
            took,
            bytes: 1,
        }
    }

    #[test]
    fn what_many_nodes_ask_for_adds_up_and_stays_bounded() {
        let mut all = Paths::default();
        for rank in 0..50 {
            let mut one = Paths {
                hot: (0..MAX_NAMED)
                    .map(|number| hot(&format!("/own/{rank}/{number}"), 1))
                    .collect(),
                slow: [slow("/a", rank, 10 + u64::from(rank)), slow("/b", rank, 3)].into(),
                ..Paths::default()
            };
            one.hot[0] = hot("/common", 64);
            all.add(&one);
        }
        assert_eq!(&*all.hot[0].path, b"/common");
        assert_eq!(all.hot[0].calls(), 50 * 64);
        assert_eq!(all.hot.len(), MAX_NAMED);
        let slowest: Vec<_> = all.slow.iter().map(|one| (one.rank, one.took)).collect();
        assert_eq!(slowest, [(49, 59), (0, 3)]);
        assert!(all.is_valid());
    }

    #[test]
    fn no_call_is_lost_where_directories_are_gathered() {
        let packages = (0..600).map(|number| outside(&format!("/home/u/env/lib/p{number}"), 10));
        let mut paths = Paths {
            outside: packages.chain([outside("/data", 3_000)]).collect(),
            ..Paths::default()
        };
        paths.settle();
        let named: Vec<_> = paths
            .outside
            .iter()
            .map(|one| (core::str::from_utf8(&one.path).unwrap(), one.calls()))
            .collect();
        assert_eq!(named, [("/home/u/env/lib", 6_000), ("/data", 3_000)]);
        assert_eq!(paths.outside[0].of(Family::Stat), 6_000);
    }

    #[test]
    fn few_directories_stay_as_they_are() {
        let mut paths = Paths {
            outside: [outside("/a/b", 1), outside("/a", 1000), outside("/a/b", 2)].into(),
            ..Paths::default()
        };
        paths.settle();
        assert_eq!(paths.outside, [outside("/a", 1000), outside("/a/b", 3)]);
    }

    #[test]
    fn a_system_is_not_worth_covering() {
        for own in [
            &b"/usr/lib/x"[..],
            b"/etc",
            b"/proc/self",
            b"/tmp/x",
            b"/lib64",
        ] {
            assert!(!may_be_worth_covering(own), "{own:?}");
        }
        for other in [&b"/usr/local/lib"[..], b"/home/u", b"/library", b"/opt"] {
            assert!(may_be_worth_covering(other), "{other:?}");
        }
    }

    #[test]
    fn more_than_the_bounds_is_not_believed() {
        let one = |path: &str| Paths {
            hot: [hot(path, 1)].into(),
            ..Paths::default()
        };
        assert!(one("/x").is_valid());
        assert!(!one("x").is_valid());
        assert!(!one(&format!("/{}", "x".repeat(MAX_NAME))).is_valid());
        let many = Paths {
            slow: (0..=MAX_NAMED as u64)
                .map(|took| slow("/x", 1, took))
                .collect(),
            ..Paths::default()
        };
        assert!(!many.is_valid());
    }
}
