//! The commands: start, stop, run, status, env.

use crate::support::{Helper, Stage, wait_for_end, wait_until};
use copper_core::request::{CATALOG, Operation};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

fn store_of(helper: &Helper<'_>) -> PathBuf {
    let status = helper.status();
    PathBuf::from(status["store"].as_str().expect("a path"))
}

#[test]
fn a_helper_that_was_stopped_leaves_nothing() {
    let stage = Stage::new();
    let path = stage.write("data", b"x");
    let mut helper = stage.start(&[]);
    let (store, pid) = (store_of(&helper), helper.pid());
    helper.ask(Operation::Content, &path);
    assert!(stage.view().join("usr").is_symlink());
    helper.stop();
    assert!(!store.exists());
    assert!(!stage.view().exists());
    assert!(!stage.runtime().exists());
    wait_for_end(pid);
    assert!(
        stage.run(&["stop"]).status.success(),
        "stopping twice is no error"
    );
}

#[test]
fn paths_are_those_of_where_the_command_was_given() {
    let stage = Stage::new();
    let store = stage.memory.path().to_str().expect("plain");
    let output = stage
        .copper(&["start", "--cover", "origin", "--store", store])
        .current_dir(stage.base.path())
        .output()
        .expect("copper runs");
    assert!(output.status.success(), "{output:?}");
    let mut helper = Helper::of(&stage);
    let origin = stage.origin.to_str().expect("plain");
    assert_eq!(helper.status()["covered"], serde_json::json!([origin]));
    helper.stop();
}

#[test]
fn a_signal_ends_a_helper_as_cleanly() {
    let stage = Stage::new();
    let helper = stage.start(&[]);
    let (store, pid) = (store_of(&helper), helper.pid());
    let kill = std::process::Command::new("kill")
        .arg(pid.to_string())
        .status();
    assert!(kill.expect("kill").success());
    wait_for_end(pid);
    assert!(!store.exists() && !stage.view().exists() && !stage.runtime().exists());
}

#[test]
fn what_a_killed_helper_left_is_cleaned_at_the_next_start() {
    let stage = Stage::new();
    let path = stage.write("data", b"x");
    let mut helper = stage.start(&[]);
    helper.ask(Operation::Content, &path);
    let (store, left) = (store_of(&helper), helper.stored(&path));
    helper.kill();
    assert!(left.exists());
    let mut helper = stage.start(&[]);
    assert!(!left.exists());
    helper.stop();
    assert!(!store.exists() && !stage.view().exists() && !stage.runtime().exists());
}

#[test]
fn starting_twice_says_so() {
    let stage = Stage::new();
    let helper = stage.start(&[]);
    let again = stage.run(&["start"]);
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("was running already"));
    let other = stage.run(&["start", "--cover", "/usr/share"]);
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("copper stop"));
    assert!(stage.view().exists());
    drop(helper);
}

