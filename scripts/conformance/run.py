"""Runs suites of others plain and under Copper, and compares what became of each of their tests.

Called by scripts/conformance.sh, which builds what is needed. Every unit of a suite (a module, a file
of tests, a scenario) runs twice plain, with its tree on a covered path, and through the view; what
differs there is compared with a plain run on a read-only mount. What becomes of a test is kept as JSON
under --results, and the whole is written as a Markdown document.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cpython
import git
import perl
import sessions

# Beginnings of names of tests whose outcome differs for a reason that a user would accept.
EXPLAINED = {}


class Runner:
    def __init__(self, arguments, suite, base):
        self.suite, self.base, self.user = suite, base, arguments.user
        self.release, self.quick = Path(arguments.release).resolve(), arguments.quick
        self.results = Path(arguments.results) / (str(self.user) if self.user is not None else "root")
        self.logs = self.results / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    def ways(self):
        tree = self.base / "covered"
        ways = [sessions.Plain(self.user), sessions.Covered(self.user, self.release, tree)]
        if not self.quick and not getattr(self.suite, "writes", False):
            ways.append(sessions.View(self.user, self.release, tree / "nothing"))
        return ways

    def once(self, way, unit):
        # The same place every time: what some tests do depends on the length of a path.
        place = self.base / ("covered" if way.writable else "elsewhere") / "work"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if self.user is not None:
            os.chown(place, self.user, self.user)
        log = self.logs / f"{as_name(unit)}.{way.name}.log"
        outcomes = self.suite.run(way, unit, place, log)
        shutil.rmtree(place, ignore_errors=True)
        return outcomes

    def unit(self, ways, unit):
        """All ways through one unit; a covered way that differs is given a second try, and told of."""
        start, results = time.monotonic(), {}
        plain, *others = ways
        results["plain"] = [self.once(plain, unit)]
        if not self.quick:
            results["plain"].append(self.once(plain, unit))
        for way in others:
            results[way.name] = [self.once(way, unit)]
            if self.differences(results, way.name) and isinstance(way, sessions.View) and os.getuid() == 0:
                results["read-only"] = [self.once(sessions.ReadOnly(self.user, self.suite.tree), unit)]
            if self.differences(results, way.name):
                results[way.name].append(self.once(way, unit))
                results["plain"].append(self.once(plain, unit))
        results["seconds"] = round(time.monotonic() - start, 1)
        return results

    @staticmethod
    def differences(results, way):
        """The tests that do not have, in each run of this way, what they had in a run they can have had."""
        references = results["plain"]
        if way == "view" and "read-only" in results:
            references = [*results["read-only"], *references] if unstable(references) else results["read-only"]
        found = []
        for test in sorted(set().union(*references, *results[way])):
            allowed = {run.get(test) for run in references}
            if all(run.get(test) not in allowed for run in results[way]):
                found.append((test, sorted(map(str, allowed)), str(results[way][-1].get(test))))
        return found


def as_name(unit):
    """The unit's name as the name of a file."""
    return unit.replace("/", "-").replace(" ", "-")


def unstable(runs):
    """The tests that the plain runs do not agree on."""
    return [test for test in sorted(set().union(*runs)) if len({run.get(test) for run in runs}) > 1]


def explained(test):
    return next((reason for name, reason in EXPLAINED.items() if test.startswith(name)), None)


def run_suite(arguments, suite, base):
    """Runs the wanted units; returns the results of all units that there are results of."""
    runner = Runner(arguments, suite, base)
    name = suite.title.split()[0].lower()
    directory = runner.results / name
    directory.mkdir(exist_ok=True)
    wanted = suite.quick if arguments.quick else suite.units
    if arguments.units:
        wanted = [unit for unit in suite.units if unit in arguments.units]
    file_of = lambda unit: directory / f"{as_name(unit)}.json"
    if arguments.missing:
        wanted = [unit for unit in wanted if not file_of(unit).exists()]
    if wanted:
        shutil.rmtree(base / "covered", ignore_errors=True)
        for place in ("covered/nothing", "elsewhere"):
            (base / place).mkdir(parents=True, exist_ok=True)
        suite.prepare()
        if arguments.user is not None:
            subprocess.run(["chown", "-R", f"{arguments.user}:{arguments.user}", base], check=True)
        plain, *ways = runner.ways()
        entered = [way.__enter__() for way in ways]
        try:
            for unit in wanted:
                results = runner.unit([plain, *entered], unit)
                file_of(unit).write_text(json.dumps(results, indent=1))
                shown = [f"{way}: {count(results[way][-1])}" for way in ("plain", "covered", "view") if way in results]
                print(f"{unit}: {', '.join(shown)} ({results['seconds']} s)", flush=True)
        finally:
            for way in entered:
                way.__exit__(None, None, None)
                if not way.served["asked"]["total"]:
                    raise SystemExit(f"nothing was served to the {way.name} runs")
    return {unit: json.loads(file_of(unit).read_text()) for unit in suite.units if file_of(unit).exists()}


def count(outcomes):
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    return f"{passed} passed"


def tell(suite, results):
    """Prints the differences of a suite; returns how many are not explained."""
    bad = 0
    for unit, result in results.items():
        if not row(result)[0]:
            bad += 1
            print(f"{suite.title}: {unit}: nothing passes in the plain run", file=sys.stderr)
        for way in ("covered", "view"):
            for test, expected, got in Runner.differences(result, way) if way in result else []:
                if explained(test) is None:
                    bad += 1
                    print(f"{suite.title}: {way}: {test}: plain {expected}, got {got}"[:2000], file=sys.stderr)
    return bad


