//! What programs ask is counted, to the call: of threads, children, handlers and those that are
//! gone; and where it cannot be counted nothing else is lost.

use copper_core::counters::{layout, paths};
use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way, wait_until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE_SIZE: u64 = 1234;

struct Counted {
    scratch: tempfile::TempDir,
    session: Session,
}

impl Counted {
    /// A session whose helper knows all that `counted_calls` asks for.
    fn warm() -> Counted {
        let scratch = environment::scratch();
        fs::write(scratch.path().join("file"), vec![7; FILE_SIZE as usize]).unwrap();
        symlink("file", scratch.path().join("link")).unwrap();
        let session = Session::start(&[scratch.path()]);
        let counted = Counted { scratch, session };
        counted.run("plain");
        counted
    }

    fn directory(&self) -> &Path {
        self.scratch.path()
    }

    fn try_run(&self, how: &str) -> Outcome {
        let program = environment::program("counted_calls");
        let mut command = self.session.command(Way::Covered, program);
        Outcome::of(command.arg(self.directory()).arg(how))
    }

    fn run(&self, how: &str) -> Outcome {
        let outcome = self.try_run(how);
        assert!(outcome.status.success(), "{how}: {outcome:?}");
        outcome
    }

    fn calls(&self) -> Value {
        self.session.status().unwrap()["calls"].clone()
    }

    /// What a command says that must succeed.
    fn copper(&self, arguments: &[&str]) -> String {
        let outcome = Outcome::of(self.session.copper().args(arguments));
        assert!(outcome.status.success(), "{arguments:?}: {outcome:?}");
        outcome.text()
    }

    /// What was counted while `how` ran.
    fn counted(&self, how: &str) -> Growth {
        let before = self.calls();
        self.try_run(how);
        Growth {
            before,
            after: self.calls(),
        }
    }
}

struct Growth {
    before: Value,
    after: Value,
}

impl Growth {
    fn of(&self, place: &str) -> u64 {
        let number = |value: &Value| {
            let found = value.pointer(place).and_then(Value::as_u64);
            found.unwrap_or_else(|| panic!("no number {place} in {value}"))
        };
        number(&self.after) - number(&self.before)
    }

    /// `make_calls` was made so many times, by so many processes.
    fn must_be(&self, times: u64, processes: u64, what: &str) {
        let expected = [
            ("/families/stat/hit", 100),
            ("/families/stat/absent", 50),
            ("/families/stat/asked", 0),
            ("/families/stat/passed/uncovered", 30),
            ("/families/open/hit", 20),
            ("/families/open/asked", 0),
            ("/families/fstat/hit", 20),
            ("/families/list/hit", 10),
            ("/families/readlink/hit", 5),
            ("/families/access/hit", 7),
            ("/families/change/hit", 0),
            ("/bytes_served", 20 * FILE_SIZE),
        ];
        for (place, once) in expected {
            assert_eq!(
                self.of(place),
                once * times,
                "{place} of {what}: {}",
                self.after
            );
        }
        assert_eq!(self.of("/processes"), processes, "processes of {what}");
    }
}

