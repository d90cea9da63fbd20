//! Paths, directories, changes.

use crate::support::{Stage, wait_until};
use copper_core::catalog::layout::header;
use copper_core::catalog::reader::{Content, Kind};
use copper_core::request::{Operation, Outcome};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

#[test]
fn one_question_makes_the_whole_directory_known() {
    let stage = Stage::new();
    stage.write("pkg/a.py", b"a");
    stage.write("pkg/b.py", b"bb");
    stage.write("pkg/sub/inner", b"");
    symlink("a.py", stage.path("pkg/link")).expect("link");
    let helper = stage.start(&[]);
    let asked = helper.ask(Operation::Resolve, &stage.path("pkg/missing"));
    assert_eq!(asked, Outcome::Known);

    let (kind, attributes) = helper.known(&stage.path("pkg/b.py")).expect("known");
    let native = fs::symlink_metadata(stage.path("pkg/b.py")).expect("there");
    assert_eq!(kind, Kind::Present);
    assert_eq!(attributes.size, 2);
    assert_eq!(attributes.inode, native.ino());
    assert_eq!(attributes.device, native.dev());
    assert_eq!(attributes.mode, native.mode());
    assert_eq!(attributes.changed.nanoseconds, native.ctime_nsec() as u32);
    assert_eq!(helper.link(&stage.path("pkg/link")), b"a.py");

    let mut names = helper.listing(&stage.path("pkg")).expect("whole");
    names.sort();
    let expected = [
        (".", 4),
        ("..", 4),
        ("a.py", 8),
        ("b.py", 8),
        ("link", 10),
        ("sub", 4),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, kind)| (name.as_bytes().to_vec(), *kind))
        .collect();
    assert_eq!(names, expected);
    assert!(helper.listing(&stage.path("pkg/sub")).is_none());
    assert!(
        helper.listing(stage.base.path()).is_none(),
        "above the prefix"
    );
}

#[test]
fn a_directory_is_listed_once_however_many_ask() {
    let stage = Stage::new();
    for number in 0..300 {
        stage.write(&format!("many/{number}"), b"x");
    }
    let helper = stage.start(&[]);
    std::thread::scope(|scope| {
        for number in 0..32 {
            let (helper, path) = (&helper, stage.path(&format!("many/{number}")));
            scope.spawn(move || {
                assert_eq!(helper.ask(Operation::Resolve, &path), Outcome::Known);
                assert_eq!(helper.ask(Operation::Content, &path), Outcome::Known);
            });
        }
    });
    let status = helper.status();
    assert_eq!(status["origin"]["listings"], 1);
    assert_eq!(status["origin"]["opens"], 32);
    assert_eq!(status["cached"]["files"], 32);
}

#[test]
fn a_large_directory_is_served_name_by_name() {
    let stage = Stage::new();
    for number in 0..20 {
        stage.write(&format!("large/{number}"), b"x");
    }
    let helper = stage.start(&["--directory-limit", "10"]);
    let directory = stage.path("large");
    assert_eq!(
        helper.ask(Operation::Resolve, &directory.join("3")),
        Outcome::Known
    );
    assert_eq!(
        helper.ask(Operation::Resolve, &directory.join("none")),
        Outcome::Known
    );
    assert_eq!(
        helper.known(&directory.join("none")).expect("known").0,
        Kind::Absent(2)
    );
    assert!(helper.known(&directory.join("4")).is_none());
    assert_eq!(
        helper.ask(Operation::Listing, &directory),
        Outcome::PassThrough
    );
}

#[test]
fn links_are_followed_to_what_they_lead_to() {
    let stage = Stage::new();
    stage.write("real/data", b"12345");
    symlink("real", stage.path("alias")).expect("link");
    symlink("loop", stage.path("loop")).expect("link");
    let helper = stage.start(&[]);
    assert_eq!(
        helper.ask(Operation::Resolve, &stage.path("alias/data")),
        Outcome::Known
    );
    assert_eq!(
        helper
            .known(&stage.path("real/data"))
            .expect("known")
            .1
            .size,
        5
    );
    assert_eq!(
        helper.ask(Operation::Resolve, &stage.path("loop")),
        Outcome::Known
    );
    assert_eq!(
        helper.ask(Operation::Resolve, Path::new("/proc/self")),
        Outcome::Known
    );
    assert!(
        helper.known(Path::new("/proc/self")).is_none(),
        "never covered"
    );
}

#[test]
fn a_change_is_seen_under_every_name() {
    let stage = Stage::new();
    stage.write("real/data", b"old");
    symlink("real", stage.path("alias")).expect("link");
    let helper = stage.start(&[]);
    let (real, alias) = (stage.path("real/data"), stage.path("alias/data"));
    assert_eq!(helper.ask(Operation::Content, &real), Outcome::Known);
    assert_eq!(fs::read(helper.stored(&real)).expect("stored"), b"old");

    fs::write(&real, b"newer").expect("written");
    assert_eq!(helper.ask(Operation::Changed, &alias), Outcome::Known);
    assert!(helper.known(&real).is_none());
    assert!(!helper.stored(&real).exists());
    assert_eq!(helper.ask(Operation::Content, &real), Outcome::Known);
    assert_eq!(fs::read(helper.stored(&real)).expect("stored"), b"newer");
}

