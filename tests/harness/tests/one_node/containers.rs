//! Programs in namespaces of their own, as container runtimes make them.

use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way};
use std::fs;
use std::process::Command;

/// The command, in namespaces that these options of unshare make.
fn in_namespaces(command: &Command, options: &[&str]) -> Command {
    let mut inside = Command::new("unshare");
    inside
        .args(options)
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}

#[test]
fn a_mount_namespace_is_served_and_a_user_namespace_works_from_the_origin() {
    let scratch = environment::scratch();
    let data = scratch.path().join("data");
    fs::write(&data, "contents\n").expect("file");
    let session = Session::start(&[scratch.path()]);
    let asked = || session.status_number(["asked", "total"]);
    let mut command = session.command(Way::Covered, "cat");
    command.arg(&data);
    let see = |options: &[&str]| {
        let outcome = Outcome::of(&mut in_namespaces(&command, options));
        assert!(outcome.status.success(), "{options:?}: {outcome:?}");
        assert_eq!(outcome.stdout, b"contents\n", "{options:?}");
    };
    // Root alone may make a mount namespace without a user namespace.
    let outer: &[&str] = if environment::is_root() {
        &["--mount"]
    } else {
        &[]
    };
    see(outer);
    let served = asked();
    assert!(served > 0, "the program did not find the helper");
    // A process of an inner user namespace may not open the memory of one of the outer.
    see(&["--user", "--map-root-user"]);
    assert_eq!(asked(), served);
}
