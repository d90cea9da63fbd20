//! Copper beside other things that get between a program and libc, or between a program and the
//! kernel: other preload libraries, allocators, sanitizers, tracers, debuggers, filters; and calls
//! from where they are awkward. Each case says the same plain, covered and in the view.

use crate::fixture::{Awkward, NOBODY};
use crate::real_programs::Bench;
use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::{Session, Way};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program that is looked at does: it lists, reads and compares.
const LOOK: &str = "find $TREE/walk $TREE/links -printf '%p %i %s %l\\n'; cat $TREE/sizes/4097 | cksum; \
                    ls -l --time-style=full-iso $TREE/sizes; cmp $TREE/sizes/4096 $TREE/sizes/4097";

fn storm(flags: &[&str]) -> PathBuf {
    let place = environment::program("storm_family").with_file_name(format!(
        "storm_family{}.{}",
        flags.concat().replace('/', "_"),
        std::process::id()
    ));
    let compiled = Command::new("gcc")
        .args(["-O1", "-g", "-D_GNU_SOURCE", "-pthread", "-w"])
        .args(flags)
        .arg("-o")
        .arg(&place)
        .arg(environment::sources().join("storm_family.c"))
        .status();
    assert!(compiled.is_ok_and(|status| status.success()));
    place
}