#[test]
fn errors_say_what_to_do() {
    let stage = Stage::new();
    let error = |arguments: &[&str]| {
        let output = stage.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error(&["status"]).contains("copper start"));
    assert!(error(&["start", "--store", "/"]).contains("give --store DIR"));
    assert!(error(&["start", "--memory", "lots"]).contains("512M"));
    assert!(error(&["start", "--cover", "/nowhere/at/all"]).contains("/nowhere/at/all"));
    assert!(error(&["start", "--cover", "/proc"]).contains("cannot be covered"));
    assert!(
        !stage.runtime().exists(),
        "a start that failed leaves nothing"
    );
    fs::create_dir(stage.runtime()).expect("directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(stage.runtime(), open).expect("mode");
    assert!(error(&["start"]).contains("chmod 700"));
}

#[test]
fn run_returns_the_command_s_status() {
    let stage = Stage::new();
    let status = |command: &[&str]| {
        let mut arguments = vec!["run", "--"];
        arguments.extend_from_slice(command);
        let run = stage.copper(&arguments).env_remove("LD_PRELOAD").output();
        run.expect("runs").status.code()
    };
    assert_eq!(status(&["true"]), Some(0));
    assert_eq!(status(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(status(&["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(status(&["no-such-command"]), Some(127));
    assert_eq!(status(&["/etc/passwd"]), Some(126));
    wait_until("the helper is gone", || !stage.runtime().exists());
}

#[test]
fn run_sets_the_environment() {
    let stage = Stage::new();
    let origin = stage.origin.to_str().expect("plain");
    let run = stage
        .copper(&["run", "--cover", origin, "--", "env"])
        .env("COPPER_PATHS", "/other")
        .output()
        .expect("runs");
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    let runtime = stage.runtime();
    for line in [
        format!("COPPER_RUNTIME_DIR={}", runtime.display()),
        format!("COPPER_PATHS={origin}:/other"),
        format!("LD_PRELOAD={}", crate::support::COPPER),
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line} in {printed}"
        );
    }
}

/// A run that says `ready` and then waits.
fn waiting_run(stage: &Stage, script: &str) -> Child {
    let mut child = stage
        .copper(&["run", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    child
}

fn kill(child: &Child, signal: &str) {
    let done = std::process::Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(done.expect("kill").success());
}

#[test]
fn signals_reach_the_command() {
    let stage = Stage::new();
    for (signal, number) in [
        ("INT", 2),
        ("TERM", 15),
        ("HUP", 1),
        ("USR1", 10),
        ("QUIT", 3),
    ] {
        let script =
            format!("trap 'exit 4{number}' {signal}; echo ready; while :; do sleep 0.01; done");
        let mut child = waiting_run(&stage, &script);
        kill(&child, &format!("-{signal}"));
        let status = child.wait().expect("ends").code();
        assert_eq!(
            status,
            Some(format!("4{number}").parse::<i32>().expect("number") & 0xff)
        );
    }
}

#[test]
fn runs_share_a_helper_that_ends_with_the_last_of_them() {
    let stage = Stage::new();
    let script = "echo ready; read line";
    let mut first = waiting_run(&stage, script);
    let helper = Helper::of(&stage);
    let pid = helper.pid();
    let mut second = waiting_run(&stage, script);
    assert!(stage.runtime().join(CATALOG).is_symlink());
    kill(&first, "-KILL");
    first.wait().expect("killed");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(stage.runtime().join(CATALOG).is_symlink());
    kill(&second, "-KILL");
    second.wait().expect("killed");
    wait_for_end(pid);
    wait_until("nothing is left", || {
        !stage.runtime().exists() && !stage.view().exists()
    });
    std::mem::forget(helper);
}

#[test]
fn many_runs_at_once_start_one_helper() {
    let stage = Stage::new();
    let children: Vec<Child> = (0..8)
        .map(|_| {
            let script = "readlink \"$COPPER_RUNTIME_DIR/catalog\"; sleep 0.5";
            let mut run = stage.copper(&["run", "--", "sh", "-c", script]);
            run.stdout(Stdio::piped()).spawn().expect("runs")
        })
        .collect();
    let mut catalogs = std::collections::HashSet::new();
    for mut child in children {
        let mut printed = String::new();
        let out = child.stdout.as_mut().expect("piped");
        out.read_to_string(&mut printed).expect("text");
        assert!(child.wait().expect("ends").success());
        catalogs.insert(printed);
    }
    assert_eq!(catalogs.len(), 1, "{catalogs:?}");
}

#[test]
fn a_command_runs_also_where_the_helper_is_stuck() {
    let stage = Stage::new();
    let helper = stage.start(&[]);
    let send = |signal: &str| {
        let pid = helper.pid().to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &pid])
            .status();
        assert!(sent.expect("kill").success());
    };
    send("-STOP");
    let run = stage.run(&["run", "--", "sh", "-c", "echo ran $COPPER_DISABLE"]);
    send("-CONT");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "ran 1\n");
    assert!(String::from_utf8_lossy(&run.stderr).contains("does not answer"));
}

#[test]
fn env_prints_what_a_shell_can_read() {
    let stage = Stage::new();
    let helper = stage.start(&[]);
    let printed = stage.run(&["env"]);
    let script = format!(
        "{}\necho \"$COPPER_RUNTIME_DIR $COPPER_PATHS\"",
        String::from_utf8_lossy(&printed.stdout)
    )
    .replace("export LD_PRELOAD", "export UNUSED");
    let shell = std::process::Command::new("sh")
        .args(["-c", &script])
        .output();
    let said = String::from_utf8_lossy(&shell.expect("sh").stdout).into_owned();
    let (runtime, origin) = (stage.runtime(), &stage.origin);
    assert_eq!(
        said,
        format!("{} {}\n", runtime.display(), origin.display())
    );
    let library = stage.run(&["env", "--lib"]);
    assert_eq!(
        String::from_utf8_lossy(&library.stdout),
        format!("{}\n", crate::support::COPPER)
    );
    drop(helper);
}

/// What is preloaded already stays, behind Copper's library.
#[test]
fn env_keeps_what_is_preloaded_in_every_format() {
    let stage = Stage::new();
    let helper = stage.start(&[]);
    let preload = format!("{}:/opt/first.so:/opt/second.so", crate::support::COPPER);
    for (format, words) in [
        ("sh", format!("export LD_PRELOAD='{preload}'\n")),
        ("pals", format!("--genv=LD_PRELOAD={preload} ")),
        ("hydra", format!("-genv LD_PRELOAD {preload} ")),
        ("openmpi", format!("-x LD_PRELOAD={preload} ")),
        ("srun", format!("--export=ALL,LD_PRELOAD={preload},")),
        ("flux", format!("--env=LD_PRELOAD={preload} ")),
    ] {
        let printed = stage
            .copper(&["env", "--format", format])
            // Nothing is there to be preloaded into the command itself.
            .env("LD_PRELOAD", "/opt/first.so /opt/second.so")
            .output()
            .expect("copper runs");
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        assert!(printed.starts_with(&words), "{format}: {printed}");
    }
    drop(helper);
}

#[test]
fn an_idle_helper_uses_no_processor_time() {
    let stage = Stage::new();
    let path = stage.write("data", b"x");
    let helper = stage.start(&[]);
    helper.ask(Operation::Content, &path);
    let times = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", helper.pid())).expect("alive");
        let (_, rest) = stat.rsplit_once(") ").expect("a state");
        let switches: u64 = fs::read_dir(format!("/proc/{}/task", helper.pid()))
            .expect("threads")
            .map(|task| {
                let status = task.expect("thread").path().join("status");
                let status = fs::read_to_string(status).expect("alive");
                let line = status
                    .lines()
                    .find(|line| line.starts_with("voluntary_ctxt"));
                let number = line.and_then(|line| line.split_whitespace().nth(1));
                number
                    .and_then(|number| number.parse::<u64>().ok())
                    .expect("a number")
            })
            .sum();
        let fields: Vec<u64> = rest
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        (fields[10], fields[11], switches)
    };
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = times();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(times(), before);
}
