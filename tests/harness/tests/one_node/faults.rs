//! What goes wrong on one node: whatever happens to the helper, its store or its catalog, the
//! program's result is that of a plain run, and it waits once and not long.

use copper_tests::compare::Outcome;
use copper_tests::session::{Session, Way, wait_until};
use copper_tests::{environment, origin, python, tree};
use rustix::process::Signal;
use slow_origin::{Fault, FaultKind, Load, Operation};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest that a stuck call may wait; after the first the process stops asking.
const STUCK: Duration = Duration::from_secs(2);

/// What a busy machine adds to a run's time.
const SLACK: Duration = Duration::from_secs(3);

/// An import of numpy, scipy and pandas, with how long it takes plain.
struct Import {
    session: Session,
    scratch: tempfile::TempDir,
    plain: Outcome,
    takes: Duration,
}

impl Import {
    fn prepare() -> Self {
        let session = Session::prepare(&[python::packages()]);
        let scratch = environment::scratch();
        let nothing = Outcome::of(&mut Command::new("true"));
        let mut import = Self {
            session,
            scratch,
            plain: nothing,
            takes: Duration::ZERO,
        };
        import.run(Way::Plain);
        let start = Instant::now();
        import.plain = import.run(Way::Plain);
        import.takes = start.elapsed();
        assert!(import.plain.status.success(), "{:?}", import.plain);
        import
    }

    fn started() -> Self {
        let mut import = Self::prepare();
        import
            .session
            .try_start()
            .unwrap_or_else(|error| panic!("{error:#}"));
        import
    }

    fn command(&self, way: Way) -> Command {
        let mut command = self.session.command(way, python::interpreter());
        command
            .args(["-c", python::IMPORT])
            .current_dir(self.scratch.path());
        command.env("PYTHONPATH", self.session.seen(way, python::packages()));
        python::settle(&mut command);
        command
    }

    fn run(&self, way: Way) -> Outcome {
        Outcome::of(&mut self.command(way)).without_view(&self.session.view())
    }

    /// Runs the import while something is wrong: result and time must be as promised.
    fn must_be_well(&self, way: Way, what: &str) {
        let start = Instant::now();
        self.run(way)
            .must_equal(&self.plain, &format!("the import {what}"));
        let took = start.elapsed();
        let limit = 2 * self.takes + STUCK + SLACK;
        assert!(
            took <= limit,
            "the import {what} took {took:?}, plain {:?}",
            self.takes
        );
    }
}

/// Numbers that differ from run to run; they are printed when a test fails.
fn random_moments(count: u32, within: Duration) -> Vec<Duration> {
    let mut state = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.subsec_nanos())
        | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            within.mul_f64(f64::from(state >> 8) / f64::from(1 << 24))
        })
        .collect()
}

#[test]
fn helper_killed_at_ten_random_moments() {
    let mut import = Import::prepare();
    for (round, moment) in random_moments(10, 2 * import.takes).into_iter().enumerate() {
        import
            .session
            .try_start()
            .unwrap_or_else(|error| panic!("{error:#}"));
        let way = if round % 2 == 0 {
            Way::Covered
        } else {
            Way::View
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(moment);
                import.session.kill();
            });
            import.must_be_well(
                way,
                &format!("{way:?} with the helper killed after {moment:?}"),
            );
        });
    }
    import.must_be_well(Way::Covered, "after the last helper was killed");
}

#[test]
fn helper_stopped_before_and_in_the_middle() {
    let import = Import::started();
    import.session.signal(Signal::STOP);
    for way in [Way::Covered, Way::View] {
        import.must_be_well(way, &format!("{way:?} with the helper stopped"));
    }
    import.session.signal(Signal::CONT);
    import.must_be_well(Way::Covered, "with the helper going on");
    for moment in random_moments(3, import.takes) {
        // Cold again, so that there is something to ask.
        assert!(
            Outcome::of(import.session.copper().arg("refresh"))
                .status
                .success()
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(moment);
                import.session.signal(Signal::STOP);
            });
            let what = format!("with the helper stopped after {moment:?}");
            import.must_be_well(Way::Covered, &what);
        });
        import.session.signal(Signal::CONT);
    }
}

