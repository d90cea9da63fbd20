//! The bytes of files.

use crate::support::Stage;
use copper_core::catalog::reader::Content;
use copper_core::request::{Operation, Outcome};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

#[test]
fn stored_files_are_the_origin_s_byte_for_byte() {
    let stage = Stage::new();
    let helper = stage.start(&[]);
    for size in [0usize, 1, 4095, 4096, 4097, 262_144, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        let path = stage.write(&format!("size-{size}"), &bytes);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("mode");
        assert_eq!(
            helper.ask(Operation::Content, &path),
            Outcome::Known,
            "{size}"
        );
        let stored = helper.stored(&path);
        assert_eq!(fs::read(&stored).expect("stored"), bytes);
        let (native, copy) = (
            fs::metadata(&path).expect("there"),
            fs::metadata(&stored).expect("there"),
        );
        assert_eq!(copy.mode() & 0o777, 0o555);
        assert_eq!(
            (copy.mtime(), copy.mtime_nsec()),
            (native.mtime(), native.mtime_nsec())
        );
        assert_eq!(helper.content(&path), Content::Stored(copy.ino()));
        helper.ask(Operation::Changed, &stage.origin);
    }
}

#[test]
fn holes_stay_holes() {
    let stage = Stage::new();
    let path = stage.path("sparse");
    let file = File::create(&path).expect("file");
    file.set_len(64 << 20).expect("sized");
    file.write_all_at(b"middle", 32 << 20).expect("written");
    drop(file);
    let helper = stage.start(&[]);
    assert_eq!(helper.ask(Operation::Content, &path), Outcome::Known);
    let stored = helper.stored(&path);
    assert_eq!(
        fs::read(&stored).expect("stored"),
        fs::read(&path).expect("there")
    );
    assert!(fs::metadata(&stored).expect("there").blocks() * 512 < 1 << 20);
}

#[test]
fn two_names_of_a_file_share_one_stored_file() {
    let stage = Stage::new();
    let first = stage.write("first", b"shared");
    let second = stage.path("second");
    fs::hard_link(&first, &second).expect("linked");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &first);
    helper.ask(Operation::Content, &second);
    assert_eq!(helper.content(&first), helper.content(&second));
    assert_eq!(helper.status()["origin"]["opens"], 1);
    fs::write(&first, b"changed").expect("written");
    helper.ask(Operation::Changed, &first);
    assert!(helper.known(&second).is_none());
    helper.ask(Operation::Content, &second);
    assert_eq!(
        fs::read(helper.stored(&second)).expect("stored"),
        b"changed"
    );
}

#[test]
fn a_budget_is_kept_by_evicting_the_oldest() {
    let stage = Stage::new();
    let names = ["a", "b", "c", "d"];
    for name in names {
        stage.write(name, &vec![7; 400 << 10]);
    }
    let big = stage.write("big", &vec![7; 2 << 20]);
    let helper = stage.start(&["--memory", "1M"]);
    for name in names {
        assert_eq!(
            helper.ask(Operation::Content, &stage.path(name)),
            Outcome::Known
        );
    }
    assert_eq!(helper.content(&stage.path("a")), Content::Unknown);
    assert!(!helper.stored(&stage.path("a")).exists());
    assert!(matches!(
        helper.content(&stage.path("d")),
        Content::Stored(_)
    ));
    assert_eq!(helper.ask(Operation::Content, &big), Outcome::PassThrough);
    assert_eq!(helper.content(&big), Content::Pass);
    let status = helper.status();
    assert_eq!(status["evictions"], 2);
    assert!(status["memory"]["store_bytes"].as_u64().expect("number") <= 1 << 20);
}