#[test]
fn a_new_name_is_seen_after_its_creation_was_told() {
    let stage = Stage::new();
    stage.write("d/old", b"");
    let helper = stage.start(&[]);
    helper.ask(Operation::Resolve, &stage.path("d/new"));
    assert!(helper.listing(&stage.path("d")).is_some());
    stage.write("d/new", b"");
    helper.ask(Operation::Changed, &stage.path("d/new"));
    assert!(helper.listing(&stage.path("d")).is_none());
    helper.ask(Operation::Resolve, &stage.path("d/new"));
    assert_eq!(
        helper.known(&stage.path("d/new")).expect("known").0,
        Kind::Present
    );
    assert_eq!(
        helper.ask(Operation::Listing, &stage.path("d")),
        Outcome::Known
    );
    assert_eq!(helper.listing(&stage.path("d")).expect("whole").len(), 4);
}

#[test]
fn what_lay_below_a_renamed_directory_is_forgotten() {
    let stage = Stage::new();
    stage.write("a/b/c", b"1");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &stage.path("a/b/c"));
    fs::rename(stage.path("a"), stage.path("z")).expect("renamed");
    helper.ask_two(Operation::Changed, &stage.path("a"), &stage.path("z"));
    assert!(helper.known(&stage.path("a/b/c")).is_none());
    assert_eq!(
        helper.ask(Operation::Resolve, &stage.path("a/b/c")),
        Outcome::Known
    );
    assert_eq!(
        helper.known(&stage.path("a")).expect("known").0,
        Kind::Absent(2)
    );
    assert_eq!(
        helper.ask(Operation::Content, &stage.path("z/b/c")),
        Outcome::Known
    );
    assert_eq!(
        fs::read(helper.stored(&stage.path("z/b/c"))).expect("stored"),
        b"1"
    );
}

#[test]
fn a_file_that_is_being_written_is_left_to_the_origin_until_it_is_closed() {
    let stage = Stage::new();
    let path = stage.write("log", b"one");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &path);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("opened");
    assert_eq!(helper.ask(Operation::Writing, &path), Outcome::Known);
    assert_eq!(helper.known(&path).expect("known").0, Kind::Pass);
    assert_eq!(helper.ask(Operation::Content, &path), Outcome::PassThrough);

    let moved = stage.path("moved");
    fs::rename(&path, &moved).expect("renamed");
    helper.ask_two(Operation::Changed, &path, &moved);
    assert_eq!(helper.ask(Operation::Resolve, &moved), Outcome::PassThrough);
    assert_eq!(
        helper.ask(Operation::Listing, &stage.origin),
        Outcome::Known
    );
    assert_eq!(helper.known(&moved).expect("known").0, Kind::Pass);

    file.write_all(b" two").expect("written");
    drop(file);
    wait_until("the file is believed again, though nobody asked", || {
        helper.known(&moved).is_none()
    });
    assert_eq!(helper.ask(Operation::Content, &moved), Outcome::Known);
    assert_eq!(fs::read(helper.stored(&moved)).expect("stored"), b"one two");
}

#[test]
fn another_name_of_a_file_that_is_being_written_is_left_to_the_origin_too() {
    let stage = Stage::new();
    let path = stage.write("one", b"old");
    let other = stage.path("two");
    fs::hard_link(&path, &other).expect("linked");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &other);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("opened");
    helper.ask(Operation::Writing, &path);
    assert_eq!(helper.ask(Operation::Content, &other), Outcome::PassThrough);
    file.write_all(b"er").expect("written");
    drop(file);
    wait_until("the other name is believed again", || {
        helper.known(&other).is_none()
    });
    assert_eq!(helper.ask(Operation::Content, &other), Outcome::Known);
    assert_eq!(fs::read(helper.stored(&other)).expect("stored"), b"older");
}

#[test]
fn an_alarm_makes_the_helper_forget_everything() {
    let stage = Stage::new();
    let path = stage.write("data", b"x");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &path);
    assert!(matches!(helper.content(&path), Content::Stored(_)));
    let raised = helper.raise_alarm();
    helper.ask(Operation::Resolve, Path::new("/"));
    assert_eq!(helper.word(header::ALARMS_SEEN), raised);
    assert!(helper.known(&path).is_none());
    assert!(!helper.stored(&path).exists());
}

#[test]
fn a_refresh_lets_changes_made_elsewhere_be_seen() {
    let stage = Stage::new();
    let path = stage.write("d/data", b"old");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &path);
    fs::write(&path, b"newer").expect("written");
    let refreshed = stage.run(&["refresh", stage.origin.to_str().expect("plain")]);
    assert!(refreshed.status.success());
    helper.ask(Operation::Content, &path);
    assert_eq!(fs::read(helper.stored(&path)).expect("stored"), b"newer");
    assert_eq!(helper.known(&path).expect("known").1.size, 5);
}

#[test]
fn strangers_and_silent_clients_do_no_harm() {
    let stage = Stage::new();
    let path = stage.write("data", b"x");
    let helper = stage.start(&[]);
    let mut garbage = helper.connect();
    garbage.write_all(&[0xff; 64]).expect("sent");
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    let mut silent = helper.connect();
    assert_eq!(helper.ask(Operation::Content, &path), Outcome::Known);
    assert_eq!(silent.read(&mut [0]).expect("closed by the helper"), 0);
    assert_eq!(
        helper.ask(Operation::Resolve, Path::new("relative")),
        Outcome::Refused
    );
}
