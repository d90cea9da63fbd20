//! How helpers come, are shared and go, and what `copper run` promises to the command it runs.

use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way, is_alive, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A directory with some files to be cached, and a session that covers it.
struct Place {
    session: Session,
    scratch: tempfile::TempDir,
}

impl Place {
    fn prepare() -> Self {
        let scratch = environment::scratch();
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..20 {
            fs::write(
                tree.join(number.to_string()),
                number.to_string().repeat(5000),
            )
            .unwrap();
        }
        Self {
            session: Session::prepare(&[&tree]),
            scratch,
        }
    }

    fn started() -> Self {
        let mut place = Self::prepare();
        place
            .session
            .try_start()
            .unwrap_or_else(|error| panic!("{error:#}"));
        place
    }

    fn tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    fn read_all(&self, way: Way) -> Outcome {
        let script = "cat \"$0\"/* | cksum; ls -l \"$0\"";
        let mut command = self.session.command(way, "sh");
        Outcome::of(
            command
                .args(["-c", script])
                .arg(self.session.seen(way, &self.tree())),
        )
        .without_view(&self.session.view())
    }

    /// `copper run` that covers the tree.
    fn run(&self, command: &[&str]) -> Command {
        let mut run = self.session.copper();
        run.arg("run")
            .arg("--cover")
            .arg(self.tree())
            .arg("--")
            .args(command);
        run.env("TREE", self.tree());
        run
    }

    fn store(&self) -> PathBuf {
        let status = self.session.status().unwrap();
        PathBuf::from(
            status["store"]
                .as_str()
                .expect("status says where the store is"),
        )
    }

