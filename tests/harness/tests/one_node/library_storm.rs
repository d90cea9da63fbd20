//! A storm of libraries that need each other, made by `scripts/bench/storm.py`: an interpreter that
//! imports and calls all of them says what it says without Copper, and loads none from the origin.

use copper_tests::compare::Outcome;
use copper_tests::session::{Session, Way};
use copper_tests::{environment, origin, python};
use slow_origin::{Load, Operation};
use std::path::Path;
use std::process::Command;

/// Makes a small storm in `place`.
fn make(place: &Path, search_path: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/bench/storm.py");
    let mut command = Command::new(python::interpreter());
    command.arg(script).arg(place).args([
        "--libraries",
        "40",
        "--modules",
        "20",
        "--directories",
        "6",
        "--rpath",
        search_path,
    ]);
    assert!(command.status().unwrap().success(), "the storm is made");
}

fn storm(session: &Session, way: Way, place: &Path) -> Outcome {
    let mut command = session.command(way, python::interpreter());
    command.arg(session.seen(way, place).join("run.py"));
    Outcome::of(python::settle(&mut command))
}

#[test]
fn a_storm_of_libraries() {
    let scratch = environment::scratch();
    let (made, mount) = (scratch.path().join("made"), scratch.path().join("mount"));
    make(&made, "origin");
    let origin = origin::slow(&made, &mount, &Load::none());
    for way in [Way::Covered, Way::View] {
        let covered: &[&Path] = if way == Way::Covered { &[&mount] } else { &[] };
        let session = Session::start(covered);
        let plain = storm(&session, Way::Plain, &mount);
        assert!(plain.status.success(), "{plain:?}");
        storm(&session, way, &mount).must_equal(&plain, "the cold storm");
        origin::settled(|| origin.counts());
        origin.reset().unwrap();
        let asked = session.status_number(["asked", "total"]);
        storm(&session, way, &mount).must_equal(&plain, "the warm storm");
        let asked_when_warm = session.status_number(["asked", "total"]) - asked;
        assert_eq!(
            asked_when_warm, 0,
            "the helper was asked when all was there"
        );
        let counts = origin.counts().unwrap();
        let touched = origin::most_touched(&counts);
        assert_eq!(
            counts.total(),
            0,
            "the warm storm reached the origin:\n{touched}"
        );
    }
}

/// Absolute search paths lead ld.so itself to the origin, which is a cost and no error.
#[test]
fn a_storm_of_libraries_with_absolute_search_paths() {
    let scratch = environment::scratch();
    let place = scratch.path().join("storm");
    make(&place, "absolute");
    let session = Session::start(&[&place]);
    let plain = storm(&session, Way::Plain, &place);
    assert!(plain.status.success(), "{plain:?}");
    for way in [Way::Covered, Way::View] {
        for state in ["cold", "warm"] {
            storm(&session, way, &place).must_equal(&plain, &format!("the {state} storm"));
        }
    }
}

/// Each library is read once, however many processes load it at once.
#[test]
fn a_storm_in_four_processes() {
    let scratch = environment::scratch();
    let (made, mount) = (scratch.path().join("made"), scratch.path().join("mount"));
    make(&made, "origin");
    let origin = origin::slow(&made, &mount, &Load::none());
    let session = Session::start(&[&mount]);
    let plain = storm(&session, Way::Plain, &mount);
    origin.reset().unwrap();
    std::thread::scope(|scope| {
        let run = || storm(&session, Way::Covered, &mount);
        for run in (0..4).map(|_| scope.spawn(run)).collect::<Vec<_>>() {
            run.join().unwrap().must_equal(&plain, "one of four storms");
        }
    });
    let counts = origin.counts().unwrap();
    assert!(
        counts.of(Operation::Open) >= 60,
        "{}",
        origin::most_touched(&counts)
    );
    let wrong = origin::read_more_than_once(&counts, &made, 1);
    assert!(
        wrong.is_empty(),
        "asked of the origin more than once: {wrong:#?}"
    );
}
