//! The Spack recipe, run by a stand-in for Spack on a real build: what it installs works from there.

use crate::fixture::said;
use copper_tests::compare::Outcome;
use copper_tests::{environment, python};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// A directory that looks like the source after cargo has built it.
fn built_source(place: &Path) -> PathBuf {
    let source = place.join("source");
    let release = source.join("target/release");
    fs::create_dir_all(&release).unwrap();
    for name in ["copper", "libcopper.so", "libcopper_audit.so"] {
        symlink(environment::built(name), release.join(name)).unwrap();
    }
    symlink(repository().join("scripts"), source.join("scripts")).unwrap();
    source
}

/// Packages that a cargo command line names.
fn named(line: &serde_json::Value) -> BTreeSet<String> {
    let words: Vec<&str> = line
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|word| word.as_str())
        .collect();
    assert_eq!(words[..3], ["build", "--release", "--locked"]);
    let options = words[3..].chunks(2);
    options
        .map(|option| {
            assert_eq!(option[0], "-p", "{line}");
            option[1].to_owned()
        })
        .collect()
}

fn install(place: &Path, prefix: &Path, where_package_is: &str) -> serde_json::Value {
    let libfabric = place.join("libfabric");
    fs::create_dir_all(libfabric.join("lib")).unwrap();
    fs::write(libfabric.join("lib/libfabric.so"), "").unwrap();
    let stand_in = repository().join("tests/harness/tests/launching/spack_stand_in.py");
    let mut install = Command::new(python::interpreter());
    install
        .arg(stand_in)
        .arg(repository().join("scripts/spack/package.py"))
        .args([&place.join("source"), prefix, &libfabric])
        .env("WHERE_PACKAGE_IS", where_package_is);
    let outcome = Outcome::of(&mut install);
    assert!(outcome.status.success(), "{}", said(&outcome));
    serde_json::from_slice(&outcome.stdout).unwrap()
}

#[test]
fn the_spack_recipe_installs_what_works() {
    let place = environment::scratch();
    let place = place.path();
    built_source(place);
    for where_package_is in ["spack", "packages"] {
        let prefix = place.join(format!("prefix-{where_package_is}"));
        let done = install(place, &prefix, where_package_is);
        let builds: Vec<_> = done["cargo"]
            .as_array()
            .unwrap()
            .iter()
            .map(named)
            .collect();
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(
            builds,
            [set(&["copper-shim", "copper-audit"]), set(&["copper"])]
        );
        let needed = done["depends_on"].to_string();
        assert!(
            needed.contains("rust@") && needed.contains("libfabric@"),
            "{needed}"
        );
        let variables = &done["environment"];
        assert_eq!(variables["COPPER_ROOT"], prefix.to_str().unwrap());
        let libfabric = Path::new(variables["COPPER_LIBFABRIC"].as_str().unwrap());
        assert!(libfabric.ends_with("lib/libfabric.so") && libfabric.exists());
        assert!(variables["LD_PRELOAD"].is_null(), "{variables}");

        for file in [
            "lib/libcopper-audit.so",
            "share/man/man1/copper-start.1",
            "share/bash-completion/completions/copper.bash",
            "share/copper/examples/slurm.sh",
        ] {
            assert!(prefix.join(file).is_file(), "{file}");
        }
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(prefix.join("bin").join(program));
            command.args(arguments);
            for name in ["COPPER_LIB", "COPPER_ROOT", "LD_PRELOAD"] {
                command.env_remove(name);
            }
            let outcome = Outcome::of(&mut command);
            assert!(outcome.status.success(), "{program}: {}", said(&outcome));
            said(&outcome)
        };
        assert!(run("launch_copper.sh", &["-h"]).contains("copper start"));
        run("stop_copper.sh", &["-h"]);
        // The demonstration finds the libraries, the command and the helper in the prefix.
        let mut demo = Command::new(prefix.join("share/copper/demo.sh"));
        let outcome = Outcome::of(demo.arg(place.join("demo")));
        let text = said(&outcome);
        assert!(outcome.status.success(), "{text}");
        assert!(text.contains("the demonstration passed"), "{text}");
    }
}
