//! What reaches the origin: nothing once it is cached, everything once before.
//!
//! The packages lie on the slow origin, which counts each operation of the kernel, so that also
//! what passes the shim by, or is done by ld.so, is seen.

use copper_tests::compare::Outcome;
use copper_tests::session::{Session, Way, wait_until};
use copper_tests::{call_counts, environment, origin, python};
use slow_origin::{Load, Operation, SlowOrigin};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

struct Packages {
    /// Declared first, so that the helper is gone before the origin is.
    session: Session,
    origin: SlowOrigin,
    scratch: tempfile::TempDir,
}

impl Packages {
    fn on_slow_origin() -> Self {
        let scratch = environment::scratch();
        let mount = scratch.path().join("packages");
        let origin = origin::slow(python::packages(), &mount, &Load::none());
        let session = Session::start(&[&mount]);
        Self {
            session,
            origin,
            scratch,
        }
    }

    fn import(&self, way: Way) -> Command {
        let mut command = self.session.command(way, python::interpreter());
        command
            .args(["-c", python::IMPORT])
            .current_dir(self.scratch.path());
        command.env("PYTHONPATH", self.session.seen(way, self.origin.mount()));
        python::settle(&mut command);
        command
    }

    fn run(&self, way: Way) -> Outcome {
        Outcome::of(&mut self.import(way)).without_view(&self.session.view())
    }

    /// Imports in four processes at once.
    fn run_four(&self, way: Way) -> Vec<Outcome> {
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| self.run(way))).collect();
            runs.into_iter()
                .map(|run| run.join().expect("the run ends"))
                .collect()
        })
    }
}

fn nothing_escapes_warm(way: Way) {
    let packages = Packages::on_slow_origin();
    let plain = packages.run(Way::Plain);
    assert!(plain.status.success(), "{plain:?}");
    packages.run(way).must_equal(&plain, "the cold import");
    origin::settled(|| packages.origin.counts());
    packages.origin.reset().unwrap();
    for _ in 0..2 {
        packages.run(way).must_equal(&plain, "the warm import");
    }
    let counts = packages.origin.counts().unwrap();
    assert_eq!(
        counts.total(),
        0,
        "warm imports reached the origin:\n{}",
        origin::most_touched(&counts)
    );
}

#[test]
fn nothing_escapes_warm_below_a_covered_prefix() {
    nothing_escapes_warm(Way::Covered);
}

#[test]
fn nothing_escapes_warm_in_the_view() {
    nothing_escapes_warm(Way::View);
}

fn everything_once_cold(way: Way) {
    let packages = Packages::on_slow_origin();
    let plain = packages.run(Way::Plain);
    packages.origin.set_load(&Load::latency_us(200)).unwrap();
    packages.origin.reset().unwrap();
    for run in packages.run_four(way) {
        run.must_equal(&plain, "one of four cold imports");
    }
    let counts = packages.origin.counts().unwrap();
    assert!(
        counts.of(Operation::Open) > 300,
        "{}",
        origin::most_touched(&counts)
    );
    let wrong = origin::read_more_than_once(&counts, python::packages(), 1);
    assert!(
        wrong.is_empty(),
        "asked of the origin more than once: {wrong:#?}"
    );
}

#[test]
fn everything_once_cold_below_a_covered_prefix() {
    everything_once_cold(Way::Covered);
}

#[test]
fn everything_once_cold_in_the_view() {
    everything_once_cold(Way::View);
}