#[test]
fn one_stuck_call_is_the_last() {
    let scratch = environment::scratch();
    let tree = scratch.path().join("tree");
    for number in 0..50 {
        fs::create_dir_all(tree.join(number.to_string())).unwrap();
        fs::write(tree.join(format!("{number}/file")), "contents\n").unwrap();
    }
    let session = Session::start(&[&tree]);
    session.signal(Signal::STOP);
    let read = |way| {
        // One process, so that it can know: fifty directories that were never asked for.
        let script = "import os, sys\nfor d in sorted(os.listdir(sys.argv[1])): \
                      print(d, open(f'{sys.argv[1]}/{d}/file').read(), os.listdir(f'{sys.argv[1]}/{d}'))";
        let mut command = session.command(way, python::interpreter());
        command.args(["-c", script]).arg(session.seen(way, &tree));
        python::settle(&mut command);
        let start = Instant::now();
        (
            Outcome::of(&mut command).without_view(&session.view()),
            start.elapsed(),
        )
    };
    let (plain, plainly) = read(Way::Plain);
    for way in [Way::Covered, Way::View] {
        let (outcome, took) = read(way);
        outcome.must_equal(&plain, "fifty readings with the helper stopped");
        let limit = 2 * plainly + STUCK + Duration::from_secs(1);
        assert!(
            took < limit,
            "fifty readings with the helper stopped took {took:?}"
        );
    }
}

#[test]
fn helper_absent() {
    let import = Import::prepare();
    for way in [Way::Covered, Way::View] {
        if way == Way::View {
            // The view is there, as a helper that died leaves it: links that lead to the origin.
            fs::create_dir(import.session.view()).unwrap();
            for entry in fs::read_dir("/").unwrap() {
                let path = entry.unwrap().path();
                let link = import.session.view().join(path.file_name().unwrap());
                symlink(&path, link).unwrap();
            }
        }
        let start = Instant::now();
        let outcome = import.run(way);
        assert!(outcome.status.success(), "{way:?}: {outcome:?}");
        assert!(
            start.elapsed() < 2 * import.takes + SLACK,
            "{:?}",
            start.elapsed()
        );
        if way == Way::Covered {
            outcome.must_equal(&import.plain, "the import without a helper");
        }
    }
}

#[test]
fn store_smaller_than_what_is_read() {
    let import = Import::prepare();
    let mount = import.scratch.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mut run = import.session.copper();
    run.arg("run")
        .arg("--cover")
        .arg(python::packages())
        .arg("--store")
        .arg(&mount);
    run.arg("--")
        .arg(python::interpreter())
        .args(["-c", python::IMPORT]);
    run.env("PYTHONPATH", python::packages());
    python::settle(&mut run);
    for size in ["17m", "30m"] {
        let outcome = Outcome::of(&mut origin::with_tmpfs(&mount, size, &run));
        outcome.must_equal(&import.plain, &format!("the import with a store of {size}"));
    }
    // Next to nothing is refused with advice, before the command runs.
    let refused = Outcome::of(&mut origin::with_tmpfs(&mount, "1m", &run));
    assert!(
        refused.stdout.is_empty() && !refused.status.success(),
        "{refused:?}"
    );
    let advice = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(advice.contains("--store"), "no advice in: {advice}");
}

/// Somebody else fills the tmpfs while the helper uses it.
#[test]
fn store_filled_by_another() {
    let import = Import::prepare();
    let mount = import.scratch.path().join("shared");
    fs::create_dir(&mount).unwrap();
    let script = "dd if=/dev/zero of=$SHARED/ballast bs=64k 2>/dev/null; \
                  $PYTHON -c \"$IMPORT\" && rm $SHARED/ballast && $PYTHON -c \"$IMPORT\"";
    let mut run = import.session.copper();
    run.arg("run")
        .arg("--cover")
        .arg(python::packages())
        .arg("--store")
        .arg(&mount);
    run.args(["--", "sh", "-c", script])
        .env("SHARED", &mount)
        .env("IMPORT", python::IMPORT);
    run.env("PYTHON", python::interpreter())
        .env("PYTHONPATH", python::packages());
    python::settle(&mut run);
    let outcome = Outcome::of(&mut origin::with_tmpfs(&mount, "120m", &run));
    let mut twice = import.plain.clone();
    twice.stdout = twice.stdout.repeat(2);
    outcome.must_equal(&twice, "the import beside somebody who fills the tmpfs");
}

