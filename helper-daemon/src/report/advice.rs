//! What to do about what was found, in words.
#![forbid(unsafe_code)]

use super::uncovered::{self, kinds};
use super::words::{count, ms, several};
use crate::calls::Ends;
use crate::journal::{Passed, Questions, Reason};
use crate::status::{Calls, Directory};

/// What advice is made of: sums of all nodes that said something.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) missing: Vec<String>,
    /// The nodes were not asked: they left files.
    pub(super) from_files: bool,
    pub(super) covered: Vec<String>,
    pub(super) calls: Option<&'a Calls>,
    pub(super) passed: Vec<&'a Passed>,
    /// There is more that was left to the origin.
    pub(super) more_passed: bool,
    /// Directories that are not covered, the most asked for first; calls are estimates.
    pub(super) uncovered: &'a [Directory],
    pub(super) evictions: u64,
    pub(super) changes: Questions,
    pub(super) origin_objects: u64,
    /// Where the slowest object from the origin is, and how long it took, in milliseconds.
    pub(super) slowest: Option<(&'a str, f64)>,
    pub(super) objects_left_out: u64,
}

/// Fewer calls than this are not worth a word.
const FEW_CALLS: u64 = 1_000;
/// An object that takes longer, in milliseconds, makes somebody wait.
const SLOW_MS: f64 = 500.0;

/// The advice, the weightiest first; never empty.
pub(super) fn give(facts: &Facts<'_>) -> Vec<String> {
    let mut advice = Vec::new();
    if !facts.missing.is_empty() && facts.from_files {
        advice.push(format!(
            "{} no profile: {}. Was its helper killed, or lost before the end?",
            several(facts.missing.len() as u64, "node left", "nodes left"),
            list(&facts.missing)
        ));
    } else if !facts.missing.is_empty() {
        advice.push(format!(
            "{} not answer: {}. Programs there read the origin themselves. See the helper's log on \
             each (`copper start --log FILE --log-level info`).",
            several(facts.missing.len() as u64, "node does", "nodes do"),
            list(&facts.missing)
        ));
    }
    if facts.covered.is_empty() {
        advice.push(
            "Nothing is covered but the view. If programs name files by their own paths, cover their \
             directories: `copper start --cover DIR`."
                .to_owned(),
        );
    }
    advise_on_uncovered(facts.uncovered, &mut advice);
    advise_on_passed(facts, &mut advice);
    if let Some(calls) = facts.calls {
        advise_on_calls(calls, &mut advice);
    }
    if facts.evictions > 0 {
        advice.push(format!(
            "{} had to make way for others and may be read again. Give the store more memory: `--memory \
             SIZE`.",
            several(facts.evictions, "file", "files")
        ));
    }
    let changes = facts.changes.asked;
    if changes > FEW_CALLS / 10 {
        advice.push(format!(
            "Programs changed covered paths {} times; each time what was known of the path is dropped \
             on all nodes. Write output outside of the covered directories.",
            count(changes)
        ));
    }
    if let Some((path, took)) = facts.slowest.filter(|(_, took)| *took > SLOW_MS) {
        advice.push(format!(
            "The origin is slow: `{path}` took {}. It is asked once for each object; a second start of \
             the programs will not wait for it.",
            ms(took)
        ));
    }
    if facts.objects_left_out > 0 {
        advice.push(format!(
            "{} more objects were obtained than the journal lists; start with `--profile-paths` to see \
             all.",
            count(facts.objects_left_out)
        ));
    }
    if advice.is_empty() {
        advice.push(match facts.origin_objects {
            0 => "Nothing was asked of the origin: either no program has run under Copper yet (see \
                  `copper env`), or its files are not covered."
                .to_owned(),
            _ => "Nothing stands out: what programs asked for was read from the origin once and served \
                  from memory."
                .to_owned(),
        });
    }
    advice
}