    /// Nothing of a helper is left: its store, its runtime directory's contents, its view.
    fn must_be_clean(&self, store: &Path) {
        assert!(
            is_empty(store),
            "the store {} is left: {:?}",
            store.display(),
            entries(store)
        );
        let runtime = self.session.runtime_directory();
        assert!(
            is_empty(&runtime),
            "left in the runtime directory: {:?}",
            entries(&runtime)
        );
        assert!(is_empty(&self.session.view()), "the view is left");
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}

fn is_empty(directory: &Path) -> bool {
    entries(directory).is_empty()
}

#[test]
fn stop_leaves_nothing_behind() {
    let mut place = Place::started();
    place.read_all(Way::Covered);
    let store = place.store();
    assert!(
        !is_empty(&store),
        "nothing was stored in {}",
        store.display()
    );
    place.session.stop().unwrap();
    place.must_be_clean(&store);
}

#[test]
fn sigterm_leaves_nothing_behind() {
    let place = Place::started();
    place.read_all(Way::View);
    let (store, helper) = (place.store(), place.session.helper());
    place.session.signal(Signal::TERM);
    assert!(
        wait_until(Duration::from_secs(5), || !is_alive(helper)),
        "SIGTERM did not end it"
    );
    place.must_be_clean(&store);
}

#[test]
fn a_dead_helpers_leftovers_are_cleaned_at_the_next_start() {
    let mut place = Place::started();
    let plain = place.read_all(Way::Plain);
    place.read_all(Way::Covered);
    let (store, first) = (place.store(), place.session.helper());
    place.session.kill();
    assert!(!is_empty(&store), "SIGKILL leaves nobody to clean up");
    place
        .read_all(Way::Covered)
        .must_equal(&plain, "a run beside a dead helper's leftovers");
    place
        .session
        .try_start()
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert_ne!(place.session.helper(), first);
    assert_eq!(place.session.status_number(["cached", "files"]), 0);
    let store_bytes = fs_bytes(&store);
    assert!(
        store_bytes < 100_000,
        "{store_bytes} bytes of the dead helper's store are left"
    );
    place
        .read_all(Way::Covered)
        .must_equal(&plain, "a run with the second helper");
    assert!(place.session.status_number(["cached", "files"]) >= 20);
    let store = place.store();
    place.session.stop().unwrap();
    place.must_be_clean(&store);
}

fn fs_bytes(directory: &Path) -> u64 {
    let listing = Outcome::of(Command::new("du").arg("-sb").arg(directory)).text();
    listing
        .split_whitespace()
        .next()
        .and_then(|bytes| bytes.parse().ok())
        .unwrap_or(0)
}

#[test]
fn status_tells_what_was_served() {
    let place = Place::started();
    let status = place.session.status().unwrap();
    assert_eq!(status["covered"][0].as_str(), place.tree().to_str());
    assert_eq!(status["view"].as_str(), place.session.view().to_str());
    assert_eq!(
        status["runtime_dir"].as_str(),
        place.session.runtime_directory().to_str()
    );
    place.read_all(Way::Covered);
    let number = |one, two| place.session.status_number([one, two]);
    let size: u64 = (0..20)
        .map(|number: u64| number.to_string().len() as u64 * 5000)
        .sum();
    assert_eq!(
        (number("cached", "files"), number("cached", "bytes")),
        (20, size)
    );
    assert_eq!(
        (number("origin", "opens"), number("origin", "bytes_read")),
        (20, size)
    );
    assert_eq!(
        number("origin", "listings"),
        number("cached", "directories")
    );
    let asked = number("asked", "total");
    place.read_all(Way::Covered);
    assert_eq!(
        number("origin", "opens"),
        20,
        "a second reading reached the origin"
    );
    assert_eq!(
        number("asked", "total"),
        asked,
        "a second reading asked the helper"
    );
    let text = Outcome::of(place.session.copper().arg("status"));
    assert!(
        text.status.success() && text.text().contains("20 files"),
        "{text:?}"
    );
}

#[test]
fn start_twice_gives_one_helper() {
    let mut place = Place::started();
    let first = place.session.helper();
    // Whether it says so as an error or not, the helper stays the one it was.
    let _ = place.session.try_start();
    assert!(is_alive(first));
    assert_eq!(
        place.session.status().unwrap()["pid"].as_u64(),
        Some(u64::from(first))
    );
}

/// Two jobs of one user on a node, each with a helper.
#[test]
fn two_helpers_of_one_user_do_not_meet() {
    let (mut one, mut other) = (Place::started(), Place::started());
    assert_ne!(one.session.helper(), other.session.helper());
    let plain = one.read_all(Way::Plain);
    one.read_all(Way::Covered)
        .must_equal(&plain, "the first job's run");
    let (kept, store) = (fs_bytes(&one.store()), other.store());
    let plain = other.read_all(Way::Plain);
    other
        .read_all(Way::Covered)
        .must_equal(&plain, "the second job's run");
    other.session.stop().unwrap();
    other.must_be_clean(&store);
    assert_eq!(
        fs_bytes(&one.store()),
        kept,
        "the other helper's end touched this one's store"
    );
    assert_eq!(one.session.status_number(["cached", "files"]), 20);
    one.read_all(Way::Covered);
    assert_eq!(one.session.status_number(["origin", "opens"]), 20);
    one.session.stop().unwrap();
}

#[test]
fn commands_without_a_helper_say_so() {
    let place = Place::prepare();
    for arguments in [["status"].as_slice(), &["status", "--json"]] {
        let outcome = Outcome::of(place.session.copper().args(arguments));
        assert!(
            !outcome.status.success(),
            "copper {arguments:?} without a helper: {outcome:?}"
        );
        assert!(
            !outcome.stderr.is_empty(),
            "copper {arguments:?} fails without a word"
        );
    }
}

#[test]
fn environment_for_a_shell() {
    let place = Place::started();
    let library = Outcome::of(place.session.copper().args(["env", "--lib"])).text();
    assert!(
        Path::new(library.trim()).is_file(),
        "copper env --lib says {library:?}"
    );
    let script = "eval \"$(\"$COPPER\" env)\" && cat $TREE/7 | cksum && ls $TREE | wc -l";
    let mut shell = place.session.copper();
    let copper = shell.get_program().to_owned();
    shell = Command::new("bash");
    shell
        .args(["-c", script])
        .env("COPPER", copper)
        .env("TREE", place.tree());
    shell.env("COPPER_RUNTIME_DIR", place.session.runtime_directory());
    shell.env("COPPER_VIEW", place.session.view());
    let outcome = Outcome::of(&mut shell);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(outcome.text().ends_with("20\n"), "{outcome:?}");
    assert_eq!(place.session.status_number(["cached", "files"]), 1);
}

#[test]
fn run_starts_a_helper_and_takes_it_away_again() {
    let place = Place::prepare();
    let script = "cat $TREE/* | cksum; ls $TREE | wc -l; echo $COPPER_PATHS; exit 7";
    let outcome = Outcome::of(&mut place.run(&["sh", "-c", script]));
    assert_eq!(outcome.status.code(), Some(7), "{outcome:?}");
    let mut plain = Command::new("sh");
    plain
        .args(["-c", script])
        .env("TREE", place.tree())
        .env("COPPER_PATHS", place.tree());
    assert_eq!(outcome.text(), Outcome::of(&mut plain).text());
    let runtime = place.session.runtime_directory();
    assert!(
        wait_until(Duration::from_secs(3), || is_empty(&runtime)),
        "{:?}",
        entries(&runtime)
    );
    assert!(is_empty(&place.session.view()), "the view is left");
}

#[test]
fn run_returns_the_commands_own_end() {
    let place = Place::started();
    for code in [0, 1, 77, 126, 127, 255] {
        let outcome = Outcome::of(&mut place.run(&["sh", "-c", &format!("exit {code}")]));
        assert_eq!(outcome.status.code(), Some(code));
    }
    let missing = Outcome::of(&mut place.run(&["/no/such/program"]));
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("/no/such/program"),
        "{missing:?}"
    );
    // A command that a signal ended: the same signal, or the shell's number for it.
    let killed = Outcome::of(&mut place.run(&["sh", "-c", "kill -TERM $$"])).status;
    assert!(
        killed.signal() == Some(15) || killed.code() == Some(143),
        "{killed}"
    );
}

