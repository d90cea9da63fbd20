//! The directories that are worth covering: those that calls outside went to, put together as far up
//! as they belong together.
#![forbid(unsafe_code)]

use super::words::count;
use crate::status::{Directory, about};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Directories above this depth hold what belongs to nobody: `/`, `/home`.
const SHALLOW: usize = 2;

/// Calls that covering the directory would spare the origin, an estimate: not those that change
/// something.
pub(super) fn weight(directory: &Directory) -> u64 {
    let families = directory.families.iter();
    let read = families.filter(|(family, _)| *family != "change");
    read.fold(0, |sum, (_, calls)| sum.saturating_add(*calls))
}

/// How many calls of which kinds went there, the most frequent first, and no more than two kinds.
pub(super) fn kinds(directory: &Directory) -> Vec<String> {
    let mut families: Vec<(&String, u64)> = directory
        .families
        .iter()
        .map(|(family, calls)| (family, *calls))
        .filter(|(family, calls)| *family != "change" && *calls > 0)
        .collect();
    families.sort_by_key(|(_, calls)| Reverse(*calls));
    let kinds = families.into_iter().take(2);
    kinds
        .map(|(family, calls)| format!("{} {}", count(about(calls)), in_words(family)))
        .collect()
}

fn in_words(family: &str) -> &str {
    match family {
        "stat" => "stats",
        "fstat" => "fstats",
        "open" => "opens",
        "access" => "access checks",
        "readlink" => "link look-ups",
        "list" => "listings",
        "chdir" => "directory changes",
        "dlopen" => "library loads",
        "exec" => "program starts",
        _ => "other calls",
    }
}

/// Puts directories together; the weightiest first.
pub(super) fn group(directories: &[Directory]) -> Vec<Directory> {
    let mut entries: Vec<(Vec<&str>, &Directory)> = directories
        .iter()
        .map(|one| (one.path.split('/').skip(1).collect(), one))
        .collect();
    entries.retain(|(parts, _)| parts.first().is_some_and(|part| !part.is_empty()));
    let mut groups = Vec::new();
    descend(&entries, 0, &mut groups);
    groups.sort_by_key(|group| Reverse(weight(group)));
    groups
}

/// Takes apart what lies in the directory of this depth that all `entries` are in.
fn descend(entries: &[(Vec<&str>, &Directory)], depth: usize, groups: &mut Vec<Directory>) {
    let mut below: BTreeMap<&str, Vec<(Vec<&str>, &Directory)>> = BTreeMap::new();
    let mut own = Vec::new();
    for (parts, directory) in entries {
        match parts.get(depth) {
            Some(part) => below
                .entry(part)
                .or_default()
                .push((parts.clone(), directory)),
            None => own.push(*directory),
        }
    }
    if depth < SHALLOW {
        groups.extend(own.into_iter().cloned());
        below
            .values()
            .for_each(|entries| descend(entries, depth + 1, groups));
        return;
    }
    let sum = |entries: &[(Vec<&str>, &Directory)]| -> u64 {
        entries.iter().map(|(_, one)| weight(one)).sum()
    };
    // What little lies beside it is not worth covering more.
    let nearly_all = |part: &&Vec<_>| sum(part) >= sum(entries) / 10 * 9;
    if let Some(part) = below.values().find(nearly_all) {
        return descend(part, depth + 1, groups);
    }
    let Some((parts, _)) = entries.first() else {
        return;
    };
    let mut whole = Directory {
        path: format!("/{}", parts[..depth].join("/")),
        ..Directory::default()
    };
    entries.iter().for_each(|(_, one)| whole.add(one));
    groups.push(whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str, stats: u64) -> Directory {
        Directory {
            path: path.to_owned(),
            families: BTreeMap::from([("stat".to_owned(), stats)]),
        }
    }

    fn grouped(directories: &[(&str, u64)]) -> Vec<(String, u64)> {
        let all: Vec<_> = directories
            .iter()
            .map(|(path, stats)| directory(path, *stats))
            .collect();
        let groups = group(&all);
        groups
            .into_iter()
            .map(|group| (group.path.clone(), weight(&group)))
            .collect()
    }

    #[test]
    fn packages_are_put_together_in_their_environment() {
        let site = "/home/u/env/lib/python3.11/site-packages";
        let groups = grouped(&[
            (&format!("{site}/numpy"), 600),
            (&format!("{site}/scipy"), 500),
            (site, 100),
            ("/home/u", 64),
        ]);
        assert_eq!(groups, [(site.to_owned(), 1200)]);
    }

    #[test]
    fn what_belongs_to_others_stays_apart() {
        let groups = grouped(&[("/home/u/a", 500), ("/home/u/b", 400), ("/home/v/c", 300)]);
        let expected = [("/home/u", 900), ("/home/v/c", 300)];
        assert_eq!(
            groups,
            expected.map(|(path, calls)| (path.to_owned(), calls))
        );
        assert_eq!(grouped(&[("/data", 128)]), [("/data".to_owned(), 128)]);
        assert_eq!(grouped(&[("/", 128)]), []);
    }

    #[test]
    fn only_what_covering_would_spare_counts() {
        let mut one = directory("/home/u", 1204);
        one.families.insert("change".to_owned(), 5000);
        one.families.insert("open".to_owned(), 70);
        assert_eq!(weight(&one), 1274);
        assert_eq!(kinds(&one), ["1,200 stats", "70 opens"]);
    }
}