fn advise_on_passed(facts: &Facts<'_>, advice: &mut Vec<String>) {
    let of = |why: Reason| facts.passed.iter().filter(move |passed| passed.why == why);
    let say = |why: Reason, text: &dyn Fn(u64, &str, u64) -> String, advice: &mut Vec<String>| {
        let files = of(why).count() as u64;
        if let Some(first) = of(why).max_by_key(|passed| passed.times) {
            let bytes = of(why).map(|passed| passed.bytes).max().unwrap_or(0);
            advice.push(text(files, &first.path, bytes));
        }
    };
    // Calls on files that there is no room for are counted with those on files that are too long.
    let calls = facts.calls.filter(|_| of(Reason::NoRoom).next().is_none());
    let reads = calls.map_or(0, |calls| {
        let passed = calls.families.values();
        passed
            .filter_map(|family| family.passed.get("too_large"))
            .sum()
    });
    let at_least = if facts.more_passed { "At least " } else { "" };
    say(
        Reason::TooLarge,
        &|files, path, bytes| {
            let (is, was) = if files == 1 {
                ("is", "was")
            } else {
                ("are", "were")
            };
            let often = match reads {
                0 => format!("{is} read at the origin by every program"),
                reads => format!(
                    "{was} read at the origin {}",
                    several(reads, "time", "times")
                ),
            };
            let files = several(files, "file", "files");
            format!(
                "{at_least}{files} over the limit {often}, as `{path}`. Cache them too: `--largest {}M` \
                 or more, and as much `--memory`.",
                bytes.div_ceil(1 << 20)
            )
        },
        advice,
    );
    say(
        Reason::NoRoom,
        &|files, path, _| {
            format!(
                "The store had no room for {}, as `{path}`. Give it more: `--memory SIZE`, or another \
                 `--store`.",
                several(files, "file", "files")
            )
        },
        advice,
    );
    say(
        Reason::ByName,
        &|directories, path, _| {
            format!(
                "{} too large to be fetched whole, as `{path}`: each name in it is asked for by itself. \
                 Raise `--directory-limit`.",
                several(directories, "directory is", "directories are")
            )
        },
        advice,
    );
    say(
        Reason::TimedOut,
        &|paths, path, _| {
            format!(
                "{} not obtained in time, as `{path}`: the origin or another helper did not answer. See \
                 the logs for lost helpers.",
                several(paths, "path was", "paths were")
            )
        },
        advice,
    );
    say(
        Reason::Changed,
        &|files, path, _| {
            format!(
                "{} changed while being read, as `{path}`. Cover directories that stay as they are.",
                several(files, "file", "files")
            )
        },
        advice,
    );
    say(
        Reason::Refused,
        &|paths, path, _| {
            format!(
                "The origin refused {} or failed, as `{path}`. See whether you may read it.",
                several(paths, "path", "paths")
            )
        },
        advice,
    );
    say(
        Reason::CatalogFull,
        &|_, path, _| {
            format!(
                "The catalog is full, so that `{path}` and others are left to the origin. Cover less, or \
                 smaller directories."
            )
        },
        advice,
    );
}

/// Names the directories that most calls outside went to, if they are many.
fn advise_on_uncovered(directories: &[Directory], advice: &mut Vec<String>) {
    const SHOWN: usize = 3;
    let many = directories
        .iter()
        .filter(|directory| uncovered::weight(directory) > FEW_CALLS / 2);
    for directory in many.take(SHOWN) {
        let path = &directory.path;
        advice.push(format!(
            "About {} went to `{path}`, which is not covered. If it lies on a slow file system, cover \
             it: `--cover {path}`.",
            kinds(directory).join(" and ")
        ));
    }
}