#[test]
fn run_hands_signals_on() {
    let place = Place::started();
    for (signal, number) in [
        (Signal::TERM, 15),
        (Signal::INT, 2),
        (Signal::HUP, 1),
        (Signal::USR1, 10),
    ] {
        let ready = place.scratch.path().join(format!("ready-{number}"));
        let script = format!(
            "trap 'echo got {number}; exit 3' {number}; touch {}; for i in $(seq 200); do sleep 0.05; done",
            ready.display()
        );
        // Whoever runs the tests may have signals ignored, which a shell then cannot trap.
        let mut run = place.run(&["env", "--default-signal", "sh", "-c", &script]);
        let run = run.stdout(Stdio::piped()).spawn().unwrap();
        assert!(
            wait_until(Duration::from_secs(10), || ready.exists()),
            "the command never ran"
        );
        kill_process(Pid::from_child(&run), signal).unwrap();
        let output = run.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("got {number}\n")
        );
        assert_eq!(output.status.code(), Some(3), "after signal {number}");
    }
}

#[test]
fn several_runs_at_once_share_one_helper() {
    let place = Place::prepare();
    let script =
        "cat $TREE/* | cksum; \"$COPPER\" status --json | tr ',' '\\n' | grep '\"pid\"'; sleep 1";
    let copper = place.session.copper().get_program().to_owned();
    let runs: Vec<_> = (0..4)
        .map(|_| {
            let mut run = place.run(&["sh", "-c", script]);
            run.env("COPPER", &copper)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            run.spawn().unwrap()
        })
        .collect();
    let said: Vec<_> = runs
        .into_iter()
        .map(|run| run.wait_with_output().unwrap())
        .collect();
    for one in &said {
        assert!(
            one.status.success(),
            "{}",
            String::from_utf8_lossy(&one.stderr)
        );
        assert_eq!(
            one.stdout, said[0].stdout,
            "not the same helper or contents"
        );
    }
    let runtime = place.session.runtime_directory();
    assert!(
        wait_until(Duration::from_secs(3), || is_empty(&runtime)),
        "{:?}",
        entries(&runtime)
    );
}

/// The one that started the helper may be the first to end: the others must not notice.
#[test]
fn a_shared_helper_outlives_the_run_that_started_it() {
    let place = Place::prepare();
    let ready = place.scratch.path().join("ready");
    let first = place
        .run(&["sh", "-c", &format!("touch {}; sleep 1", ready.display())])
        .spawn();
    assert!(wait_until(Duration::from_secs(10), || ready.exists()));
    let start = Instant::now();
    let script = "sleep 2; cat $TREE/* | cksum; \"$COPPER\" status --json | grep -o '\"files\":20'";
    let copper = place.session.copper().get_program().to_owned();
    let second = Outcome::of(place.run(&["sh", "-c", script]).env("COPPER", copper));
    assert!(first.unwrap().wait().unwrap().success());
    assert!(
        second.status.success(),
        "after {:?}: {second:?}",
        start.elapsed()
    );
    let runtime = place.session.runtime_directory();
    assert!(
        wait_until(Duration::from_secs(3), || is_empty(&runtime)),
        "{:?}",
        entries(&runtime)
    );
}