#[test]
fn a_file_that_was_replaced_is_stored_in_its_new_version() {
    let stage = Stage::new();
    let path = stage.write("data", b"old");
    let helper = stage.start(&[]);
    helper.ask(Operation::Resolve, &path);
    fs::write(&path, b"longer than before").expect("written");
    assert_eq!(helper.ask(Operation::Content, &path), Outcome::Known);
    assert_eq!(helper.known(&path).expect("known").1.size, 18);
    assert_eq!(
        fs::read(helper.stored(&path)).expect("stored"),
        b"longer than before"
    );
    fs::remove_file(&path).expect("removed");
    helper.ask(Operation::Changed, &path);
    assert_eq!(helper.ask(Operation::Content, &path), Outcome::Known);
    assert_eq!(helper.content(&path), Content::Unknown);
}

#[test]
fn what_is_no_regular_file_is_left_to_the_origin_or_mirrored() {
    let stage = Stage::new();
    stage.write("d/file", b"");
    let made = std::process::Command::new("mkfifo")
        .arg(stage.path("pipe"))
        .status();
    assert!(made.expect("mkfifo").success());
    let helper = stage.start(&[]);
    assert_eq!(
        helper.ask(Operation::Content, &stage.path("pipe")),
        Outcome::PassThrough
    );
    assert_eq!(
        helper.ask(Operation::Content, &stage.path("d")),
        Outcome::Known
    );
    let mirror = fs::metadata(helper.mirrored(&stage.path("d"))).expect("mirrored");
    assert!(mirror.is_dir());
    assert_eq!(
        helper.content(&stage.path("d")),
        Content::Stored(mirror.ino())
    );
}

/// Builds a library that needs another one in `../libs`, which is a link to where it really is.
fn build_libraries(stage: &Stage) -> bool {
    fs::create_dir_all(stage.path("pkg")).expect("directory");
    fs::create_dir_all(stage.path("real")).expect("directory");
    symlink("real", stage.path("libs")).expect("link");
    fs::write(stage.path("one.c"), "int one(void) { return 1; }\n").expect("source");
    let two = "int one(void); int two(void) { return one() + 1; }\n";
    fs::write(stage.path("two.c"), two).expect("source");
    let compile = |arguments: &[&str]| {
        let compiled = std::process::Command::new("cc")
            .current_dir(&stage.origin)
            .args(["-shared", "-fPIC"])
            .args(arguments)
            .status();
        compiled.is_ok_and(|status| status.success())
    };
    compile(&[
        "one.c",
        "-o",
        "real/libone.so.1.2",
        "-Wl,-soname,libone.so.1",
    ]) && symlink("libone.so.1.2", stage.path("real/libone.so.1")).is_ok()
        && compile(&[
            "two.c",
            "-o",
            "pkg/two.so",
            "real/libone.so.1",
            "-Wl,-rpath,$ORIGIN/../libs",
        ])
}

#[test]
fn a_library_is_stored_with_all_that_the_loader_will_search() {
    let stage = Stage::new();
    assert!(build_libraries(&stage), "a C compiler is needed");
    let helper = stage.start(&[]);
    let library = stage.path("pkg/two.so");
    assert_eq!(helper.ask(Operation::Closure, &library), Outcome::Known);
    let searched = helper.mirrored(&stage.path("pkg/../libs/libone.so.1"));
    let real = helper.stored(&stage.path("real/libone.so.1.2"));
    let (searched, real) = (fs::metadata(searched), fs::metadata(real));
    assert_eq!(searched.expect("stored").ino(), real.expect("stored").ino());
    let linked = std::process::Command::new("ldd")
        .arg(helper.mirrored(&library))
        .output()
        .expect("ldd");
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    assert!(!linked.contains("not found"), "{linked}");

    fs::remove_file(stage.path("real/libone.so.1")).expect("removed");
    helper.ask(Operation::Changed, &stage.path("real/libone.so.1"));
    assert_eq!(helper.ask(Operation::Closure, &library), Outcome::Known);
    assert!(!helper.mirrored(&stage.path("libs/libone.so.1")).exists());
}