fn advise_on_calls(calls: &Calls, advice: &mut Vec<String>) {
    let ends = Ends::of_all(calls);
    if ends.absent > FEW_CALLS && ends.absent > ends.covered() / 2 {
        advice.push(format!(
            "{} of {} calls asked for names that do not exist. They were answered from memory; shorter \
             PYTHONPATH, LD_LIBRARY_PATH and PATH would spare even these.",
            count(ends.absent),
            count(ends.covered())
        ));
    }
    let lost: u64 = calls
        .families
        .values()
        .filter_map(|family| family.passed.get("no_helper"))
        .sum();
    if lost > 0 {
        advice.push(format!(
            "{} calls found no helper and went to the origin: a helper ended before its programs, or \
             was never there.",
            count(lost)
        ));
    }
}

/// The first few names, and how many more.
fn list(names: &[String]) -> String {
    const FEW: usize = 8;
    let mut text = names
        .iter()
        .take(FEW)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > FEW {
        text += &format!(" and {} more", names.len() - FEW);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::FamilyCalls;
    use std::collections::BTreeMap;

    fn passed(path: &str, why: Reason, bytes: u64) -> Passed {
        Passed {
            path: path.to_owned(),
            why,
            times: 1,
            bytes,
        }
    }

    #[test]
    fn large_files_are_counted_with_their_reads_and_the_limit_they_need() {
        let family = FamilyCalls {
            passed: BTreeMap::from([("too_large".to_owned(), 512)]),
            ..FamilyCalls::default()
        };
        let calls = Calls {
            families: BTreeMap::from([("open".to_owned(), family)]),
            ..Calls::default()
        };
        let files = [
            passed("/lus/a", Reason::TooLarge, 3 << 30),
            passed("/lus/b", Reason::TooLarge, 1 << 20),
        ];
        let advice = give(&Facts {
            covered: vec!["/lus".to_owned()],
            calls: Some(&calls),
            passed: files.iter().collect(),
            ..Facts::default()
        });
        assert_eq!(advice.len(), 1, "{advice:?}");
        let said = &advice[0];
        assert!(
            said.starts_with("2 files over the limit were read at the origin 512 times"),
            "{said}"
        );
        assert!(said.contains("`--largest 3072M`"), "{said}");
    }

    #[test]
    fn uncovered_directories_and_missing_nodes_are_named() {
        let directory = |path: &str, stats: u64| Directory {
            path: path.to_owned(),
            families: BTreeMap::from([("stat".to_owned(), stats), ("open".to_owned(), 64)]),
        };
        let uncovered = [directory("/home/u/env", 1216), directory("/home/v", 192)];
        let advice = give(&Facts {
            missing: vec!["node3".to_owned()],
            covered: vec!["/lus".to_owned()],
            uncovered: &uncovered,
            origin_objects: 5,
            ..Facts::default()
        });
        assert!(
            advice[0].starts_with("1 node does not answer: node3"),
            "{advice:?}"
        );
        assert!(
            advice[1].starts_with("About 1,200 stats and 64 opens went to `/home/u/env`")
                && advice[1].contains("`--cover /home/u/env`"),
            "{advice:?}"
        );
        assert_eq!(
            advice.len(),
            2,
            "few calls are not worth a word: {advice:?}"
        );
    }

    #[test]
    fn where_there_may_be_more_that_is_said() {
        let files = [passed("/lus/a", Reason::TooLarge, 1)];
        let advice = give(&Facts {
            covered: vec!["/lus".to_owned()],
            passed: files.iter().collect(),
            more_passed: true,
            ..Facts::default()
        });
        assert!(
            advice[0].starts_with("At least 1 file over the limit is read at the origin"),
            "{advice:?}"
        );
    }

    #[test]
    fn where_all_is_well_that_is_said() {
        let facts = |objects| Facts {
            covered: vec!["/lus".to_owned()],
            origin_objects: objects,
            ..Facts::default()
        };
        assert!(give(&facts(9))[0].starts_with("Nothing stands out"));
        assert!(give(&facts(0))[0].contains("no program has run"));
    }
}