#[test]
fn disabled_it_takes_no_part() {
    let place = Place::started();
    let mut command = place.session.command(Way::Covered, "sh");
    command
        .args(["-c", "cat \"$0\"/* | cksum"])
        .arg(place.tree())
        .env("COPPER_DISABLE", "1");
    assert!(Outcome::of(&mut command).status.success());
    assert_eq!(place.session.status_number(["asked", "total"]), 0);
}

#[test]
fn refresh_shows_what_changed_behind_its_back() {
    let place = Place::started();
    let read = |way| {
        let mut command = place.session.command(way, "sh");
        command.args([
            "-c",
            "cat \"$0\"/7; ls \"$0\"; stat -c %s \"$0\"/7 \"$0\"/new",
        ]);
        Outcome::of(command.arg(place.session.seen(way, &place.tree())))
            .without_view(&place.session.view())
    };
    let before = read(Way::Plain);
    for way in [Way::Covered, Way::View] {
        read(way).must_equal(&before, "the first reading");
    }
    fs::write(place.tree().join("7"), "changed\n").unwrap();
    fs::write(place.tree().join("new"), "new\n").unwrap();
    fs::remove_file(place.tree().join("8")).unwrap();
    let after = read(Way::Plain);
    for way in [Way::Covered, Way::View] {
        read(way).must_equal(
            &before,
            "what was read stays true until it is refreshed: the reading",
        );
    }
    let refreshed = Outcome::of(place.session.copper().arg("refresh").arg(place.tree()));
    assert!(refreshed.status.success(), "{refreshed:?}");
    for way in [Way::Covered, Way::View] {
        read(way).must_equal(&after, "the reading after a refresh of the directory");
    }
    fs::write(place.tree().join("7"), "changed again\n").unwrap();
    let after = read(Way::Plain);
    assert!(
        Outcome::of(place.session.copper().arg("refresh"))
            .status
            .success()
    );
    read(Way::Covered).must_equal(&after, "the reading after a refresh of everything");
}

#[test]
fn an_idle_helper_uses_no_processor_time() {
    let place = Place::started();
    place.read_all(Way::Covered);
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", place.session.helper())).unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        ticks() - before <= 1,
        "{} ticks in 3 idle seconds",
        ticks() - before
    );
}

#[test]
fn a_memory_budget_is_kept_and_what_does_not_fit_passes_through() {
    let scratch = environment::scratch();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..40 {
        let contents = copper_tests::tree::pattern(500_000, number);
        fs::write(tree.join(format!("{number:02}")), contents).unwrap();
    }
    fs::write(
        tree.join("large"),
        copper_tests::tree::pattern(30_000_000, 99),
    )
    .unwrap();
    let session = Session::prepare(&[&tree]);
    let script = "for f in $TREE/* $TREE/*; do cksum $f; done; \"$COPPER\" status --json >&2";
    let mut run = session.copper();
    let copper = run.get_program().to_owned();
    run.args(["run", "--memory", "8000000", "--cover"])
        .arg(&tree);
    run.args(["--", "sh", "-c", script])
        .env("TREE", &tree)
        .env("COPPER", copper);
    let outcome = Outcome::of(&mut run);
    assert!(outcome.status.success(), "{outcome:?}");
    let plain = "for f in $TREE/* $TREE/*; do cksum $f; done";
    let plain = Outcome::of(Command::new("sh").args(["-c", plain]).env("TREE", &tree));
    assert_eq!(outcome.text(), plain.text());
    let status: serde_json::Value = serde_json::from_slice(&outcome.stderr).unwrap();
    let stored = status["memory"]["store_bytes"].as_u64().unwrap();
    assert!((1..=8_000_000).contains(&stored), "{status}");
}
