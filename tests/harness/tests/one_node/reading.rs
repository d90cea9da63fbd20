//! Every family of calls that only asks, on every case of the awkward tree: what the program
//! prints must be the same plain, below a covered prefix and in the view; cold and warm; as root
//! and as a user whom permissions concern.

use crate::fixture::{self, Awkward, NOBODY};
use copper_tests::compare::Outcome;
use copper_tests::environment;
use std::process::Command;

fn everything(_: &[u8]) -> bool {
    true
}

/// What lies in `/` is not the tree's, and a view leaves out some of it.
fn not_the_root(path: &[u8]) -> bool {
    !path.starts_with(b"links/outside-root") && path != b"links/outside-dir/.."
}

/// Above the view's root is what its directory lies in, not `/`; and a link that leads out of a
/// mount may lead to what can be written, while the view is read-only all over.
fn inside(path: &[u8]) -> bool {
    !path.starts_with(b"links/outside")
}

fn compare(program: &str, keep: fn(&[u8]) -> bool, user: Option<u32>) {
    fixture::compare(&Awkward::new(), program, keep, user, |outcome| outcome);
}

#[test]
fn attributes_as_root() {
    compare("stat_family", everything, None);
}

#[test]
fn attributes_as_nobody() {
    compare("stat_family", everything, Some(NOBODY));
}

#[test]
fn opening_as_root() {
    compare("open_family", inside, None);
}

#[test]
fn opening_as_nobody() {
    compare("open_family", inside, Some(NOBODY));
}

#[test]
fn directories_as_root() {
    compare("directory_family", not_the_root, None);
}

#[test]
fn directories_as_nobody() {
    compare("directory_family", not_the_root, Some(NOBODY));
}

/// A link that leads out of the tree leads out of a mount, to what may be written; it does not
/// lead out of the view, which is read-only all over.
fn without_writing_outside(mut outcome: Outcome) -> Outcome {
    let lines = outcome.stdout.split_inclusive(|&byte| byte == b'\n');
    let kept = lines.filter(|line| {
        let outside = line.windows(13).any(|part| part == b"links/outside");
        !(outside && line.starts_with(b"W "))
    });
    outcome.stdout = kept.flatten().copied().collect();
    outcome
}

fn compare_paths(user: Option<u32>) {
    let tree = Awkward::new();
    fixture::compare(
        &tree,
        "path_family",
        not_the_root,
        user,
        without_writing_outside,
    );
}

#[test]
fn paths_as_root() {
    compare_paths(None);
}

#[test]
fn paths_as_nobody() {
    compare_paths(Some(NOBODY));
}

#[test]
fn working_directory_as_root() {
    compare("cwd_family", inside, None);
}

#[test]
fn working_directory_as_nobody() {
    compare("cwd_family", inside, Some(NOBODY));
}

#[test]
fn file_system_queries_as_root() {
    compare("query_family", everything, None);
}

#[test]
fn file_system_queries_as_nobody() {
    compare("query_family", everything, Some(NOBODY));
}

#[test]
fn other_names_as_root() {
    compare("alias_family", not_the_root, None);
}

#[test]
fn other_names_as_nobody() {
    compare("alias_family", not_the_root, Some(NOBODY));
}

/// Links that lead back up, but not out, and to another branch, for walks that follow them.
fn compare_walks(user: Option<u32>) {
    let tree = Awkward::new();
    let cycles = tree.root().join("cycles");
    std::fs::create_dir_all(cycles.join("a/b/c")).unwrap();
    std::fs::write(cycles.join("a/b/file"), "x").unwrap();
    for (link, target) in [
        ("across", "a"),
        ("a/here", "."),
        ("a/b/top", "../.."),
        ("a/b/away", "../../../walk/gamma"),
        ("a/file-link", "b/file"),
    ] {
        std::os::unix::fs::symlink(target, cycles.join(link)).unwrap();
    }
    fixture::compare(&tree, "fts_family", everything, user, |outcome| outcome);
}

#[test]
fn walks_as_root() {
    compare_walks(None);
}

#[test]
fn walks_as_nobody() {
    compare_walks(Some(NOBODY));
}

/// The bench itself: a library that is wrong in one way must be found out.
#[test]
fn a_wrong_preload_is_found_out() {
    let tree = Awkward::new();
    let (root, manifest) = (tree.root(), tree.manifest(not_the_root));
    let library = environment::program("broken_preload.so");
    let wrongs = [
        ("stat_family", "size"),
        ("stat_family", "inode"),
        ("stat_family", "mtime"),
        ("stat_family", "errno touched"),
        ("open_family", "errno"),
        ("open_family", "flags"),
        ("open_family", "page"),
        ("directory_family", "entry lost"),
        ("directory_family", "kind"),
        ("path_family", "long link"),
        ("query_family", "xattr"),
        ("cwd_family", "cwd"),
    ];
    for (program, wrong) in wrongs {
        let run = |wrong: &str| {
            let mut command = Command::new(environment::program(program));
            command.arg(&root).arg(&manifest);
            command.env("LD_PRELOAD", &library).env("BROKEN", wrong);
            Outcome::of(&mut command)
        };
        let right = run("nothing");
        assert!(right.status.success());
        assert!(
            run(wrong).difference(&right).is_some(),
            "{program} does not see a wrong {wrong}"
        );
    }
}
