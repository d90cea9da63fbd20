//! What is found on the machine: the built binaries, the compiled test programs, a place for
//! trees that Copper may cover.

use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The base of everything the tests write: `COPPER_TEST_DIR`, or a directory of this user in
/// `/var/tmp`. It must not lie below `/tmp`, which Copper never covers.
///
/// # Panics
/// When it cannot be made.
pub fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = std::env::var_os("COPPER_TEST_DIR").map_or_else(
            || {
                format!(
                    "/var/tmp/copper-tests-{}",
                    rustix::process::getuid().as_raw()
                )
                .into()
            },
            PathBuf::from,
        );
        std::fs::create_dir_all(&base).expect("cannot make the tests' directory");
        base
    })
}

/// A new directory below [`base`], which other users may enter; removed when it is dropped.
///
/// # Panics
/// When it cannot be made.
pub fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix("t")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(base())
        .expect("cannot make a scratch directory")
}

/// The directory of cargo's release build.
pub fn release() -> PathBuf {
    if let Some(directory) = std::env::var_os("COPPER_RELEASE_DIR") {
        return directory.into();
    }
    // This executable is target/<profile>/deps/<test>-<hash>.
    let executable = std::env::current_exe().unwrap_or_default();
    executable
        .ancestors()
        .nth(3)
        .unwrap_or(Path::new("target"))
        .join("release")
}

/// A file of the release build.
///
/// # Panics
/// When it has not been built.
pub fn built(name: &str) -> PathBuf {
    let path = release().join(name);
    assert!(
        path.exists(),
        "{} is missing; build it first: cargo build --release && cargo build --release -p \
         copper-shim && cargo build --release -p call-counter",
        path.display()
    );
    path
}

/// The sources of the test programs.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs")
}

/// The test program `name` (`tests/programs/<name>.c`), compiled; a name that ends in `.so` gives
/// a shared library.
///
/// # Panics
/// When it does not compile.
pub fn program(name: &str) -> PathBuf {
    static COMPILED: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(Mutex::default);
    let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = compiled.get(name) {
        return path.clone();
    }
    let path = compile(name).unwrap_or_else(|error| panic!("{error:#}"));
    compiled.insert(name.to_owned(), path.clone());
    path
}

fn compile(name: &str) -> Result<PathBuf> {
    let directory = base().join("programs");
    std::fs::create_dir_all(&directory)?;
    let source = sources()
        .join(name.trim_end_matches(".so"))
        .with_extension("c");
    // Several test processes may compile at once; each renames its result into place.
    let unfinished = directory.join(format!("{name}.{}", std::process::id()));
    let mut compiler = Command::new("gcc");
    compiler.args([
        "-O1",
        "-g",
        "-D_GNU_SOURCE",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-o",
    ]);
    compiler.arg(&unfinished);
    if name.ends_with(".so") {
        compiler.args(["-shared", "-fPIC"]);
    }
    compiler.arg(&source).arg("-ldl");
    let output = compiler.output().context("cannot run gcc; install it")?;
    ensure!(
        output.status.success(),
        "gcc {}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let path = directory.join(name);
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// Whether this is root, for what needs mounts and other users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