/// Replaces what the runtime directory says the catalog is.
fn replace_catalog(session: &Session, by: impl FnOnce(&Path)) {
    let catalog = session.runtime_directory().join("catalog");
    fs::remove_file(&catalog).unwrap();
    by(&catalog);
}

#[test]
fn catalog_cannot_be_changed_by_others() {
    let import = Import::started();
    import.must_be_well(Way::Covered, "before anything is done to the catalog");
    let catalog = import.session.runtime_directory().join("catalog");
    let mut tried = 0;
    if let Ok(file) = fs::OpenOptions::new().write(true).open(&catalog) {
        let size = file.metadata().unwrap().len();
        for length in [0, 100, size / 2] {
            let _ = file.set_len(length);
        }
        for at in (0..size.min(1 << 20)).step_by(64) {
            let _ = file.write_all_at(&[0xff; 64], at);
        }
        tried += 1;
    }
    import.must_be_well(Way::Covered, "after writing to the catalog was tried");
    import.must_be_well(Way::View, "after writing to the catalog was tried");
    // Programs that have it mapped already.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| import.must_be_well(Way::Covered, "while the catalog is cut"));
        for _ in 0..50 {
            std::thread::sleep(import.takes / 50);
            if let Ok(file) = fs::OpenOptions::new().write(true).open(&catalog) {
                let _ = file.set_len(0);
                let _ = file.write_all_at(&[0xff; 4096], 0);
                tried += 1;
            }
        }
        run.join().unwrap();
    });
    eprintln!("the catalog could be opened for writing {tried} times");
}

#[test]
fn catalog_replaced_by_garbage() {
    let import = Import::started();
    import.must_be_well(Way::Covered, "before anything is done to the catalog");
    // The catalog is as long as it may ever grow, most of it a hole.
    let mut whole = vec![0; 4 << 20];
    let catalog = fs::File::open(import.session.runtime_directory().join("catalog")).unwrap();
    let length = catalog.read_at(&mut whole, 0).unwrap();
    whole.truncate(length);
    let with_noise = |seed: usize| {
        let mut bytes = whole.clone();
        for at in (seed..bytes.len()).step_by(97) {
            bytes[at] = bytes[at].wrapping_mul(31).wrapping_add(seed as u8);
        }
        bytes
    };
    let contents = [
        ("empty", Vec::new()),
        ("one byte long", vec![0]),
        ("of zeros", vec![0; 65_536]),
        ("of ones", vec![0xff; 65_536]),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        (
            "cut after its first page",
            whole[..4096.min(whole.len())].to_vec(),
        ),
        ("with noise", with_noise(3)),
        ("with noise behind its first page", {
            let mut bytes = with_noise(11);
            let head = 4096.min(whole.len());
            bytes[..head].copy_from_slice(&whole[..head]);
            bytes
        }),
    ];
    for (what, bytes) in contents {
        replace_catalog(&import.session, |catalog| {
            fs::write(catalog, &bytes).unwrap()
        });
        import.must_be_well(Way::Covered, &format!("with a catalog {what}"));
        import.must_be_well(Way::View, &format!("in the view with a catalog {what}"));
    }
}

#[test]
fn catalog_replaced_by_what_is_no_file() {
    let import = Import::started();
    let other = import.scratch.path().join("other");
    replace_catalog(&import.session, |catalog| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            catalog,
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
    });
    import.must_be_well(Way::Covered, "with a FIFO for a catalog");
    replace_catalog(&import.session, |catalog| {
        symlink("catalog", catalog).unwrap()
    });
    import.must_be_well(Way::Covered, "with a loop for a catalog");
    replace_catalog(&import.session, |catalog| symlink(&other, catalog).unwrap());
    import.must_be_well(Way::Covered, "with a dangling link for a catalog");
    replace_catalog(&import.session, |catalog| {
        symlink("/dev/zero", catalog).unwrap()
    });
    import.must_be_well(Way::Covered, "with a device for a catalog");
    replace_catalog(&import.session, |catalog| fs::create_dir(catalog).unwrap());
    import.must_be_well(Way::Covered, "with a directory for a catalog");
}

