//! A Python with numpy, scipy and pandas, installed once for all tests.

use crate::environment;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The import that everything is measured by, and a small computation that uses all of it.
pub const IMPORT: &str = "\
import numpy, scipy.sparse, pandas
matrix = scipy.sparse.csr_matrix(numpy.arange(12.0).reshape(3, 4))
frame = pandas.DataFrame((matrix @ matrix.T).toarray(), columns=list('abc'))
print(frame.describe().to_string())
print(numpy.__version__, numpy.__file__, scipy.sparse.__file__, pandas.__path__[0])
";

/// The interpreter itself, not a script of a version manager that stands for it.
///
/// # Panics
/// When there is no python3.
pub fn interpreter() -> &'static Path {
    static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();
    INTERPRETER.get_or_init(|| {
        let code = "import os, sys; print(os.path.realpath(sys.executable))";
        let output = Command::new("python3").args(["-c", code]).output();
        let output = output.expect("python3 is not installed");
        assert!(output.status.success(), "python3 does not work");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// The directory with numpy, scipy and pandas in it, for `PYTHONPATH`.
///
/// # Panics
/// When they cannot be installed.
pub fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| install().unwrap_or_else(|error| panic!("{error:#}")))
}

fn install() -> Result<PathBuf> {
    let place = environment::base().join("python-packages");
    if place.exists() {
        return Ok(place);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let wheels = repository.join(".cache/wheels");
    let unfinished = environment::base().join(format!("python-packages.{}", std::process::id()));
    let mut pip = Command::new(interpreter());
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    pip.args(["--root-user-action", "ignore"])
        .arg("--target")
        .arg(&unfinished);
    if wheels.exists() {
        pip.arg("--no-index").arg("--find-links").arg(&wheels);
    }
    pip.arg("-r")
        .arg(repository.join("scripts/python-packages.txt"));
    let status = pip.status().context("cannot run pip")?;
    ensure!(
        status.success(),
        "pip install failed; run scripts/setup.sh for the reason"
    );
    // Another test process may have been faster.
    if std::fs::rename(&unfinished, &place).is_err() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    Ok(place)
}

/// Sets what makes two runs of Python say the same.
pub fn settle(command: &mut Command) -> &mut Command {
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONHASHSEED", "0");
    command
        .env("OPENBLAS_NUM_THREADS", "1")
        .env_remove("PYTHONHOME")
        .env_remove("PYTHONSTARTUP")
}
