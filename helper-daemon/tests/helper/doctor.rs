//! `copper doctor`, and the documents that packages install.

use crate::support::Stage;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::Output;

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["findings"].as_array().expect("a list").clone()
}

fn of_check<'f>(findings: &'f [Value], check: &str) -> &'f Value {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("nothing about {check} in {findings:?}"))
}

#[test]
fn a_healthy_node_has_no_problem() {
    let stage = Stage::new();
    let store = stage.memory.path().to_str().expect("plain");
    // The stage's stand-in for the library cannot be preloaded, so it is the one problem.
    let output = stage.run(&["doctor", "--json", "--store", store]);
    let findings = findings(&output);
    let problems: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["state"] == "problem")
        .collect();
    assert!(
        problems
            .iter()
            .all(|problem| problem["check"] == "libcopper.so"),
        "{problems:?}"
    );
    for check in [
        "glibc", "kernel", "/proc", "store", "view", "runtime", "ports",
    ] {
        assert_eq!(of_check(&findings, check)["state"], "ok", "{check}");
    }
    let _ = of_check(&findings, "libfabric");
}

#[test]
fn what_stands_in_the_way_is_named_with_what_to_do() {
    let stage = Stage::new();
    let taken = TcpListener::bind("0.0.0.0:0").expect("listens");
    let port = taken.local_addr().expect("bound").port().to_string();
    fs::write(stage.base.path().join("view"), "").expect("file");
    let output = stage
        .copper(&["doctor", "--store", "/proc", "--port", &port])
        .env("LD_PRELOAD", "/gone/libcopper.so")
        .output()
        .expect("copper runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "/proc is not a tmpfs",
        "name it with --store DIR",
        &format!("port {port}"),
        "give another --port",
        "is in the way",
        "give --view DIR",
        "/gone/libcopper.so is not the libcopper.so of this copper",
        "unset LD_PRELOAD",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn what_a_killed_helper_left_is_noted() {
    let stage = Stage::new();
    let mut helper = stage.start(&[]);
    let output = stage.run(&["doctor", "--json"]);
    let runtime = of_check(&findings(&output), "runtime").clone();
    assert!(
        runtime["found"]
            .as_str()
            .expect("text")
            .contains("is running")
    );
    helper.kill();
    let output = stage.run(&["doctor", "--json"]);
    let runtime = of_check(&findings(&output), "runtime").clone();
    assert_eq!(runtime["state"], "note");
    assert!(
        runtime["advice"]
            .as_str()
            .expect("text")
            .contains("copper start")
    );
    // The next one clears up.
    stage.start(&[]).stop();
}

#[test]
fn documents_are_about_what_users_call() {
    let stage = Stage::new();
    let place = stage.base.path().join("package");
    let output = stage.run(&["documents", place.to_str().expect("plain")]);
    assert!(output.status.success());
    let page = |name: &str| fs::read_to_string(place.join("share/man/man1").join(name));
    assert!(page("copper-doctor.1").expect("a page").contains("problem"));
    assert!(
        page("copper-start.1")
            .expect("a page")
            .contains("allocation")
    );
    assert!(
        page("copper-join.1").is_err(),
        "hidden commands have no page"
    );
    let completion = place.join("share/bash-completion/completions/copper.bash");
    assert!(
        fs::read_to_string(completion)
            .expect("there")
            .contains("doctor")
    );
}