/// A runtime directory that others could write to, or that is another's, is not believed.
#[test]
fn runtime_directory_with_wrong_owner_or_mode() {
    let import = Import::started();
    let runtime = import.session.runtime_directory();
    let helper_asked = || import.session.status_number(["asked", "total"]);
    let cases = [
        (
            "writable by all",
            (|path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            }) as fn(&Path),
        ),
        ("writable by its group", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o770)).unwrap();
        }),
        ("of another", |path| {
            std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
        }),
    ];
    for (what, spoil) in cases {
        let before = helper_asked();
        spoil(&runtime);
        import.must_be_well(Way::Covered, &format!("with a runtime directory {what}"));
        let start = Outcome::of(import.session.copper().arg("start"));
        assert!(
            !start.status.success(),
            "copper start with a runtime directory {what}: {start:?}"
        );
        assert!(
            !start.stderr.is_empty(),
            "copper start fails without a word"
        );
        std::os::unix::fs::chown(&runtime, Some(0), None).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(
            helper_asked(),
            before,
            "a helper in a runtime directory {what} was asked"
        );
    }
}

#[test]
fn store_of_another_or_open_to_all_is_refused() {
    let scratch = environment::scratch();
    let store = scratch.path().join("store");
    fs::create_dir(&store).unwrap();
    let file = store.join("precious");
    fs::write(&file, "not Copper's").unwrap();
    for (what, owner, mode) in [("of another", 65_534, 0o700), ("open to all", 0, 0o777)] {
        std::os::unix::fs::chown(&store, Some(owner), None).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(mode)).unwrap();
        let mut session = Session::prepare(&[python::packages()]).with_store(&store);
        let started = session.try_start();
        if let Ok(()) = started {
            // It may make a directory of its own inside; that must not be open to anybody.
            let inside = session.status().unwrap()["store"]
                .as_str()
                .map(PathBuf::from)
                .unwrap();
            assert_ne!(inside, store, "a store directory {what} is used as it is");
            let mode = fs::metadata(&inside).unwrap().permissions().mode();
            assert_eq!(
                mode & 0o077,
                0,
                "the store in a directory {what} has mode {mode:o}"
            );
            session.stop().unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "not Copper's");
    }
}

/// A file that changes while it is being cached: a reader gets what some plain reader could have
/// got, and what is cached is not torn.
#[test]
fn file_changed_on_the_origin_while_it_is_being_cached() {
    const SIZE: usize = 8 << 20;
    let scratch = environment::scratch();
    let (source, mount) = (scratch.path().join("source"), scratch.path().join("mount"));
    fs::create_dir(&source).unwrap();
    let (old, new) = (tree::pattern(SIZE, 1), tree::pattern(SIZE, 2));
    let origin = origin::slow(&source, &mount, &Load::none());
    let read = |session: &Session, name: &str, way| {
        let mut cat = session.command(way, "cat");
        Outcome::of(cat.arg(session.seen(way, &mount.join(name))))
    };
    let is_one_of = |got: &[u8], whole: &[&[u8]]| whole.contains(&got);
    for change in ["replaced", "truncated", "deleted", "overwritten"] {
        for way in [Way::Covered, Way::View] {
            let name = format!("{change}-{way:?}");
            let file = source.join(&name);
            fs::write(&file, &old).unwrap();
            let session = Session::start(&[&mount]);
            let mut load = Load::none();
            load.latency_of.insert(Operation::Read, 5_000);
            origin.set_load(&load).unwrap();
            origin.reset().unwrap();
            let first = std::thread::scope(|scope| {
                let reader = scope.spawn(|| read(&session, &name, way));
                let has_begun = || origin.counts().unwrap().of(Operation::Read) > 2;
                assert!(
                    wait_until(Duration::from_secs(10), has_begun),
                    "nobody reads {name}"
                );
                match change {
                    "replaced" => {
                        fs::write(source.join("other"), &new).unwrap();
                        fs::rename(source.join("other"), &file).unwrap();
                    }
                    "truncated" => {
                        let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
                        file.set_len(SIZE as u64 / 4).unwrap();
                    }
                    "deleted" => fs::remove_file(&file).unwrap(),
                    _ => fs::write(&file, &new).unwrap(),
                }
                reader.join().unwrap()
            });
            origin.set_load(&Load::none()).unwrap();
            let second = read(&session, &name, way);
            assert!(
                Outcome::of(session.copper().arg("refresh"))
                    .status
                    .success()
            );
            let third = read(&session, &name, way);
            match change {
                "replaced" => {
                    for outcome in [&first, &second] {
                        assert!(is_one_of(&outcome.stdout, &[&old, &new]), "{name} is torn");
                    }
                    assert!(third.stdout == new, "{name} is not new after a refresh");
                }
                "deleted" => {
                    for outcome in [&first, &second] {
                        let absent = !outcome.status.success() && outcome.stdout.is_empty();
                        assert!(
                            absent || outcome.stdout == old,
                            "{name} is torn: {outcome:?}"
                        );
                    }
                    assert!(!third.status.success(), "{name} is there after a refresh");
                }
                "truncated" => {
                    // A plain reader gets what was there before the cut reached it.
                    for outcome in [&first, &second] {
                        assert!(
                            old.starts_with(&outcome.stdout),
                            "{name} holds what never was"
                        );
                        assert!(outcome.stdout.len() >= SIZE / 4 || !outcome.status.success());
                    }
                    assert!(
                        third.stdout == old[..SIZE / 4],
                        "{name} is not cut after a refresh"
                    );
                }
                _ => {
                    // Overwriting in place tears for a plain reader too; but not for ever.
                    assert!(third.stdout == new, "{name} is not new after a refresh");
                }
            }
        }
    }
}