/// Which files of a directory are fetched once two modules and two other files were read.
#[test]
fn modules_are_read_ahead_and_nothing_else_is() {
    let scratch = environment::scratch();
    let source = scratch.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        for (suffix, length) in [("pyc", 100), ("dat", 100)] {
            std::fs::write(source.join(format!("{name}.{suffix}")), vec![b'x'; length]).unwrap();
        }
    }
    std::fs::write(source.join("long.pyc"), vec![b'x'; 2 << 20]).unwrap();
    let mount = scratch.path().join("modules");
    let origin = origin::slow(&source, &mount, &Load::none());
    let session = Session::start(&[&mount]);
    let read = |names: &[&str]| {
        let mut cat = session.command(Way::Covered, "cat");
        cat.args(names.iter().map(|name| mount.join(name)));
        let outcome = Outcome::of(&mut cat);
        assert!(outcome.status.success(), "{outcome:?}");
    };
    read(&["a.dat", "b.dat", "a.pyc"]);
    assert_eq!(
        session.status_number(["cached", "files"]),
        3,
        "none is enough"
    );
    read(&["b.pyc"]);
    let all_there = || session.status_number(["cached", "files"]) == 7;
    assert!(wait_until(Duration::from_secs(20), all_there));
    let counts = origin.counts().unwrap();
    assert_eq!(counts.of(Operation::Open), 7, "{:#?}", counts.paths);
    assert!(
        !counts.bytes_read.contains_key("long.pyc"),
        "{:#?}",
        counts.bytes_read
    );
    origin.reset().unwrap();
    read(&["c.pyc", "d.pyc", "e.pyc"]);
    assert_eq!(origin.counts().unwrap().total(), 0);
}

/// What Python does first with a package is to look for an extension module of that name.
#[test]
fn a_package_that_is_looked_for_has_its_compiled_module_fetched() {
    let scratch = environment::scratch();
    let source = scratch.path().join("source");
    let compiled = |package: &str, module: &str| format!("{package}/__pycache__/{module}.x-1.pyc");
    for package in ["first", "second", "third"] {
        std::fs::create_dir_all(source.join(package).join("__pycache__")).unwrap();
        for module in ["__init__", "a", "b"] {
            std::fs::write(source.join(compiled(package, module)), "x").unwrap();
        }
    }
    let mount = scratch.path().join("modules");
    let origin = origin::slow(&source, &mount, &Load::none());
    let session = Session::start(&[&mount]);
    let is_there = |path: &str| {
        let mut test = session.command(Way::Covered, "test");
        test.arg("-e").arg(mount.join(path));
        Outcome::of(&mut test).status.success()
    };
    let read = |path: &str| {
        let mut cat = session.command(Way::Covered, "cat");
        assert!(Outcome::of(cat.arg(mount.join(path))).status.success());
    };
    let cached_becomes = |files: u64| {
        wait_until(Duration::from_secs(20), || {
            session.status_number(["cached", "files"]) == files
        })
    };
    assert!(!is_there("first/__init__.x-1-linux-gnu.so"));
    read(&compiled("first", "__init__"));
    assert!(
        cached_becomes(1),
        "nobody knows yet what Python's modules are called"
    );
    assert!(!is_there("third/other.x-1-linux-gnu.so"));
    assert!(cached_becomes(1), "that is no package's own module");
    assert!(!is_there("second/__init__.x-1-linux-gnu.so"));
    assert!(cached_becomes(2));
    let opened = origin.counts().unwrap().of(Operation::Open);
    assert_eq!(opened, 2, "{:#?}", origin.counts().unwrap().paths);
    origin.reset().unwrap();
    read(&compiled("second", "__init__"));
    assert_eq!(origin.counts().unwrap().total(), 0);
    read(&compiled("second", "a"));
    assert!(
        cached_becomes(4),
        "two modules of the package were asked for"
    );
}

/// Walks inside libc. Under a covered prefix a walk that changes the working directory is in the
/// origin's directories, and is left out.
fn walks_stay_away_from_the_origin(way: Way, changing: &str) {
    let packages = Packages::on_slow_origin();
    let walk = |way| {
        let mut command = packages
            .session
            .command(way, environment::program("walker_calls"));
        command
            .arg(packages.session.seen(way, packages.origin.mount()))
            .arg(changing);
        Outcome::of(&mut command)
    };
    let plain = walk(Way::Plain);
    assert!(plain.status.success(), "{plain:?}");
    walk(way).must_equal(&plain, "the cold walk");
    packages.origin.reset().unwrap();
    walk(way).must_equal(&plain, "the warm walk");
    let counts = packages.origin.counts().unwrap();
    let touched = origin::most_touched(&counts);
    assert_eq!(
        counts.total(),
        0,
        "warm walks reached the origin:\n{touched}"
    );
}

