//! Absences: a name that was not there and that a program outside the job makes is found after
//! `--absence-lifetime`, and never before a refresh without it.

use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way, wait_until};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// In milliseconds.
const LIFETIME: u64 = 1500;
/// What a busy machine may take for a look besides.
const DELAY: Duration = Duration::from_secs(10);

/// What programs look for, below a directory known whole, in one that is served name by name, and
/// below a directory that is not there.
const WANTED: [&str; 4] = ["whole/new", "large/new", "none/new", "none"];

/// A tree with none of the wanted names. It is left behind Copper's back, by this very process.
fn tree() -> tempfile::TempDir {
    let tree = environment::scratch();
    for directory in ["whole", "large"] {
        fs::create_dir(tree.path().join(directory)).unwrap();
    }
    fs::write(tree.path().join("whole/old"), "old\n").unwrap();
    for number in 0..20 {
        fs::write(tree.path().join(format!("large/{number}")), "").unwrap();
    }
    tree
}

fn make_wanted(tree: &Path) {
    fs::create_dir(tree.join("none")).unwrap();
    for name in &WANTED[..3] {
        fs::write(tree.join(name), "new\n").unwrap();
    }
}

/// What new processes find of the wanted names: by stat, by opening, and in listings.
fn look(session: &Session, way: Way, tree: &Path) -> String {
    let script = "cd \"$0\" || exit 1
        for name in whole/new large/new none/new none; do
            test -e \"$name\" && echo \"there is $name\"
        done
        cat whole/new large/new none/new 2>/dev/null
        ls whole none 2>/dev/null
        cat whole/old";
    let mut shell = session.command(way, "sh");
    shell.args(["-c", script]).arg(session.seen(way, tree));
    let outcome = Outcome::of(&mut shell);
    assert!(outcome.status.success(), "{outcome:?}");
    outcome.text()
}

fn start(tree: &Path, options: &[&str]) -> Session {
    let session = Session::prepare(&[tree]);
    let mut start = session.copper();
    start.arg("start").arg("--cover").arg(tree);
    start.args(["--directory-limit", "10"]).args(options);
    let started = Outcome::of(&mut start);
    assert!(started.status.success(), "{started:?}");
    session
}

fn stop(session: &Session) {
    let stopped = Outcome::of(session.copper().arg("stop"));
    assert!(stopped.status.success(), "{stopped:?}");
}

#[test]
fn absent_names_are_asked_for_again_when_their_time_is_over() {
    for way in [Way::Covered, Way::View] {
        let tree = tree();
        let session = start(tree.path(), &["--absence-lifetime", &LIFETIME.to_string()]);
        let before = look(&session, way, tree.path());
        assert!(!before.contains("new"), "{before}");
        make_wanted(tree.path());
        let plain = look(&session, Way::Plain, tree.path());
        for name in WANTED {
            assert!(plain.contains(&format!("there is {name}\n")), "{plain}");
        }
        let limit = Duration::from_millis(LIFETIME) + DELAY;
        let mut seen = String::new();
        let found = wait_until(limit, || {
            seen = look(&session, way, tree.path());
            seen == plain
        });
        assert!(
            found,
            "{way:?}: after {limit:?} programs see\n{seen}\ninstead of\n{plain}"
        );

        // What is there is not read again, however often absences lapse.
        let read = || session.status_number(["origin", "bytes_read"]);
        let bytes = read();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(LIFETIME));
            assert_eq!(look(&session, way, tree.path()), plain, "{way:?}");
        }
        assert_eq!(read(), bytes, "{way:?}");
        stop(&session);
    }
}

#[test]
fn without_a_lifetime_absent_names_stay_absent_until_a_refresh() {
    let tree = tree();
    let session = start(tree.path(), &[]);
    let before = look(&session, Way::Covered, tree.path());
    make_wanted(tree.path());
    std::thread::sleep(Duration::from_millis(LIFETIME));
    assert_eq!(look(&session, Way::Covered, tree.path()), before);
    let refreshed = Outcome::of(session.copper().arg("refresh").arg(tree.path()));
    assert!(refreshed.status.success(), "{refreshed:?}");
    assert_eq!(
        look(&session, Way::Covered, tree.path()),
        look(&session, Way::Plain, tree.path())
    );
    stop(&session);
}

/// A helper whose absences have all lapsed has nothing left to do.
#[test]
fn absences_that_nobody_asks_for_are_not_asked_for() {
    let tree = tree();
    let session = start(tree.path(), &["--absence-lifetime", "200"]);
    look(&session, Way::Covered, tree.path());
    let looks = |place| session.status_number(["origin", place]);
    std::thread::sleep(Duration::from_secs(1));
    let before = (looks("stats"), looks("listings"));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((looks("stats"), looks("listings")), before);
    stop(&session);
}