/// A library by its name alone, where the loader would find it.
fn library(name: &str) -> Option<PathBuf> {
    let output = Command::new("gcc")
        .arg(format!("-print-file-name={name}"))
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let known = Path::new("/usr/lib/x86_64-linux-gnu").join(name);
    let found = [path, known]
        .into_iter()
        .find(|path| path.is_absolute() && path.exists());
    if found.is_none() {
        eprintln!("{name} is not installed: not tried");
    }
    found
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// The script with another library preloaded, before ours or after it.
fn beside(library: &Path, script: &str) -> [String; 2] {
    let library = library.display();
    [
        format!("export LD_PRELOAD={library}:$LD_PRELOAD; {script}"),
        format!("export LD_PRELOAD=$LD_PRELOAD:{library}; {script}"),
    ]
}

fn compare(scripts: &[String]) {
    let tree = Awkward::new();
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    Bench::new(&tree.root()).compare(&scripts);
}

#[test]
fn beside_another_preload() {
    let other = environment::program("other_preload.so");
    compare(&beside(&other, LOOK));
}

#[test]
fn beside_other_allocators() {
    let mut scripts = Vec::new();
    for name in [
        "libjemalloc.so.2",
        "libtcmalloc_minimal.so.4",
        "libmimalloc.so.2",
    ] {
        if let Some(library) = library(name) {
            scripts.extend(beside(&library, LOOK));
        }
    }
    compare(&scripts);
}

#[test]
fn beside_tools_that_preload() {
    let mut scripts = vec![format!("stdbuf -oL bash -c '{}'", LOOK.replace('\'', "\""))];
    if is_installed("fakeroot") {
        // Inodes and owners as fakeroot tells them: the files' own, but owned by root.
        scripts.push("fakeroot ls -lin $TREE/sizes $TREE/permissions".to_owned());
    }
    compare(&scripts);
}

#[test]
fn awkward_moments() {
    let program = storm(&[]);
    compare(&[format!("{} $TREE", program.display())]);
    std::fs::remove_file(program).unwrap();
}

/// The sanitizers' libraries want to come first.
#[test]
fn sanitized_programs() {
    let mut scripts = Vec::new();
    let mut programs = Vec::new();
    for (flag, runtime, threads) in [
        ("-fsanitize=address", "libasan.so", "-DTHREADS=1000"),
        ("-fsanitize=undefined", "libubsan.so", "-DTHREADS=1000"),
        ("-fsanitize=thread", "libtsan.so", "-DTHREADS=200"),
    ] {
        let Some(runtime) = library(runtime) else {
            continue;
        };
        let program = storm(&[flag, threads]);
        scripts.push(format!(
            // The thread sanitizer wants its addresses where it expects them.
            "export ASAN_OPTIONS=detect_leaks=0; LD_PRELOAD={}:$LD_PRELOAD setarch -R {} $TREE 2>&1",
            runtime.display(),
            program.display()
        ));
        programs.push(program);
    }
    compare(&scripts);
    for program in programs {
        std::fs::remove_file(program).unwrap();
    }
}

#[test]
fn watched_programs() {
    let mut scripts = Vec::new();
    if is_installed("strace") {
        scripts.push(
            "strace -f -o $OUT/trace bash -c 'cat $TREE/sizes/4097 | cksum'; echo $?".to_owned(),
        );
    }
    if is_installed("valgrind") {
        scripts.push("valgrind -q --error-exitcode=9 cksum $TREE/sizes/4097; echo $?".to_owned());
    }
    compare(&scripts);
}

/// A debugger that attaches finds the symbols of a library that was served from the store.
#[test]
fn a_debugger_attaches() {
    if !is_installed("gdb") {
        return;
    }
    let tree = Awkward::new();
    let source = tree.root().join("walk/waiting.c");
    std::fs::write(
        &source,
        "#include <unistd.h>\nvoid wait_to_be_seen(void) { for (;;) pause(); }\n",
    )
    .unwrap();
    let compiled = Command::new("gcc")
        .args(["-g", "-shared", "-fPIC", "-o", "libwaiting.so", "waiting.c"])
        .current_dir(tree.root().join("walk"))
        .status();
    assert!(compiled.unwrap().success());
    // The library may not have been reached yet when the debugger first looks.
    Bench::new(&tree.root()).compare(&[
        "$PYTHON -c 'import ctypes, os; ctypes.CDLL(os.environ[\"TREE\"] + \"/walk/libwaiting.so\").wait_to_be_seen()' & \
         for attempt in 1 2 3 4 5 6 7 8 9 10; do \
           seen=$(gdb -nx -batch -p $! -ex bt 2>/dev/null | grep -o 'wait_to_be_seen () at [a-z.:0-9]*'); \
           [ -n \"$seen\" ] && break; sleep 0.3; \
         done; echo \"seen: $seen\"; kill $!",
    ]);
}

/// musl's loader preloads as well, but what the shim knows is glibc.
#[test]
fn programs_for_another_libc() {
    if !is_installed("musl-gcc") {
        eprintln!("musl-gcc is not installed: not tried");
        return;
    }
    let scratch = environment::scratch();
    let place = scratch.path().join("program");
    let compiled = Command::new("musl-gcc")
        .args(["-O1", "-o"])
        .arg(&place)
        .arg(environment::sources().join("other_libc.c"))
        .status();
    assert!(compiled.unwrap().success());
    let program = place.display();
    compare(&[
        format!("{program} $TREE"),
        format!("cd $TREE && {program} ."),
        format!("cp {program} $OUT/copy; env -i $OUT/copy $TREE"),
    ]);
}

/// A program that gains its owner's rights runs without the shim, as the loader has it.
#[test]
fn programs_that_gain_rights() {
    let tree = Awkward::new();
    let place = tree.root().join("programs");
    for (program, mode) in [("id", 0o4755), ("grep", 0o4755), ("cat", 0o755)] {
        let copy = place.join(format!("own-{program}"));
        std::fs::copy(Path::new("/usr/bin").join(program), &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = "cd /; $TREE/programs/own-id -u; $TREE/programs/own-grep -c libcopper /proc/self/maps; \
                  $TREE/programs/own-cat $TREE/sizes/4097 | cksum; cd $TREE/programs && ./own-id -u";
    let session = |covered: &[&Path]| Session::prepare(covered).as_user(NOBODY).started();
    let (covered, view) = (session(&[&tree.root()]), session(&[]));
    let run = |session: &Session, way, script: &str| {
        let mut command = session.command(way, "bash");
        command
            .args(["-c", script])
            .env("TREE", session.seen(way, &tree.root()));
        Outcome::of(&mut command).without_view(&session.view())
    };
    let plain = run(&covered, Way::Plain, script);
    let said = plain.text();
    assert!(
        said.starts_with("0\n0\n") && said.ends_with("\n0\n"),
        "{plain:?}"
    );
    let entered = "$TREE/programs/own-cat /proc/self/maps | grep -c libcopper";
    for (session, way) in [(&covered, Way::Covered), (&view, Way::View)] {
        for state in ["cold", "warm"] {
            run(session, way, script).must_equal(&plain, &format!("{way:?}, {state}"));
        }
        let mapped = run(session, way, entered).text();
        assert_ne!(
            mapped.trim(),
            "0",
            "{way:?}: the shim is in no program at all"
        );
    }
}

/// What a process may do changes with its user and with its root directory.
#[test]
fn other_rights_and_another_root() {
    let calls = [
        "os.setuid(65534)",
        "os.seteuid(65534)",
        "os.setreuid(-1, 65534)",
        "os.setresuid(65534, 65534, 65534)",
        "(os.setgroups([]), os.setgid(65534), os.setuid(65534))",
        "(os.setgroups([]), os.setegid(65534), os.seteuid(65534))",
        "(os.setgroups([]), os.setregid(65534, 65534), os.setuid(65534))",
        "(os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setuid(65534))",
        "os.chroot(t)",
        "ctypes.CDLL(None).syscall(105, 65534)",
    ];
    let scripts: Vec<String> = calls
        .iter()
        .map(|call| {
            format!(
                "$PYTHON -c '
import ctypes, os
t = os.environ[\"TREE\"]
def look(p):
    try: return os.stat(p).st_size, len(open(p, \"rb\").read())
    except OSError as e: return e.errno
paths = [\"/permissions/of-another\", \"/permissions/of-nobody\", \"/permissions/file-0600\", \"/permissions/dir-0700/file\", \"/sizes/1\"]
print([look(t + p) for p in paths])
{call}
print([look(t + p) for p in paths], [look(p) for p in paths])
'"
            )
        })
        .collect();
    compare(&scripts);
}