def document(all_results, path):
    """Writes what became of everything."""
    lines = [INTRODUCTION]
    for user, suites in all_results:
        who = "root" if user == "root" else f"the user {user}"
        for title, results, missing in suites:
            lines += [f"## {title}, as {who}", "", HEAD]
            total = [None] * 4
            for unit, result in results.items():
                numbers = row(result)
                total = [one if number is None else (one or 0) + number for one, number in zip(total, numbers)]
                lines.append(f"| {unit} | {cells(numbers)} |")
            lines += [f"| **all** | {cells(total)} |", ""]
            lines += remarks(results)
            if missing:
                lines += [f"Without a result in this run (`--missing` makes it): {', '.join(missing)}.", ""]
    path.write_text("\n".join(lines).rstrip() + "\n")


def row(result):
    passed = lambda way: sum(outcome == "passed" for outcome in result[way][-1].values()) if way in result else None
    skipped = sum(outcome == "skipped" for outcome in result["plain"][-1].values())
    return [passed("plain"), passed("covered"), passed("view"), skipped]


def cells(numbers):
    return " | ".join("" if number is None else str(number) for number in numbers)


def remarks(results):
    differences, shaky, read_only, once = [], [], [], []
    for unit, result in results.items():
        shaky += unstable(result["plain"])
        if "read-only" in result:
            changed = [test for test in result["plain"][0] if result["plain"][0][test] != result["read-only"][0].get(test)]
            read_only.append(f"{unit} ({len(changed)})")
        for way in ("covered", "view"):
            if way not in result:
                continue
            for test, expected, got in Runner.differences(result, way):
                reason = explained(test) or "**not explained**"
                differences.append(f"- `{test}`, {way}: {got[:200]} instead of {', '.join(expected)[:200]}: {reason}")
            if len(result[way]) > 1 and not Runner.differences(result, way):
                once.append(f"`{unit}` ({way})")
    said = ["Differences: none." if not differences else "Differences:", *differences, ""]
    if shaky:
        said += [f"Not the same in all plain runs: {', '.join(f'`{test}`' for test in shaky)}.", ""]
    if once:
        said += [f"Differed in one run and not in the next: {', '.join(once)}.", ""]
    if read_only:
        said += [
            "In the view compared with a plain run on a read-only mount, where tests that write beside "
            f"their modules end otherwise than on a writable tree: {', '.join(read_only)}.", "",
        ]
    return said


HEAD = "| what | passed plain | passed covered | passed in the view | skipped |\n|---|---|---|---|---|"
INTRODUCTION = f"""# Conformance

Test suites of other projects, run plain and under the shim; written by `scripts/conformance.sh`. What is
compared is what became of each single test, by its id, not the numbers below. Each suite lies, with its
interpreter, its library and the directory it writes to, in a tree that is

- not covered (plain, twice, so that tests which are not the same each time are known);
- below a covered prefix: what is written passes through, and the same node must see it at once;
- read through the view, which is read-only; what is written is then outside. Where a test ends otherwise
  than plain, it must end as on a read-only mount of the tree.

A suite that differs is run a second time, and both runs count as a difference only if neither gives what
a plain run gave; what differed once is named. git's own suite needs a program of git's build, so git is
seen at work instead: what it says, and what lies in the work tree and the repository afterwards, byte by
byte. Perl's tests come from its source and run on the installed modules. The machine: Linux {platform.release()}, glibc
{platform.libc_ver()[1]}, {os.cpu_count()} cores.
"""


def suites_of(arguments, tree):
    suites = [cpython.Suite(tree), git.Suite(tree)]
    if arguments.perl:
        suites.insert(1, perl.Suite(tree, arguments.perl))
    wanted = arguments.suite
    return [suite for suite in suites if not wanted or suite.title.split()[0].lower() in wanted]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--perl", help="the source of perl")
    parser.add_argument("--suite", action="append", help="only this one: cpython, perl, git")
    parser.add_argument("--quick", action="store_true", help="the short units, plain and covered, once")
    parser.add_argument("--missing", action="store_true", help="only units without a result")
    parser.add_argument("--user", type=int, help="as this user instead of the one who calls")
    parser.add_argument("--document", help="write the results of all users to this file")
    parser.add_argument("units", nargs="*", help="only these")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="conformance-", dir=os.environ.get("COPPER_TEST_DIR", "/var/tmp")))
    base.chmod(0o755)
    try:
        suites = suites_of(arguments, base / "covered")
        bad = sum(tell(suite, run_suite(arguments, suite, base)) for suite in suites)
    finally:
        subprocess.run(["rm", "-rf", base], check=True)
    if arguments.document:
        results = Path(arguments.results)
        users = [user for user in sorted(os.listdir(results), reverse=True)]
        document([(user, read(results / user, suites)) for user in users], Path(arguments.document))
    if bad:
        raise SystemExit(f"{bad} differences without an explanation")
    print("the same tests pass plain and under Copper")


def read(directory, suites):
    """The kept results of one user."""
    found = []
    for suite in suites:
        place = directory / suite.title.split()[0].lower()
        file_of = lambda unit: place / f"{as_name(unit)}.json"
        results = {unit: json.loads(file_of(unit).read_text()) for unit in suite.units if file_of(unit).exists()}
        if results:
            missing = [unit for unit in suite.units if unit not in results]
            found.append((suite.title, results, missing))
    return found


if __name__ == "__main__":
    main()
