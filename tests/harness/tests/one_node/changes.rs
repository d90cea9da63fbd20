//! Calls that change something. Below a covered prefix they change the origin, and are seen at
//! once; in the view they fail as on a read-only mount.

use crate::fixture::NOBODY;
use copper_tests::compare::Outcome;
use copper_tests::session::{Session, Way};
use copper_tests::{environment, origin};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes the tree that `write_family` changes.
fn make_corner(root: &Path) {
    for directory in [
        "new",
        "dir",
        "remove/empty",
        "remove/empty2",
        "remove/empty3",
        "relative",
    ] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let files = [
        ("file/over", "over"),
        ("file/append", "append"),
        ("file/truncate", "truncate me"),
        ("file/long", "long enough"),
        ("remove/file", ""),
        ("remove/file2", ""),
        ("remove/file3", ""),
        ("remove/file4", ""),
        ("remove/full/file", "in full"),
        ("move/a", "a"),
        ("move/c", "c"),
        ("move/d", "d"),
        ("move/e", "e"),
        ("move/over", "over"),
        ("move/dir/file", "moved"),
        ("relative/old", "old"),
        ("dir/file", "in dir"),
    ];
    for (file, text) in files {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), text).unwrap();
    }
    fs::create_dir(root.join("links")).unwrap();
    symlink("target", root.join("links/dangling")).unwrap();
    symlink("target2", root.join("links/dangling2")).unwrap();
    symlink("../file/over", root.join("links/to-file")).unwrap();
    symlink("full", root.join("remove/link")).unwrap();
}

fn give(root: &Path, user: Option<u32>) {
    if let Some(user) = user {
        let owner = format!("{user}:{user}");
        let status = Command::new("chown")
            .args(["-Rh", &owner])
            .arg(root)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// A fresh copy of the corner, always by the same name length.
fn corner(scratch: &Path, name: &str, user: Option<u32>) -> PathBuf {
    let root = scratch.join(name);
    make_corner(&root);
    give(&root, user);
    root
}

fn changes(user: Option<u32>) {
    let scratch = environment::scratch();
    let program = environment::program("write_family");
    let place = |name| corner(scratch.path(), name, user);
    let (plain, again, cold, warm) = (
        place("plain"),
        place("again"),
        place("cold0"),
        place("warm0"),
    );
    let mut session = Session::prepare(&[&cold, &warm]);
    if let Some(user) = user {
        session = session.as_user(user);
    }
    let session = session.started();
    let run = |way, root: &Path| {
        let outcome = Outcome::of(session.command(way, &program).arg(session.seen(way, root)));
        outcome
            .without_view(&session.view())
            .with_path(root, Path::new("ROOT"))
    };

    let expected = run(Way::Plain, &plain);
    assert!(
        expected.status.success() && expected.stdout.len() > 10_000,
        "{expected:?}"
    );
    run(Way::Plain, &again).must_equal(&expected, "a second plain run");
    run(Way::Covered, &cold).must_equal(&expected, "the covered run, cold,");
    // Warm: everything that will be changed has been asked for before.
    Outcome::of(session.command(Way::Covered, "ls").arg("-lR").arg(&warm));
    Outcome::of(
        session
            .command(Way::Covered, "grep")
            .arg("-r")
            .arg("")
            .arg(&warm),
    );
    run(Way::Covered, &warm).must_equal(&expected, "the covered run, warm,");
    for changed in [&cold, &warm] {
        listing(changed).must_equal(&listing(&plain), "what the covered run left on the origin");
    }

    let view = corner(scratch.path(), "views", user);
    let before = listing(&view);
    let mut reference = session.command(Way::Plain, &program);
    reference.arg(&view);
    let reference = Outcome::of(&mut origin::read_only(&view, &reference));
    let reference = reference.with_path(&view, Path::new("ROOT"));
    assert!(reference.status.success(), "{reference:?}");
    for state in ["cold", "warm"] {
        run(Way::View, &view).must_equal(&reference, &format!("the run in the view, {state},"));
        listing(&view).must_equal(&before, "the origin after writing in the view");
    }
}

/// Everything below a directory with its contents, seen without Copper; temporary names by their
/// number only.
fn listing(root: &Path) -> Outcome {
    let script = "find . -printf '%p %y %m %n %l\\n' | sed 's/[md]-......\\(\\.c\\)\\?/temporary/' \
                  | sort; find . -type f -print0 | sort -z | xargs -0 cksum \
                  | sed 's/[md]-......\\(\\.c\\)\\?/temporary/' | sort";
    Outcome::of(Command::new("sh").args(["-c", script]).current_dir(root))
}

#[test]
fn changes_as_root() {
    changes(None);
}

#[test]
fn changes_as_nobody() {
    changes(Some(NOBODY));
}
