//! Ranks of real MPIs on one node, under the shim.

use copper_tests::compare::Outcome;
use copper_tests::session::Session;
use copper_tests::{environment, python};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const RANKS: usize = 8;

/// What every rank runs: each prints a line of its own, in one piece.
pub(crate) const CODE: &str = "\
import os, sys, numpy
from mpi4py import MPI
world = MPI.COMM_WORLD
total = world.allreduce(int(numpy.arange(world.rank + 1).sum()))
shimmed = 'libcopper.so' in open('/proc/self/maps').read()
os.write(1, f'{world.rank}/{world.size} {total} {shimmed} {numpy.__file__}\\n'.encode())
";

/// An MPI of Debian's.
pub(crate) struct Mpi {
    pub(crate) run: &'static str,
    options: &'static [&'static str],
    pub(crate) format: &'static str,
    /// mpi4py's name for its interface; the library under the name that mpi4py asks for, and under
    /// the name it has.
    interface: [&'static str; 3],
}

pub(crate) const MPICH: Mpi = Mpi {
    run: "mpirun.mpich",
    options: &[],
    format: "hydra",
    interface: ["mpich", "libmpi.so.12", "libmpich.so.12"],
};

pub(crate) const OPEN_MPI: Mpi = Mpi {
    run: "mpirun.openmpi",
    options: &["--allow-run-as-root", "--oversubscribe"],
    format: "openmpi",
    interface: ["openmpi", "libmpi.so.40", "libmpi.so.40"],
};

/// mpi4py, installed once for all tests; its wheel is built for no MPI in particular.
pub(crate) fn mpi4py() -> PathBuf {
    let place = environment::base().join("mpi4py");
    if !place.exists() {
        let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/wheels");
        let unfinished = environment::base().join(format!("mpi4py.{}", std::process::id()));
        let mut pip = Command::new(python::interpreter());
        pip.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps"])
            .args(["--root-user-action", "ignore", "--find-links"])
            .arg(wheels)
            .arg("--target")
            .arg(&unfinished)
            .arg("mpi4py");
        let installed = Outcome::of(&mut pip);
        assert!(
            installed.status.success(),
            "run scripts/setup.sh first: {installed:?}"
        );
        // Another test may have been faster.
        let _ = std::fs::rename(&unfinished, &place);
    }
    place
}

fn library_directory(mpi: &Mpi, code: &Path) -> PathBuf {
    code.with_file_name(format!("lib-{}", mpi.format))
}

/// Puts the MPI's library into a directory beside the ranks' code, under the name that mpi4py asks for.
pub(crate) fn link_library(mpi: &Mpi, code: &Path) {
    let lib = library_directory(mpi, code);
    std::fs::create_dir(&lib).unwrap();
    let [_, wanted, there] = mpi.interface;
    let there = Path::new("/usr/lib/x86_64-linux-gnu").join(there);
    std::os::unix::fs::symlink(there, lib.join(wanted)).unwrap();
}

/// Adds what all ranks are to run, with the packages in a directory.
pub(crate) fn add_ranks(
    command: &mut Command,
    mpi: &Mpi,
    code: &Path,
    packages: &Path,
    ranks: usize,
) {
    command
        .args(mpi.options)
        .args(["-n", &ranks.to_string()])
        .arg(python::interpreter())
        .arg(code)
        .env("MPI4PY_MPIABI", mpi.interface[0])
        .env("LD_LIBRARY_PATH", library_directory(mpi, code));
    let paths = [mpi4py(), packages.to_path_buf()];
    command.env("PYTHONPATH", std::env::join_paths(paths).unwrap());
    python::settle(command);
}

/// All ranks must be there, have talked to each other, and have the shim.
pub(crate) fn check(command: &mut Command, packages: &Path, ranks: usize) {
    let outcome = Outcome::of(command);
    assert!(outcome.status.success(), "{command:?}: {outcome:?}");
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    let total: usize = (0..ranks).map(|rank| rank * (rank + 1) / 2).sum();
    let packages = packages.display();
    let wanted: BTreeSet<String> = (0..ranks)
        .map(|rank| format!("{rank}/{ranks} {total} True {packages}/numpy/__init__.py"))
        .collect();
    let got: BTreeSet<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(got, wanted, "{command:?}: {outcome:?}");
}

fn run_ranks(mpi: &Mpi) {
    let session = Session::start(&[&mpi4py(), python::packages()]);
    let code = session.directory().join("ranks.py");
    std::fs::write(&code, CODE).unwrap();
    link_library(mpi, &code);

    // mpirun $(copper env --format ...) -n 8 python3 ranks.py
    let mut line = session.copper();
    let line = Outcome::of(line.args(["env", "--format", mpi.format]));
    assert!(line.status.success(), "{line:?}");
    let line = String::from_utf8(line.stdout).unwrap();
    let mut command = Command::new(mpi.run);
    command.args(line.split_whitespace());
    add_ranks(&mut command, mpi, &code, python::packages(), RANKS);
    check(&mut command, python::packages(), RANKS);
    let reads = session.status_number(["origin", "opens"]);
    assert!(reads > 0, "nothing was served by the helper");

    // copper run -- mpirun -n 8 python3 ranks.py
    let mut command = session.copper();
    command.args(["run", "--", mpi.run]);
    add_ranks(&mut command, mpi, &code, python::packages(), RANKS);
    check(&mut command, python::packages(), RANKS);
    assert_eq!(
        session.status_number(["origin", "opens"]),
        reads,
        "the second run read from the origin"
    );
}

#[test]
fn mpich() {
    run_ranks(&MPICH);
}

#[test]
fn open_mpi() {
    run_ranks(&OPEN_MPI);
}
