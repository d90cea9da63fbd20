"""CPython's own tests, with the interpreter, its library and all that the tests write in one tree."""

import os
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as xml
from pathlib import Path

MODULES = [
    "test_os", "test_posix", "test_stat", "test_glob", "test_fnmatch", "test_pathlib", "test_shutil",
    "test_tempfile", "test_import", "test_importlib", "test_pkgutil", "test_zipimport", "test_runpy",
    "test_site", "test_subprocess", "test_mmap", "test_io", "test_fileio", "test_tarfile", "test_ctypes",
    "test_dbm", "test_venv", "test_compileall", "test_inspect", "test_tokenize", "test_email",
    # What else walks, locks, archives, or starts programs.
    "test_posixpath", "test_genericpath", "test_filecmp", "test_fcntl", "test_mailbox", "test_zipfile",
    "test_shelve", "test_linecache", "test_py_compile", "test_cmd_line_script",
]
# What takes seconds each, for every run of the project's tests.
QUICK = [
    "test_os", "test_posix", "test_stat", "test_glob", "test_fnmatch", "test_pathlib", "test_shutil",
    "test_tempfile", "test_import", "test_pkgutil", "test_zipimport", "test_runpy", "test_site",
    "test_mmap", "test_fileio", "test_dbm", "test_posixpath", "test_filecmp", "test_fcntl",
]
# Seconds; longer than a module takes on a loaded machine.
LIMIT = 900
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Suite:
    """The interpreter in `tree`, which the ways cover."""

    title = f"CPython {sys.version.split()[0]}"
    units = MODULES
    quick = QUICK

    def __init__(self, tree):
        self.tree = tree / "python"
        self.interpreter = self.tree / "bin" / VERSION

    def prepare(self):
        found = subprocess.run(
            [sys.executable, "-c", "import test.test_os, test.libregrtest"], stderr=subprocess.DEVNULL
        )
        if found.returncode != 0:
            raise SystemExit("this python3 has no tests; run scripts/setup.sh")
        (self.tree / "bin").mkdir(parents=True)
        library = self.tree / "lib" / VERSION
        shutil.copytree(
            sysconfig.get_path("stdlib"), library, symlinks=True,
            ignore=lambda directory, names: {
                name for name in names if name in ("site-packages", "dist-packages", "__pycache__")
            },
        )
        (library / "site-packages").mkdir()
        shutil.copy2(os.path.realpath(sys.executable), self.interpreter)
        for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
            shutil.copy2(shared, self.tree / "lib")
        for link in ("python3", "python"):
            (self.tree / "bin" / link).symlink_to(VERSION)

    def run(self, way, module, place, log):
        """Runs one module with `place` to write to; returns what became of each test, by its id."""
        report = place / "report.xml"
        environment = {**way.environment(), "TMPDIR": str(place), "HOME": str(place)}
        if way.user is not None:
            # The interpreter's own may be out of this user's reach.
            environment["LD_LIBRARY_PATH"] = str(self.tree / "lib")
        command = [
            way.seen(self.interpreter), "-m", "test", "-v", "--timeout", str(LIMIT),
            "--junit-xml", report, "--tempdir", place, module,
        ]
        ended = way.run(command, place, environment, log, LIMIT + 60)
        outcomes = outcomes_of(report)
        # A module that crashed or hung says nothing of its tests.
        outcomes[f"test.{module}"] = "passed" if outcomes else f"no report, ended with {ended}"
        return outcomes


def outcomes_of(report):
    """The outcome of each test in a report, by its id."""
    outcomes = {}
    if not report.exists():
        return outcomes
    for case in xml.parse(report).iter("testcase"):
        name = case.get("name", "?").split(" ")[0]
        words = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcome = words[0] if words else "passed"
        # Sub-tests report by themselves; one that failed is the test's failure.
        if outcomes.get(name, "passed") in ("passed", "skipped"):
            outcomes[name] = outcome
    return outcomes
