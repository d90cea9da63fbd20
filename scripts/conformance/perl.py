"""Perl's own tests of io and lib, as its source has them, on the modules of the perl that is here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

# Seconds.
LIMIT = 300
# Of the tests of operators those that are about files, directories and programs.
OPERATORS = [
    "chdir", "chown", "closure", "die_exit", "do", "exec", "filetest", "filetest_stack_ok", "filetest_t",
    "fork", "getpid", "glob", "inccode", "incfilter", "kill0", "lfs", "magic", "mkdir", "readline", "require_37033",
    "require_errors", "rand", "select", "stat", "sysio", "time", "utf8magic", "utfhash", "write",
]
QUICK = ["io/fs", "io/open", "io/read", "io/tell", "io/inplace", "op/stat", "op/readline", "op/mkdir", "op/glob"]


class Suite:
    """The tests, the modules and the interpreter in `tree`, which the ways cover."""

    # Beside the tests, so that there is next to nothing to be seen in a view.
    writes = True

    quick = QUICK

    def __init__(self, tree, source):
        self.source, self.tree = Path(source), tree / "perl"
        self.perl = shutil.which("perl")
        version = subprocess.run([self.perl, "-e", "print $^V"], stdout=subprocess.PIPE, text=True, check=True)
        self.title = f"Perl {version.stdout.lstrip('v')}"
        places = [
            *(f"io/{path.stem}" for path in sorted((self.source / "t/io").glob("*.t"))),
            *(f"op/{name}" for name in OPERATORS if (self.source / f"t/op/{name}.t").exists()),
            *(f"lib/{path.stem}" for path in sorted((self.source / "lib").glob("*.t"))),
        ]
        self.units = [place for place in places if place not in LEFT_OUT]

    def prepare(self):
        library = self.tree / "lib"
        shutil.copytree(self.source / "t", self.tree / "t", symlinks=True)
        shutil.copytree(self.source / "lib", library, symlinks=True)
        # What the build of perl makes is in the installed modules; the tests look for all in lib.
        wanted = 'use Config; print join "\\n", $Config{privlibexp}, $Config{archlibexp}'
        places = subprocess.run([self.perl, "-e", wanted], stdout=subprocess.PIPE, text=True, check=True)
        for place in places.stdout.split():
            shutil.copytree(place, library, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        shutil.copy2(os.path.realpath(self.perl), self.tree / "t/perl")

    def run(self, way, unit, place, log):
        """Runs one file of tests; what became of each, by its number and description."""
        tests = self.tree / "t"
        script = f"../lib/{unit[4:]}.t" if unit.startswith("lib/") else f"{unit}.t"
        # The tests write beside themselves; where they cannot, they have `place`.
        environment = {**way.environment(), "TMPDIR": str(place), "HOME": str(place), "PERL_CORE": "1"}
        # Perl wants to be told of this before it sees the line that says so.
        with open(tests / script, errors="replace") as file:
            taint = ["-T"] if re.match(r"#!.* -\w*T", file.readline()) else []
        ended = way.run(
            [way.seen(tests / "perl"), *taint, "-I../lib", script], way.seen(tests), environment, log, LIMIT
        )
        outcomes = {f"{unit} as a whole": "passed" if ended == 0 else f"ended with {ended}"}
        for line in log.read_text(errors="replace").splitlines():
            said = re.match(r"(not )?ok (\d+)([^#]*)(# (?:skip|TODO))?", line, re.IGNORECASE)
            if said:
                wrong, number, _, excused = said.groups()
                outcome = "skipped" if excused else "failure" if wrong else "passed"
                outcomes[f"{unit} {number}"] = outcome
        return outcomes


# Not about files, or minutes long, or in need of what the source or the build of perl has beside them (pod, blib).
LEFT_OUT = {"lib/blib", "lib/charnames", "lib/perl5db", "lib/h2xs", "lib/perlbug", "lib/locale", "lib/warnings", "lib/strict",
            "lib/feature", "lib/overload", "lib/diagnostics", "lib/Benchmark", "io/sem", "io/shm", "io/msg", "lib/locale_threads"}