/// Errors of the origin are the program's, and are not kept.
#[test]
fn origin_fails_and_recovers() {
    let scratch = environment::scratch();
    let (source, mount) = (scratch.path().join("source"), scratch.path().join("mount"));
    fs::create_dir_all(source.join("dir")).unwrap();
    for name in ["one", "two", "dir/three"] {
        fs::write(source.join(name), tree::pattern(300_000, name.len())).unwrap();
    }
    let origin = origin::slow(&source, &mount, &Load::none());
    let script = "cat \"$0\"/one \"$0\"/two \"$0\"/dir/three | cksum; ls \"$0\"/dir; stat -c %s \"$0\"/dir/*";
    let faults = [
        (FaultKind::Eio, "one", vec![Operation::Read]),
        (FaultKind::Eio, "two", vec![Operation::Open]),
        (
            FaultKind::Estale,
            "one",
            vec![Operation::Open, Operation::Read],
        ),
        (
            FaultKind::Eio,
            "dir",
            vec![Operation::Opendir, Operation::Readdir],
        ),
        (
            FaultKind::Eio,
            "dir/three",
            vec![Operation::Lookup, Operation::Getattr],
        ),
    ];
    for way in [Way::Covered, Way::View] {
        for (kind, path, operations) in &faults {
            let session = Session::start(&[&mount]);
            let run = |way| {
                let mut command = session.command(way, "sh");
                command.args(["-c", script]).arg(session.seen(way, &mount));
                Outcome::of(&mut command).without_view(&session.view())
            };
            let well = run(Way::Plain);
            let fault = Fault {
                path: (*path).into(),
                kind: *kind,
                operations: operations.clone(),
            };
            origin.fault(&fault).unwrap();
            let ill = run(Way::Plain);
            run(way).must_equal(&ill, &format!("with {fault:?} the run"));
            origin.clear_faults().unwrap();
            run(way).must_equal(&well, &format!("after {fault:?} the run"));
        }
    }
}

/// One path of the origin hangs: who asks for it waits, as plain; everybody else goes on.
#[test]
fn origin_hangs_on_one_path() {
    let scratch = environment::scratch();
    let (source, mount) = (scratch.path().join("source"), scratch.path().join("mount"));
    for name in ["stuck", "well"] {
        fs::create_dir_all(source.join(name)).unwrap();
        fs::write(source.join(name).join("file"), name).unwrap();
    }
    let origin = origin::slow(&source, &mount, &Load::none());
    let session = Session::start(&[&mount]);
    let read = |name: &str| {
        let mut cat = session.command(Way::Covered, "cat");
        cat.arg(mount.join(name).join("file"));
        cat
    };
    let hang = Fault {
        path: "stuck".into(),
        kind: FaultKind::Hang,
        operations: vec![Operation::Open],
    };
    origin.fault(&hang).unwrap();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| Outcome::of(&mut read("stuck")));
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..8 {
            let well = Outcome::within(&mut read("well"), STUCK + SLACK).unwrap();
            assert_eq!(well.text(), "well");
        }
        origin.clear_faults().unwrap();
        let stuck = stuck.join().unwrap();
        assert_eq!(stuck.text(), "stuck", "{stuck:?}");
    });
    assert_eq!(Outcome::of(&mut read("stuck")).text(), "stuck");
}
