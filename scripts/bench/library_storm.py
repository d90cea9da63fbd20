"""Measures a library storm: hundreds of shared libraries and extension modules, imported and called.

Called by scripts/bench/library_storm.sh, which builds what is needed. All variants run interleaved,
round by round; medians are reported as a Markdown table and as JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from single_node import Helper, machine, tell

VARIANTS = ["native warm", "copper warm", "copper warm, audit library", "copper cold", "view warm"]
SLOW = ["native", "copper cold", "copper warm", "copper warm, audit library"]


class Bench:
    def __init__(self, arguments):
        self.release = Path(arguments.release).resolve()
        self.arguments = arguments
        self.scratch = Path(tempfile.mkdtemp(prefix="storm-", dir=arguments.directory))
        self.storm = self.scratch / "storm"
        self.own = SimpleNamespace(scratch=self.scratch, release=self.release)
        self.results, self.operations, self.answer = {}, {}, None

    def generate(self):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, Path(__file__).with_name("storm.py"), self.storm,
             "--libraries", str(self.arguments.libraries), "--modules", str(self.arguments.modules),
             "--rpath", self.arguments.rpath], check=True,
        )
        self.generation = time.perf_counter() - start

    def run(self, name, storm, environment=None):
        """Runs the storm; what it prints is the same every way."""
        clean = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        start = time.perf_counter()
        said = subprocess.run(
            [os.path.realpath(sys.executable), "-I", storm / "run.py"], env=clean, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout
        took = time.perf_counter() - start
        if self.answer not in (None, said):
            raise SystemExit(f"{name}: the storm says {said!r} instead of {self.answer!r}")
        self.answer = said
        self.results.setdefault(name, []).append(took)

    def measure(self):
        self.run("warming", self.storm)
        with Helper(self.own, [self.storm]) as warm:
            self.run("warming", self.storm, warm.shimmed)
            view = Path(f"{warm.environment['COPPER_VIEW']}{self.storm}")
            self.run("warming", view, warm.shimmed)
            self.run("warming", self.storm, warm.audited)
            for number in range(self.arguments.rounds):
                print(f"round {number + 1} of {self.arguments.rounds}", file=sys.stderr)
                self.run("native warm", self.storm)
                self.run("copper warm", self.storm, warm.shimmed)
                self.run("copper warm, audit library", self.storm, warm.audited)
                self.run("view warm", view, warm.shimmed)
                with Helper(self.own, [self.storm]) as cold:
                    self.run("copper cold", self.storm, cold.shimmed)

    def measure_slow(self):
        mount, control = self.scratch / "slow", self.scratch / "slow.control"
        mount.mkdir()
        origin = subprocess.Popen(
            [self.release / "slow-origin", self.storm, mount, "--control", control],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        try:
            if origin.stdout.readline().strip() != "mounted":
                raise SystemExit("the slow origin could not be mounted; see above")
            tell(control, {"load": {"latency_us": self.arguments.latency_us, "kept_by_kernel_ms": 0}})
            for number in range(max(1, self.arguments.rounds // 3)):
                print(f"slow origin, round {number + 1}", file=sys.stderr)
                self.run("slow: native", mount)
                with Helper(self.own, [mount]) as helper:
                    self.run("slow: copper cold", mount, helper.shimmed)
                    self.run("slow: copper warm", mount, helper.shimmed)
                    self.run("slow: copper warm, audit library", mount, helper.audited)
        finally:
            origin.stdin.close()
            origin.wait()


def table(medians, latency):
    lines = ["| | seconds | to native |", "|---|---|---|"]
    for prefix, variants, title in [("", VARIANTS, ""), ("slow: ", SLOW, f"slow origin, {latency} µs per operation: ")]:
        native = medians[f"{prefix}{variants[0]}"]
        for variant in variants:
            seconds = medians[f"{prefix}{variant}"]
            lines.append(f"| {title}{variant} | {seconds:.3f} | {seconds / native:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--libraries", type=int, default=300)
    parser.add_argument("--modules", type=int, default=150)
    parser.add_argument("--rpath", choices=["origin", "absolute"], default="origin")
    parser.add_argument("--latency-us", type=int, default=200, help="of each operation on the slow origin")
    parser.add_argument("--directory", default="/var/tmp", help="where the libraries are made")
    bench = Bench(parser.parse_args())
    try:
        bench.generate()
        bench.measure()
        bench.measure_slow()
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)
    medians = {name: statistics.median(values) for name, values in bench.results.items() if name != "warming"}
    arguments = bench.arguments
    print(f"{arguments.libraries} libraries and {arguments.modules} extension modules, "
          f"search paths {arguments.rpath}; made in {bench.generation:.0f} s\n")
    print(table(medians, arguments.latency_us))
    Path(arguments.json).write_text(json.dumps({
        "machine": machine(), "libraries": arguments.libraries, "modules": arguments.modules,
        "rpath": arguments.rpath, "slow_latency_us": arguments.latency_us, "generation_seconds": bench.generation,
        "medians": medians, "runs": {name: values for name, values in bench.results.items() if name != "warming"},
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
