//! Programs in namespaces of their own, as container runtimes make them, with the helper outside.

use crate::fixture::NOBODY;
use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A user namespace, in which the user is called root.
const ROOTLESS: [&str; 2] = ["--user", "--map-root-user"];

/// The words of a command behind others, with its environment; those that make its user go first.
fn behind(words: &[&str], command: &Command) -> Command {
    let mut own: Vec<OsString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsString::from)
        .collect();
    let user = if own[0] == "setpriv" {
        1 + own.iter().position(|word| word == "--").unwrap()
    } else {
        0
    };
    own.splice(user..user, words.iter().map(OsString::from));
    let mut all = Command::new(&own[0]);
    all.args(&own[1..]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.env(name, value),
            None => all.env_remove(name),
        };
    }
    all
}

/// The command, in namespaces that these options of unshare make.
fn in_namespaces(command: &Command, options: &[&str]) -> Command {
    behind(&[&["unshare"], options, &["--"]].concat(), command)
}

/// With user namespaces, which everybody may make.
const ROOTLESS_KINDS: [&[&str]; 5] = [
    &ROOTLESS,
    &["--user", "--map-root-user", "--mount"],
    &[
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
    ],
    &["--user", "--map-user=1234", "--map-group=1235"],
    &["--user"],
];
/// Without, which root may make.
const ROOT_S_KINDS: [&[&str]; 2] = [&["--mount"], &["--pid", "--fork", "--mount-proc"]];

/// A helper of an ordinary user's.
fn ordinary_session(covered: &Path) -> Session {
    let session = Session::prepare(&[covered]);
    if environment::is_root() {
        session.as_user(NOBODY).started()
    } else {
        session.started()
    }
}

fn must_be_served(session: &Session, tree: &Path, kinds: &[&[&str]]) {
    let counts = || [["asked", "total"], ["origin", "opens"]].map(|of| session.status_number(of));
    for (number, options) in kinds.iter().enumerate() {
        let data = tree.join(format!("data-{number}"));
        fs::write(&data, "contents\n").unwrap();
        let refreshed = Outcome::of(session.copper().arg("refresh").arg(tree));
        assert!(refreshed.status.success(), "{refreshed:?}");
        let mut command = session.command(Way::Covered, "cat");
        command.arg(&data);
        let see = || {
            let outcome = Outcome::of(&mut in_namespaces(&command, options));
            assert!(outcome.status.success(), "{options:?}: {outcome:?}");
            assert_eq!(outcome.stdout, b"contents\n", "{options:?}");
        };
        let before = counts();
        see();
        let first = counts();
        assert!(
            first[0] > before[0],
            "{options:?}: the program did not find the helper"
        );
        assert_eq!(first[1], before[1] + 1, "{options:?}");
        see();
        assert_eq!(counts(), first, "{options:?}: the second asked again");
    }
}

#[test]
fn every_kind_of_namespace_is_served() {
    let scratch = environment::scratch();
    let session = ordinary_session(scratch.path());
    must_be_served(&session, scratch.path(), &ROOTLESS_KINDS);
    if environment::is_root() {
        let session = Session::start(&[scratch.path()]);
        must_be_served(&session, scratch.path(), &ROOT_S_KINDS);
    }
}

/// What `counted_calls` asks is counted to the call; and a program that was killed is not taken for
/// one that runs, whatever number it had in its namespace.
#[test]
fn what_is_asked_in_every_kind_of_namespace_is_counted() {
    /// What the program asks of files that are known, and how often.
    const ASKED: [(&str, u64); 3] = [("stat", 100), ("open", 20), ("access", 7)];
    let scratch = environment::scratch();
    fs::write(scratch.path().join("file"), vec![7; 4096]).unwrap();
    symlink("file", scratch.path().join("link")).unwrap();
    let count = |session: &Session, kinds: &[&[&str]]| {
        let run = |options: Option<&[&str]>, how: &str| {
            let mut shell = session.command(Way::Covered, "sh");
            // As a child: a namespace's first process cannot be killed from within.
            shell.args(["-c", "\"$0\" \"$1\" \"$2\"; true"]);
            shell.arg(environment::program("counted_calls"));
            shell.arg(scratch.path()).arg(how);
            let outcome = match options {
                None => Outcome::of(&mut shell),
                Some(options) => Outcome::of(&mut in_namespaces(&shell, options)),
            };
            assert!(outcome.status.success(), "{options:?}: {outcome:?}");
        };
        let calls = |place: &str| {
            let status = session.status().unwrap();
            let number = status.pointer(&format!("/calls/{place}"));
            number
                .and_then(Value::as_u64)
                .unwrap_or_else(|| panic!("no {place} in {status}"))
        };
        run(None, "plain");
        for options in kinds {
            for how in ["plain", "kill"] {
                let hits = || ASKED.map(|(family, _)| calls(&format!("families/{family}/hit")));
                let before = hits();
                run(Some(options), how);
                let grown = hits().into_iter().zip(before).map(|(now, then)| now - then);
                let grown: Vec<u64> = grown.collect();
                assert_eq!(grown, ASKED.map(|(_, times)| times), "{options:?}, {how}");
                let ended = || calls("running") == 0;
                assert!(
                    wait_until(Duration::from_secs(5), ended),
                    "{options:?}, {how}: one is said to run"
                );
            }
        }
    };
    count(&ordinary_session(scratch.path()), &ROOTLESS_KINDS);
    if environment::is_root() {
        let session = Session::start(&[scratch.path()]);
        count(&session, &ROOT_S_KINDS);
        // With the /proc of the processes outside.
        count(&session, &[&["--pid", "--fork"]]);
    }
}

