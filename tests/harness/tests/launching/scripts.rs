//! The scripts that older job scripts call: each option becomes one of `copper start`'s.

use crate::fixture::said;
use copper_tests::compare::Outcome;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A directory with the scripts, and a copper that prints its arguments.
fn scripts() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    for script in ["launch_copper.sh", "stop_copper.sh"] {
        std::fs::copy(sources.join(script), directory.path().join(script)).unwrap();
    }
    let copper = directory.path().join("copper");
    std::fs::write(&copper, "#!/bin/sh\necho \"$@\"\n").unwrap();
    std::fs::set_permissions(&copper, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn call(script: &str, arguments: &[&str]) -> Outcome {
    let scripts = scripts();
    let mut command = Command::new("bash");
    command
        .arg(scripts.path().join(script))
        .args(arguments)
        .env("HOME", scripts.path())
        .env("PBS_JOBID", "17.server");
    for name in ["LD_PRELOAD", "COPPER_ROOT"] {
        command.env_remove(name);
    }
    let outcome = Outcome::of(&mut command);
    let home = scripts.path().to_string_lossy().into_owned();
    Outcome {
        stdout: String::from_utf8(outcome.stdout)
            .unwrap()
            .replace(&home, "~")
            .into_bytes(),
        ..outcome
    }
}

/// The arguments of `copper` that a call of the launch script leads to.
fn launched(arguments: &[&str]) -> String {
    let outcome = call("launch_copper.sh", arguments);
    assert!(outcome.status.success(), "{arguments:?}: {outcome:?}");
    String::from_utf8(outcome.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

#[test]
fn every_option_of_the_launch_script_is_passed_on() {
    let has_default_processors = Path::new("/sys/devices/system/cpu/cpu51").exists();
    let cpus = if has_default_processors {
        " --cpus 48-51"
    } else {
        ""
    };
    assert_eq!(
        launched(&[]),
        format!("start --allocation --trees 1 --largest 10M --log-level off{cpus}")
    );
    let log = " --log-type file --log ~/copper-logs/17/copper-{host}.log";
    let profiling = " --profile-directory ~/copper-logs/17/profiling";
    for (arguments, wanted) in [
        (&["-T", "4"][..], "--trees 4 "),
        (&["-M", "1048576"], "--largest 1048576 "),
        (&["-l", "0"], "--log-level off"),
        (&["-l", "1"], &format!("--log-level fatal{log}")),
        (&["-l", "2"], &format!("--log-level error{log}")),
        (&["-l", "3"], &format!("--log-level warn{log}")),
        (&["-l", "4"], &format!("--log-level info{log}")),
        (&["-l", "5"], &format!("--log-level trace{log}")),
        (
            &["-l", "4", "-t", "stdout"],
            "--log-level info --log-type stdout",
        ),
        (
            &["-l", "4", "-t", "file_and_stdout"],
            "--log-level info --log-type both --log ~/copper-logs",
        ),
        (&["-P"], &format!("--profile{profiling}")),
        (&["-N", "5"], &format!("--profile-top 5{profiling}")),
        (&["-A"], &format!("--profile-paths{profiling}")),
        (&["-I", "10"], &format!("--profile-interval 10{profiling}")),
        (
            &["-P", "-N", "20", "-A", "-d", "/tmp/logs-of-copper"],
            "--profile --profile-top 20 --profile-paths --profile-directory \
             /tmp/logs-of-copper/profiling",
        ),
        (
            &["-l", "2", "-d", "/tmp/logs-of-copper"],
            "--log /tmp/logs-of-copper/copper-{host}.log",
        ),
        (&["-b", "0,1"], "--cpus 0,1"),
        (&["-E", "2000"], "--absence-lifetime 2000"),
        (&["-n", "cxi"], "--provider cxi"),
        (&["-n", "ofi+tcp"], "--provider tcp"),
        (&["-v", "/tmp/me/view"], "--view /tmp/me/view"),
        (&["--", "--cover", "/lus/env"], "--cover /lus/env"),
    ] {
        let said = launched(arguments);
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    std::fs::remove_dir("/tmp/logs-of-copper").unwrap();
}

#[test]
fn options_that_mean_nothing_any_more_are_accepted() {
    let plain = launched(&[]);
    assert_eq!(
        launched(&["-s", "20", "-F", "book.txt", "-a", "book.txt"]),
        plain
    );
}

#[test]
fn unknown_options_are_errors() {
    for (script, arguments) in [
        ("launch_copper.sh", &["-x"][..]),
        ("launch_copper.sh", &["-T"]),
        ("launch_copper.sh", &["word"]),
        ("launch_copper.sh", &["-l", "9"]),
        ("launch_copper.sh", &["-t", "paper"]),
        ("stop_copper.sh", &["-x"]),
        ("stop_copper.sh", &["word"]),
    ] {
        let outcome = call(script, arguments);
        assert_eq!(
            outcome.status.code(),
            Some(2),
            "{script} {arguments:?}: {outcome:?}"
        );
        assert!(
            outcome.stdout.is_empty(),
            "{script} {arguments:?}: {outcome:?}"
        );
        assert!(!outcome.stderr.is_empty());
    }
}

#[test]
fn the_stop_script_stops() {
    for arguments in [&[][..], &["-v", "/tmp/me/view"]] {
        let outcome = call("stop_copper.sh", arguments);
        assert_eq!(outcome.stdout, b"stop\n", "{outcome:?}");
    }
}

/// What the script asks for must be what the command understands.
#[test]
fn the_command_understands_what_the_script_asks_for() {
    let mut line = launched(&[
        "-T",
        "2",
        "-b",
        "0",
        "-n",
        "tcp",
        "-v",
        "/tmp/me/view",
        "-N",
        "5",
        "-A",
        "-I",
        "10",
        "-l",
        "5",
        "-t",
        "stdout",
        "-E",
        "500",
    ]);
    line = line.replacen("--allocation", "--hosts no-such-host", 1);
    let mut copper = Command::new(copper_tests::environment::built("copper"));
    let outcome = Outcome::of(copper.args(line.split(' ')));
    let said = said(&outcome);
    assert_eq!(outcome.status.code(), Some(1), "{said}");
    assert!(said.contains("is none of the job's"), "{said}");
}