#[test]
fn walks_stay_away_from_the_origin_below_a_covered_prefix() {
    walks_stay_away_from_the_origin(Way::Covered, "staying");
}

#[test]
fn walks_stay_away_from_the_origin_in_the_view() {
    walks_stay_away_from_the_origin(Way::View, "changing");
}

/// Functions whose calls on covered paths rightly reach glibc: what they need the kernel for is
/// done on a path that the shim has already brought to the store.
const MAY_REACH_GLIBC: [&str; 0] = [];

#[test]
fn no_covered_call_reaches_glibc_warm() {
    let packages = Packages::on_slow_origin();
    packages.run(Way::Covered);
    let table = packages.scratch.path().join("calls");
    let mut import = packages.import(Way::Covered);
    let mut preload = packages.session.shim().into_os_string();
    preload.push(":");
    preload.push(environment::built("libcall_counter.so"));
    import
        .env("LD_PRELOAD", preload)
        .env("CALL_COUNTER_FILE", &table);
    import.env("CALL_COUNTER_PATHS", packages.origin.mount());
    let outcome = Outcome::of(&mut import);
    assert!(outcome.status.success(), "{outcome:?}");
    let calls = call_counts::read(&table).unwrap();
    assert!(
        calls.values().any(|calls| calls.all > 0),
        "the counter saw nothing at all"
    );
    let reached: Vec<_> = calls
        .iter()
        .filter(|(name, calls)| calls.covered > 0 && !MAY_REACH_GLIBC.contains(&name.as_str()))
        .collect();
    let examples: Vec<_> = call_counts::covered(&table)
        .unwrap()
        .into_iter()
        .take(20)
        .collect();
    assert!(
        reached.is_empty(),
        "calls on covered paths reached glibc: {reached:?}\n{examples:#?}"
    );
}

/// An interpreter on the origin: the kernel opens the program itself and ld.so its libraries, out
/// of a preload library's reach (docs/LIMITATIONS.md); everything else is served.
#[test]
fn an_interpreter_on_the_origin_escapes_only_by_kernel_and_loader() {
    let scratch = environment::scratch();
    let code = "import sys; print(sys.base_prefix)";
    let prefix = Outcome::of(Command::new(python::interpreter()).args(["-c", code])).text();
    let mount = scratch.path().join("prefix");
    let origin = origin::slow(Path::new(prefix.trim()), &mount, &Load::none());
    let session = Session::start(&[&mount]);
    let interpreter = python::interpreter()
        .strip_prefix(prefix.trim())
        .unwrap()
        .to_owned();
    let run = |way| {
        let mut command = session.command(way, mount.join(&interpreter));
        command.args([
            "-c",
            "import json, ctypes, sqlite3, email.mime.text; print(json.__file__)",
        ]);
        Outcome::of(python::settle(&mut command))
    };
    let plain = run(Way::Plain);
    assert!(plain.status.success(), "{plain:?}");
    run(Way::Covered).must_equal(&plain, "the cold run");
    origin::settled(|| origin.counts());
    origin.reset().unwrap();
    run(Way::Covered).must_equal(&plain, "the warm run");
    let counts = origin.counts().unwrap();
    let mut by_kernel_and_loader = ancestors(&interpreter);
    // The shared libpython, if the interpreter has one.
    let listing = Outcome::of(Command::new("ldd").arg(mount.join(&interpreter))).text();
    for library in listing.lines().filter_map(|line| line.split("=> ").nth(1)) {
        let library = library.split(' ').next().unwrap_or_default();
        if let Ok(library) = Path::new(library).strip_prefix(&mount) {
            by_kernel_and_loader.extend(ancestors(library));
        }
    }
    let escaped: Vec<_> = counts
        .paths
        .iter()
        .filter(|(path, _)| !by_kernel_and_loader.contains(path))
        .collect();
    assert!(escaped.is_empty(), "reached the origin: {escaped:#?}");
}

/// A relative path and its parents, down to the empty path.
fn ancestors(path: &Path) -> Vec<String> {
    path.ancestors()
        .map(|ancestor: &Path| PathBuf::from(ancestor).display().to_string())
        .collect()
}