/// Files of several owners and modes, and directories of theirs.
fn make_owned(tree: &Path) {
    let own = fs::metadata(tree).unwrap();
    let mut owners = vec![(own.uid(), own.gid())];
    if environment::is_root() {
        let others = [NOBODY, 5, 1000, 100_003].map(|uid| (uid, uid));
        owners.extend(others.into_iter().chain([(5, NOBODY)]));
    }
    for (uid, gid) in owners {
        for mode in [0o755, 0o750, 0o711, 0o700, 0o070, 0o007, 0o000] {
            let directory = tree.join(format!("{uid}-{gid}-{mode:o}"));
            fs::create_dir(&directory).unwrap();
            let (file, link) = (directory.join("file"), directory.join("link"));
            fs::write(&file, "x").unwrap();
            symlink("file", &link).unwrap();
            for path in [&file, &directory] {
                chown(path, Some(uid), Some(gid)).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

/// What programs see of owners and rights is what they see without Copper.
#[test]
fn owners_and_rights_are_those_of_the_user_namespace() {
    let scratch = environment::scratch();
    make_owned(scratch.path());
    let script = "cd \"$0\" && ls -ln; for name in *; do
            stat -c '%n %u %g %a %U' \"$name\" \"$name/file\" \"$name/none\"
            ls \"$name\"; cat \"$name/file\" \"$name/link\"; readlink \"$name/link\"
            for right in r w x; do
                for path in \"$name\" \"$name/file\"; do test -$right \"$path\" && echo \"$right\"; done
            done
        done 2>&1; id; exec <.; stat -Lc '%u %g' /dev/stdin";
    let look = |session: &Session, way, inside: &dyn Fn(&Command) -> Outcome| {
        let mut shell = session.command(way, "sh");
        shell.args(["-c", script]).arg(scratch.path());
        inside(&shell)
    };
    let compare = |session: &Session, kinds: &[&[&str]]| {
        for options in kinds {
            let inside = |shell: &Command| Outcome::of(&mut in_namespaces(shell, options));
            let plain = look(session, Way::Plain, &inside);
            assert!(plain.text().contains("-755"), "{options:?}: {plain:?}");
            for state in ["cold", "warm"] {
                let served = look(session, Way::Covered, &inside);
                assert_eq!(served, plain, "{options:?}, {state}");
            }
        }
    };
    let session = ordinary_session(scratch.path());
    compare(&session, &ROOTLESS_KINDS);
    assert!(session.status_number(["asked", "total"]) > 0);
    if environment::is_root() {
        let maps = format!("0 {NOBODY} 1\n1 1000 1\n10 100000 10\n");
        let inside = |shell: &Command| with_maps(shell, &maps);
        let plain = look(&session, Way::Plain, &inside);
        assert!(
            plain.text().contains("100003-100003-755 13 13"),
            "{plain:?}"
        );
        let served = look(&session, Way::Covered, &inside);
        assert_eq!(served, plain, "with several ranges");
        // Root outside may do what root inside may not.
        let session = Session::start(&[scratch.path()]);
        compare(&session, &ROOT_S_KINDS);
        compare(&session, &ROOTLESS_KINDS);
    }
}

/// Runs a command in a user namespace with these maps of users and groups; needs root.
fn with_maps(command: &Command, maps: &str) -> Outcome {
    let script = "echo; read line; exec \"$@\"";
    let waiting = behind(&["unshare", "--user", "sh", "-c", script, "sh"], command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = waiting.unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    for name in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{name}", child.id()), maps).unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut said).unwrap();
    let ended = child.wait_with_output().unwrap();
    Outcome {
        status: ended.status,
        stdout: said,
        stderr: ended.stderr,
    }
}

/// A root directory for chroot with nothing in it but what is bound in.
fn container(bound: &[&Path]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let root = environment::scratch();
    let system = ["/usr", "/proc", "/dev/shm"].map(Path::new);
    let bound: Vec<_> = system
        .into_iter()
        .chain(bound.iter().copied())
        .map(Path::to_owned)
        .collect();
    for path in &bound {
        fs::create_dir_all(root.path().join(path.strip_prefix("/").unwrap())).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        if fs::symlink_metadata(Path::new("/").join(name)).is_ok_and(|found| found.is_symlink()) {
            symlink(Path::new("usr").join(name), root.path().join(name)).unwrap();
        }
    }
    (root, bound)
}

/// The command as Apptainer would run it: in a user namespace, in a root directory of its own.
fn in_container(root: &Path, bound: &[PathBuf], command: &Command) -> Command {
    let script = "root=$1; shift
        while [ \"$1\" != -- ]; do mount --rbind \"$1\" \"$root$1\" || exit 99; shift; done
        shift; exec chroot \"$root\" \"$@\"";
    let mut words: Vec<OsString> = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
    ]
    .map(OsString::from)
    .to_vec();
    words.extend([script.into(), "sh".into(), root.into()]);
    words.extend(bound.iter().map(|path| path.clone().into_os_string()));
    words.push("--".into());
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
    behind(&words, command)
}

#[test]
fn a_chroot_in_a_user_namespace_is_served() {
    let scratch = environment::scratch();
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("directory/below")).unwrap();
    for number in 0..40 {
        fs::write(
            tree.join(format!("directory/{number}")),
            format!("{number}\n"),
        )
        .unwrap();
    }
    symlink("../directory", tree.join("directory/link")).unwrap();
    let session = ordinary_session(&tree);
    let (root, bound) = container(&[&tree, session.directory()]);
    let script = "cd \"$0\" && cat directory/[0-9]* && ls -lR . && find . -type l && pwd &&
        test ! -e none && readlink -f directory/link/link && ls / && cat /etc/passwd 2>&1";
    let run = |way| {
        let mut shell = session.command(way, "sh");
        shell.args(["-c", script]).arg(session.seen(way, &tree));
        Outcome::of(&mut in_container(root.path(), &bound, &shell))
    };
    let opens = || session.status_number(["origin", "opens"]);
    let plain = run(Way::Plain);
    assert!(plain.text().contains("proc\nusr\n"), "{plain:?}");
    assert_eq!(run(Way::Covered), plain);
    assert_eq!(opens(), 40);
    assert_eq!(run(Way::Covered), plain);
    assert_eq!(opens(), 40, "the second read from the origin");
}

/// The catalog grows while a program of a container uses it.
#[test]
fn a_container_sees_a_catalog_of_several_segments() {
    const EACH: usize = 7000;
    let scratch = environment::scratch();
    for directory in ["a", "b", "c"] {
        fs::create_dir(scratch.path().join(directory)).unwrap();
        for number in 0..EACH {
            let name = format!("{directory}/{number:0100}");
            fs::write(scratch.path().join(name), "").unwrap();
        }
    }
    let session = ordinary_session(scratch.path());
    let mut shell = session.command(Way::Covered, "sh");
    let script = "cd \"$0\" && for d in a b c; do ls -l $d | wc -l; ls -l $d | cksum; done";
    shell.args(["-c", script]).arg(scratch.path());
    let mut plain = session.command(Way::Plain, "sh");
    plain.args(["-c", script]).arg(scratch.path());
    let plain = Outcome::of(&mut in_namespaces(&plain, &ROOTLESS));
    assert!(plain.text().starts_with("7001\n"), "{plain:?}");
    for state in ["cold", "warm"] {
        let served = Outcome::of(&mut in_namespaces(&shell, &ROOTLESS));
        assert_eq!(served, plain, "{state}");
    }
    let bytes = session.status_number(["memory", "catalog_bytes"]);
    assert!(bytes > 4 << 20, "the catalog has {bytes} bytes only");
    let stats = session.status_number(["origin", "stats"]);
    assert_eq!(Outcome::of(&mut in_namespaces(&shell, &ROOTLESS)), plain);
    assert_eq!(session.status_number(["origin", "stats"]), stats);
}

#[test]
fn a_container_works_without_its_helper() {
    let scratch = environment::scratch();
    let data = scratch.path().join("data");
    fs::write(&data, "contents\n").unwrap();
    let session = ordinary_session(scratch.path());
    let mut command = session.command(Way::Covered, "cat");
    command.arg(&data);
    let see = |state: &str| {
        let begun = Instant::now();
        let outcome = Outcome::of(&mut in_namespaces(&command, &ROOTLESS));
        assert_eq!(outcome.stdout, b"contents\n", "{state}: {outcome:?}");
        begun.elapsed()
    };
    see("alive");
    session.signal(Signal::STOP);
    // unshare and cat wait for it, once each.
    let took = see("stopped");
    assert!(took < Duration::from_secs(20), "{took:?}");
    session.signal(Signal::CONT);
    see("going on");
    session.kill();
    see("killed");
}