#[test]
fn the_calls_of_a_known_program_are_counted_to_the_call() {
    let counted = Counted::warm();
    let cold = counted.calls();
    assert_eq!(cold["processes"], 1, "{cold}");
    let family = |name: &str| {
        let family = &cold["families"][name];
        (
            family["hit"].as_u64().unwrap(),
            family["asked"].as_u64().unwrap(),
        )
    };
    let (hit, asked) = family("stat");
    assert_eq!(
        (hit + asked, asked),
        (100, 1),
        "the first of them had to be asked for: {cold}"
    );
    let (hit, asked) = family("open");
    assert_eq!((hit + asked, asked), (20, 1), "{cold}");
    let waits: u64 = cold["waits"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .sum();
    assert!(waits >= 2, "{cold}");
    assert!(
        cold["waited_microseconds"]["resolve"].as_u64() > Some(0),
        "{cold}"
    );
    counted.counted("plain").must_be(1, 1, "a warm run");
    let saved = counted.session.status().unwrap()["saved"].clone();
    assert!(saved["operations"].as_u64() > Some(380), "{saved}");
    assert!(saved["hit_rate"].as_f64() > Some(0.98), "{saved}");
}

#[test]
fn threads_are_counted_exactly() {
    Counted::warm()
        .counted("threads")
        .must_be(13, 1, "13 threads");
}

#[test]
fn forked_children_are_counted_as_processes_of_their_own() {
    let counted = Counted::warm();
    counted
        .counted("fork")
        .must_be(6, 6, "a parent and 5 children");
    counted
        .counted("vfork")
        .must_be(2, 1, "a parent and a child that borrows its memory");
}

#[test]
fn calls_in_signal_handlers_are_counted_exactly() {
    let counted = Counted::warm();
    let before = counted.calls();
    let made: u64 = counted.run("signals").text().trim().parse().unwrap();
    let growth = Growth {
        before,
        after: counted.calls(),
    };
    assert!(made > 2_000_000, "no signal came");
    assert_eq!(growth.of("/families/stat/hit"), made);
}

#[test]
fn killed_processes_are_counted_and_do_not_run() {
    let counted = Counted::warm();
    let growth = counted.counted("kill");
    growth.must_be(1, 1, "a process that was killed");
    let settled = wait_until(Duration::from_secs(5), || counted.calls()["running"] == 0);
    assert!(settled, "{}", counted.calls());
}

#[test]
fn a_program_that_execs_is_one_process() {
    let counted = Counted::warm();
    let before = counted.calls();
    let mut shell = counted.session.command(Way::Covered, "sh");
    shell.args(["-c", "exec \"$0\" \"$1\" plain"]);
    shell
        .arg(environment::program("counted_calls"))
        .arg(counted.directory());
    let outcome = Outcome::of(&mut shell);
    assert!(outcome.status.success(), "{outcome:?}");
    let growth = Growth {
        before,
        after: counted.calls(),
    };
    assert_eq!(growth.of("/processes"), 1);
    assert_eq!(growth.of("/families/open/hit"), 20);
}

#[test]
fn more_processes_than_there_are_slots_are_all_counted() {
    const PROCESSES: u64 = 1100;
    let counted = Counted::warm();
    let before = counted.calls();
    let mut shell = counted.session.command(Way::Covered, "bash");
    // Children that end by a signal leave their slots to be found.
    let script =
        format!("for i in $(seq {PROCESSES}); do (test -e \"$0/file\"; kill -9 $BASHPID); done");
    shell.args(["-c", &script]).arg(counted.directory());
    Outcome::of(&mut shell);
    let growth = Growth {
        before,
        after: counted.calls(),
    };
    let families = ["stat", "access"].map(|name| growth.of(&format!("/families/{name}/hit")));
    assert_eq!(families.iter().sum::<u64>(), PROCESSES, "{}", growth.after);
    assert!(growth.of("/processes") >= PROCESSES, "{}", growth.after);
}

#[test]
fn writes_and_large_files_are_passed_and_say_why() {
    let scratch = environment::scratch();
    fs::write(scratch.path().join("large"), vec![1; 200_000]).unwrap();
    fs::write(scratch.path().join("file"), "small").unwrap();
    let session = Session::prepare(&[scratch.path()]);
    let mut run = session.copper();
    run.args(["run", "--largest", "100k", "--cover"])
        .arg(scratch.path());
    run.args(["--", "sh", "-c"]).arg(
        "cd \"$0\" && cat \"$0/large\" \"$0/large\" >/dev/null && echo x >\"$0/new\" && \
         rm \"$0/file\" && \"$1\" status --json",
    );
    run.arg(scratch.path()).arg(environment::built("copper"));
    let outcome = Outcome::of(&mut run);
    assert!(outcome.status.success(), "{outcome:?}");
    let status: Value = serde_json::from_str(&outcome.text()).unwrap();
    let families = &status["calls"]["families"];
    assert_eq!(families["open"]["passed"]["too_large"], 2, "{families}");
    assert_eq!(families["open"]["passed"]["written"], 1, "{families}");
    assert!(
        families["change"]["passed"]["written"].as_u64() > Some(0),
        "{families}"
    );
}

/// The header's two words.
const HEADER: [[u8; 8]; 2] = [layout::MAGIC.to_ne_bytes(), layout::VERSION.to_ne_bytes()];

/// What stands where the common memory should be, and is not theirs.
fn impostors(directory: &Path) -> Vec<(&'static str, Option<PathBuf>)> {
    let short = directory.join("short");
    fs::write(&short, "short").unwrap();
    let garbled = directory.join("garbled");
    let file = fs::File::create(&garbled).unwrap();
    file.set_len(32 << 20).unwrap();
    vec![
        ("nothing", None),
        ("a link to nothing", Some(directory.join("none"))),
        ("a short file", Some(short)),
        ("another file", Some(garbled)),
        ("a directory", Some(directory.to_owned())),
        ("a pipe's end", Some("/dev/null".into())),
    ]
}

#[test]
fn a_program_is_served_the_same_where_the_common_memory_is_not_the_helpers() {
    let counted = Counted::warm();
    let link = counted.session.runtime_directory().join("common");
    let expected = counted.run("threads");
    let others = environment::scratch();
    for (what, target) in impostors(others.path()) {
        fs::remove_file(&link).ok();
        if let Some(target) = target {
            symlink(target, &link).unwrap();
        }
        let opens = counted.session.status_number(["origin", "opens"]);
        counted
            .run("threads")
            .must_equal(&expected, &format!("with {what}"));
        let now = counted.session.status_number(["origin", "opens"]);
        assert_eq!(now, opens, "served all the same with {what}");
    }
}

#[test]
fn garbled_counters_harm_nobody() {
    let counted = Counted::warm();
    let expected = counted.run("threads");
    let link = counted.session.runtime_directory().join("common");
    let garble = fs::OpenOptions::new().write(true).open(&link).unwrap();
    use std::os::unix::fs::FileExt;
    let header = 4096;
    garble.write_all_at(&[0; 64], header).unwrap();
    let growth = counted.counted("plain");
    assert_eq!(growth.of("/processes"), 0, "nobody counts in it");
    counted
        .run("threads")
        .must_equal(&expected, "with a garbled header");
    garble.write_all_at(&HEADER.concat(), header).unwrap();
    let growth = counted.counted("plain");
    assert_eq!(growth.of("/processes"), 1, "its header is whole again");
    let of_paths = [layout::NOTED, layout::CLAIMS, layout::BODIES];
    let of_paths = of_paths.map(|start| header + start);
    for start in of_paths.into_iter().chain([8192_u64, 40_960]) {
        garble.write_all_at(&[0xff; 32_768], start).unwrap();
        counted
            .run("threads")
            .must_equal(&expected, "with garbled counters");
        counted.session.status().expect("the helper still answers");
    }
}

/// Runs that are many enough for estimates to be good ones.
const MANY: u64 = 20;
/// Calls of `counted_calls DIRECTORY threads` are those of a plain run so often.
const THREADS: u64 = 13;

/// What the status says of a path in one of its lists.
fn named(status: &Value, list: &str, path: &Path) -> Value {
    let paths = status["paths"][list].as_array().expect("a list");
    let found = paths
        .iter()
        .find(|one| one["path"] == path.to_str().unwrap());
    found
        .unwrap_or_else(|| panic!("{} is not in {list}: {status}", path.display()))
        .clone()
}

/// An estimate must be no farther off than chance allows: 5 times the deviation of the calls noted.
fn must_be_about(estimate: &Value, calls: u64, what: &str) {
    let estimate = estimate
        .as_u64()
        .unwrap_or_else(|| panic!("no number for {what}")) as f64;
    let calls = calls as f64;
    let allowed = 5.0 * (calls * paths::PERIOD as f64).sqrt();
    assert!(
        (estimate - calls).abs() <= allowed,
        "{what}: about {estimate}, made {calls}"
    );
}

#[test]
fn the_paths_that_programs_ask_for_are_estimated() {
    let counted = Counted::warm();
    counted.copper(&["control", "reset", "counts"]);
    (0..MANY).for_each(|_| drop(counted.run("threads")));
    let status = counted.session.status().unwrap();
    let (directory, runs) = (counted.directory(), MANY * THREADS);
    let file = named(&status, "hot", &directory.join("file"));
    must_be_about(&file["hit"], (100 + 20 + 20 + 7) * runs, "hits of the file");
    assert_eq!(file["absent"], 0, "{file}");
    let missing = named(&status, "hot", &directory.join("missing"));
    must_be_about(&missing["absent"], 50 * runs, "absences");
    let listed = named(&status, "hot", directory);
    must_be_about(&listed["hit"], 10 * runs, "listings");
    let link = named(&status, "hot", &directory.join("link"));
    must_be_about(&link["hit"], 5 * runs, "links read");
    assert_eq!(
        status["paths"]["uncovered"],
        Value::Array(Vec::new()),
        "the system's own"
    );
    let journal = counted.copper(&["profile", "--top", "5"]);
    assert!(journal.contains("/missing` | about "), "{journal}");

    counted.copper(&["control", "reset", "counts"]);
    let paths = counted.session.status().unwrap()["paths"].clone();
    assert_eq!(paths["hot"], Value::Array(Vec::new()), "{paths}");
}

#[test]
fn short_programs_are_estimated_as_well() {
    let counted = Counted::warm();
    counted.copper(&["control", "reset", "counts"]);
    let mut shell = counted.session.command(Way::Covered, "bash");
    // Each child makes a few calls and ends.
    let script = "for i in $(seq 2000); do (test -e \"$0/file\"; test -e \"$0/file\"); done";
    shell.args(["-c", script]).arg(counted.directory());
    assert!(Outcome::of(&mut shell).status.success());
    let status = counted.session.status().unwrap();
    let file = named(&status, "hot", &counted.directory().join("file"));
    must_be_about(&file["hit"], 4000, "hits of the file");
}

#[test]
fn directories_that_are_not_covered_are_named() {
    let counted = Counted::warm();
    let outside = Counted {
        scratch: environment::scratch(),
        ..counted
    };
    fs::write(outside.directory().join("file"), "outside").unwrap();
    symlink("file", outside.directory().join("link")).unwrap();
    (0..MANY).for_each(|_| drop(outside.run("threads")));
    let status = outside.session.status().unwrap();
    let directory = named(&status, "uncovered", outside.directory());
    let runs = MANY * THREADS;
    must_be_about(&directory["families"]["stat"], 150 * runs, "stats");
    must_be_about(&directory["families"]["open"], 20 * runs, "opens");
    must_be_about(&directory["families"]["list"], 10 * runs, "listings");
    let said = outside.copper(&["status"]);
    let line = format!("uncovered {} (about ", outside.directory().display());
    assert!(said.contains(&line), "{said}");

    outside.copper(&["control", "reset", "counts"]);
    let mut shell = outside.session.command(Way::Covered, "sh");
    let script = "cd \"$0\" && for i in $(seq 20000); do test -e file; done";
    shell.args(["-c", script]).arg(outside.directory());
    assert!(Outcome::of(&mut shell).status.success());
    let status = outside.session.status().unwrap();
    let directory = named(&status, "uncovered", outside.directory());
    let calls = directory["families"].as_object().unwrap().values();
    let calls: u64 = calls.filter_map(Value::as_u64).sum();
    must_be_about(&calls.into(), 20_000, "calls by relative names");
}

#[test]
fn the_metrics_file_is_there_while_the_helper_is() {
    let counted = Counted::warm();
    let session = Session::prepare(&[counted.directory()]);
    let metrics = session.directory().join("metrics-{host}.prom");
    let mut run = session.copper();
    run.arg("run")
        .arg("--metrics")
        .arg(&metrics)
        .arg("--cover")
        .arg(counted.directory());
    run.args(["--", "sh", "-c"]).arg(
        "for i in $(seq 200); do cat \"$0\"/metrics-*.prom 2>/dev/null && exit 0; sleep 0.05; done; exit 9",
    );
    run.arg(session.directory());
    let outcome = Outcome::of(&mut run);
    assert!(outcome.status.success(), "{outcome:?}");
    let text = outcome.text();
    assert!(text.contains("# TYPE copper_calls_total counter"), "{text}");
    assert!(
        text.contains("copper_calls_total{family=\"open\",outcome=\"hit\"} "),
        "{text}"
    );
    assert!(
        text.contains("copper_wait_seconds_bucket{le=\"+Inf\"} "),
        "{text}"
    );
    let left = || {
        let left = fs::read_dir(session.directory()).unwrap().flatten();
        left.filter(|entry| entry.path().extension().is_some_and(|end| end == "prom"))
            .count()
    };
    // The helper ends when the run has.
    assert!(wait_until(Duration::from_secs(5), || left() == 0));
}
