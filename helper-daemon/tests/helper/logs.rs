//! The helper's log and its profile on one node.

use crate::support::{Stage, wait_until};
use copper_core::request::Operation;
use std::fs::{self, File};
use std::process::Stdio;

/// Starts and ends a helper with these options, its standard output a file; returns its log file
/// and its standard output.
fn logged(level: &str, kind: &str) -> (String, String) {
    let stage = Stage::new();
    let log = stage.base.path().join("log");
    let output = stage.base.path().join("output");
    let origin = stage.origin.to_str().expect("plain");
    let store = stage.memory.path().to_str().expect("plain");
    let log_name = log.to_str().expect("plain");
    let mut start = stage.copper(&["start", "--cover", origin, "--store", store]);
    start
        .args(["--log", log_name, "--log-level", level, "--log-type", kind])
        .stdout(Stdio::from(File::create(&output).expect("a file")));
    assert!(start.status().expect("copper runs").success());
    assert!(stage.run(&["stop"]).status.success());
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    wait_until("the helper ends", || !stage.runtime().exists());
    (read(&log), read(&output))
}

#[test]
fn each_level_logs_what_it_says_where_it_is_told_to() {
    let (file, output) = logged("4", "file");
    assert!(
        file.contains("serving ms=") && file.contains("ready ms="),
        "{file}"
    );
    assert!(!output.contains("serving ms="), "{output}");
    let (file, output) = logged("info", "stdout");
    assert!(
        file.is_empty() && output.contains("serving ms="),
        "{file}{output}"
    );
    let (file, output) = logged("4", "file_and_stdout");
    assert!(
        file.contains("serving ms=") && output.contains("serving ms="),
        "{file}{output}"
    );
    for quiet in ["0", "1", "2", "3"] {
        let (file, output) = logged(quiet, "both");
        assert!(file.is_empty(), "level {quiet}: {file}");
        assert!(!output.contains("serving"), "level {quiet}: {output}");
    }
    let (file, _) = logged("5", "file");
    assert!(file.contains("serving ms="), "{file}");
}

#[test]
fn what_is_fatal_is_logged_at_level_1() {
    let stage = Stage::new();
    let log = stage.base.path().join("log");
    let log_name = log.to_str().expect("plain");
    let output = stage.run(&[
        "start",
        "--store",
        "/proc",
        "--log",
        log_name,
        "--log-level",
        "1",
    ]);
    assert!(!output.status.success());
    let said = fs::read_to_string(&log).expect("a log");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("fatal") && said.contains("/proc"), "{said}");
}

#[test]
fn a_profile_is_written_at_the_end_with_what_was_asked() {
    let stage = Stage::new();
    let wanted = stage.write("directory/wanted", &[5; 5000]);
    let place = stage.base.path().join("profile");
    let place_name = place.to_str().expect("plain").to_owned();
    let mut helper = stage.start(&["-N", "5", "--profile-directory", &place_name]);
    helper.ask(Operation::Content, &wanted);
    let now = stage.run(&["profile"]);
    let now = String::from_utf8_lossy(&now.stdout).into_owned();
    assert!(
        now.contains("directory/wanted") && now.contains("| origin |"),
        "{now}"
    );
    helper.stop();
    let names: Vec<String> = fs::read_dir(place.join("final"))
        .expect("the profile's directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for end in [
        "-profiling_aggregate.csv",
        "-profiling_operations.csv",
        "-profiling_top_paths.csv",
        "-profiling_summary.md",
        "-profile.json",
    ] {
        assert!(
            names.iter().any(|name| name.ends_with(end)),
            "no {end} in {names:?}"
        );
    }
    let table = names
        .iter()
        .find(|name| name.ends_with("top_paths.csv"))
        .expect("a table");
    let table = fs::read_to_string(place.join("final").join(table)).expect("a file");
    let row = table
        .lines()
        .find(|row| row.contains("/directory/wanted"))
        .expect("a row");
    assert!(
        row.starts_with("data,") && row.ends_with(",5000,origin"),
        "{row}"
    );
}

#[test]
fn a_profile_that_cannot_be_written_is_an_error_at_the_start() {
    let stage = Stage::new();
    let output = stage.run(&["start", "-P", "--profile-directory", "/proc/copper"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("--profile-directory"),
        "{said}"
    );
    assert!(!stage.runtime().exists());
}
