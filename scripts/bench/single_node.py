"""Measures Copper on one node against the native file systems, and judges the ratios.

Called by scripts/bench/single_node.sh, which builds what is needed. All variants run interleaved,
round by round; medians over the rounds are reported, as a Markdown table on standard output and as
JSON in the file given with --json.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORT = "import numpy, scipy.sparse, pandas"
PROCESSES_PER_ROUND = 5
CALLS = ["stat_hit", "stat_miss", "open_read_close", "list_300", "stat_uncovered"]
NAMES = {
    "stat_hit": "stat of an existing file, ns",
    "stat_miss": "stat of a missing file, ns",
    "open_read_close": "open, fstat, read 16 KiB, close, ns",
    "list_300": "opendir, 300 readdir, closedir, ns",
    "stat_uncovered": "stat of an uncovered path, ns",
    "start_true": "start of /bin/true, ms",
    "start_true_audit": "the same, with the audit library, ms",
    "load_200": "dlopen of 200 libraries along absolute search paths, ms",
    "load_200_audit": "the same, with the audit library, ms",
    "import": "import of numpy, scipy.sparse, pandas, s",
    "import_4": "the same, 4 processes at once, s",
    "import_slow": "import from the slow origin, 1 ms per operation, s",
    "import_slow_kept": "the same, the kernel keeps names and attributes for 1 s, s",
}


class Helper:
    """A helper of the benchmark's own; a context that stops it."""

    count = 0

    def __init__(self, bench, covered, options=()):
        Helper.count += 1
        self.place = bench.scratch / f"helper-{Helper.count}"
        self.place.mkdir()
        self.copper, self.covered = bench.release / "copper", [str(path) for path in covered]
        self.options = options
        self.environment = {
            "COPPER_RUNTIME_DIR": str(self.place / "run"),
            "COPPER_VIEW": str(self.place / "view"),
        }
        self.shimmed = {
            **self.environment,
            "COPPER_PATHS": ":".join(self.covered),
            "LD_PRELOAD": str(bench.release / "libcopper.so"),
        }
        self.audited = {
            **self.shimmed,
            "LD_AUDIT": str(bench.release / "libcopper_audit.so"),
            "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=4096",
        }

    def call(self, *arguments):
        return subprocess.run(
            [self.copper, *arguments], env={**os.environ, **self.environment}, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout

    def __enter__(self):
        # Into a file: the helper may keep what it inherits.
        with open(self.place / "start.log", "w") as log:
            subprocess.run(
                [self.copper, "start", *(f"--cover={path}" for path in self.covered), *self.options],
                env={**os.environ, **self.environment}, check=True, stdout=log, stderr=log,
            )
        return self

    def __exit__(self, *_):
        self.call("stop")

    @contextlib.contextmanager
    def uncounted(self):
        """Programs that start meanwhile find no counters behind the alarm page, and count nothing."""
        behind_alarm_page = 4096
        with open(self.place / "run" / "common", "r+b", buffering=0) as common:
            magic = os.pread(common.fileno(), 8, behind_alarm_page)
            os.pwrite(common.fileno(), bytes(8), behind_alarm_page)
            try:
                yield
            finally:
                os.pwrite(common.fileno(), magic, behind_alarm_page)

    def status(self):
        return json.loads(self.call("status", "--json"))


class Bench:
    def __init__(self, arguments):
        self.release = Path(arguments.release).resolve()
        self.packages = Path(arguments.packages).resolve()
        self.python = os.path.realpath(sys.executable)
        self.calls = arguments.calls
        self.rounds = arguments.rounds
        self.scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory))
        self.memory = Path(tempfile.mkdtemp(prefix="copper-bench-", dir="/dev/shm"))
        self.results = {}

    def clean(self):
        shutil.rmtree(self.scratch)
        shutil.rmtree(self.memory)

    def add(self, row, variant, value):
        self.results.setdefault(row, {}).setdefault(variant, []).append(value)

    def make_tree(self):
        """What `bench_calls` is run on."""
        tree = self.scratch / "tree"
        (tree / "small").mkdir(parents=True)
        (tree / "many").mkdir()
        for number in range(300):
            (tree / "small" / str(number)).write_bytes(os.urandom(16 * 1024))
            (tree / "many" / f"name-{number}").touch()
        (self.scratch / "uncovered").touch()
        return tree

    def prepare(self):
        tree = self.make_tree()
        self.first_library = build_closure(tree / "libraries")
        shutil.copytree(tree, self.memory / "tree")
        shutil.copytree(self.packages, self.memory / "packages", symlinks=True)

    def run(self, command, environment=None):
        return subprocess.run(
            [str(part) for part in command], env={**os.environ, **(environment or {})}, check=True,
            stdout=subprocess.PIPE, text=True,
        ).stdout

    def time_import(self, packages, environment=None, processes=1):
        environment = {
            **os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1", **(environment or {}),
        }
        start = time.perf_counter()
        running = [
            subprocess.Popen([self.python, "-c", IMPORT], env=environment) for _ in range(processes)
        ]
        failed = [process for process in running if process.wait() != 0]
        took = time.perf_counter() - start
        if failed:
            raise SystemExit(f"the import failed with {environment.get('LD_PRELOAD', 'no preload')}")
        return took

    def measure_calls(self, variant, mode, tree, environment=None):
        second = [self.scratch / "uncovered"] if mode == "warm" else []
        first = ["--first"] if mode == "cold" else []
        for line in self.run([self.calls, *first, tree, *second], environment).splitlines():
            name, value = line.split()
            self.add(name, variant, float(value))

    def call_round(self, warm):
        tree = self.scratch / "tree"
        # Where the kernel puts a process's memory makes up to a tenth of such short calls.
        for _ in range(PROCESSES_PER_ROUND):
            self.measure_calls("ext4", "warm", tree)
            self.measure_calls("tmpfs", "warm", self.memory / "tree")
            self.measure_calls("copper warm", "warm", tree, warm.shimmed)
            view = f"{warm.environment['COPPER_VIEW']}{tree}"
            self.measure_calls("view warm", "warm", view, warm.shimmed)
            with warm.uncounted():
                self.measure_calls("copper uncounted", "warm", tree, warm.shimmed)
        with warm.uncounted():
            self.time_start("start_true", "copper uncounted", warm.shimmed)
        with Helper(self, [tree]) as cold:
            self.measure_calls("copper cold", "cold", tree, cold.shimmed)
        self.loader_round(warm)

    def loader_round(self, warm):
        for start, load, environment in [
            ("start_true", "load_200", warm.shimmed),
            ("start_true_audit", "load_200_audit", warm.audited),
        ]:
            for _ in range(PROCESSES_PER_ROUND):
                self.time_start(start, "copper warm", environment)
                for variant, loaded_under in [("ext4", {}), ("copper warm", environment)]:
                    line = self.run([self.calls, "--load", self.first_library], loaded_under)
                    self.add(load, variant, float(line.split()[1]) / 1e6)

    def time_start(self, row, variant, environment):
        # What spawns the programs runs without what they run under.
        environment = dict(environment)
        environment["BENCH_PRELOAD"] = environment.pop("LD_PRELOAD")
        environment["BENCH_AUDIT"] = environment.pop("LD_AUDIT", "")
        lines = self.run([self.calls, "--spawn", "100"], environment).splitlines()
        for started, line in zip(["ext4", variant], lines):
            self.add(row, started, float(line.split()[1]) / 1e6)

    def import_round(self, warm):
        view = f"{warm.environment['COPPER_VIEW']}{self.packages}"
        for row, processes in [("import", 1), ("import_4", 4)]:
            self.add(row, "ext4", self.time_import(self.packages, None, processes))
            self.add(row, "tmpfs", self.time_import(self.memory / "packages", None, processes))
            self.add(row, "copper warm", self.time_import(self.packages, warm.shimmed, processes))
            self.add(row, "view warm", self.time_import(view, warm.shimmed, processes))
            with Helper(self, [self.packages]) as cold:
                took = self.time_import(self.packages, cold.shimmed, processes)
                self.add(row, "copper cold", took)

    def slow_round(self):
        mount = self.scratch / "slow"
        mount.mkdir(exist_ok=True)
        control = self.scratch / "slow.control"
        origin = subprocess.Popen(
            [self.release / "slow-origin", self.packages, mount, "--control", control],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        try:
            if origin.stdout.readline().strip() != "mounted":
                raise SystemExit("the slow origin could not be mounted; see above")
            for row, kept in [("import_slow", 0), ("import_slow_kept", 1000)]:
                tell(control, {"load": {"latency_us": 1000, "kept_by_kernel_ms": kept}})
                self.add(row, "plain", self.time_import(mount))
                with Helper(self, [mount]) as helper:
                    self.add(row, "copper cold", self.time_import(mount, helper.shimmed))
                    self.add(row, "copper warm", self.time_import(mount, helper.shimmed))
        finally:
            origin.stdin.close()
            origin.wait()

    def measure_memory(self, warm):
        status = warm.status()
        pid = status["pid"]
        own = 0
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            # Shared memory is the store and the catalog, which are counted by themselves.
            if line.startswith(("RssAnon", "RssFile")):
                own += int(line.split()[1]) * 1024
        used = own + status["memory"]["store_bytes"] + status["memory"]["catalog_bytes"]
        self.memory_used = {
            "cached_bytes": status["cached"]["bytes"], "used_bytes": used, "own_bytes": own,
            "limit_bytes": int(1.05 * status["cached"]["bytes"] + 20e6),
        }
        before = cpu_ticks(pid)
        time.sleep(3)
        self.idle_ticks = cpu_ticks(pid) - before

    def measure(self):
        self.prepare()
        with Helper(self, [self.scratch / "tree", self.packages]) as warm:
            self.time_import(self.packages)
            self.time_import(self.memory / "packages")
            self.time_import(self.packages, warm.shimmed)
            for number in range(self.rounds):
                print(f"round {number + 1} of {self.rounds}", file=sys.stderr)
                self.call_round(warm)
                self.import_round(warm)
            self.measure_memory(warm)
        for number in range(max(1, self.rounds // 3)):
            print(f"slow origin, round {number + 1}", file=sys.stderr)
            self.slow_round()


def build_closure(place, count=200, directories=8):
    """Libraries that need each other, in directories that they name by absolute paths."""
    paths = [place / f"lib{number}" for number in range(directories)]
    for path in paths:
        path.mkdir(parents=True)
    rpath = "-Wl,--enable-new-dtags,-rpath," + ":".join(map(str, paths))

    def file(number):
        return paths[number % directories] / f"libpart{number}.so.1"

    for number in reversed(range(count)):
        needs = [other for other in (2 * number + 1, 2 * number + 2) if other < count]
        text = "".join(f"int part{other}(void);\n" for other in needs)
        calls = " + ".join(["1", *(f"part{other}()" for other in needs)])
        text += f"int part{number}(void) {{ return {calls}; }}\n"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", file(number), "-x", "none",
             f"-Wl,-soname,{file(number).name}", *map(file, needs), rpath],
            input=text.encode(), check=True,
        )
    return file(0)


def tell(control, command):
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(control))
        connection.sendall(json.dumps(command).encode() + b"\n")
        connection.recv(4096)


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def machine():
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()), "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def judge(medians, memory, idle_ticks):
    """The conditions, each with what was measured and whether it holds."""

    def ratio(row, variant, to):
        return medians[row][variant] / medians[row][to]

    def difference(row, scale=1):
        return (medians[row]["copper warm"] - medians[row]["ext4"]) * scale

    slow, kept = medians["import_slow"], medians["import_slow_kept"]
    rows = [
        ("stat hit, to native ext4", ratio("stat_hit", "copper warm", "ext4"), 0.15, "x"),
        ("stat hit, to one that is not counted",
         ratio("stat_hit", "copper warm", "copper uncounted"), 1.05, "x"),
        ("stat miss, to native ext4", ratio("stat_miss", "copper warm", "ext4"), 0.15, "x"),
        ("opendir and readdir, to native ext4", ratio("list_300", "copper warm", "ext4"), 0.10, "x"),
        ("open, fstat, read, close, to native tmpfs",
         ratio("open_read_close", "copper warm", "tmpfs"), 1.10, "x"),
        ("uncovered stat, more than native", difference("stat_uncovered"), 30, "ns"),
        ("start of /bin/true, more than native", difference("start_true"), 0.15, "ms"),
        ("the same with the audit library",
         (medians["start_true_audit"]["copper warm"] - medians["start_true_audit"]["ext4"]), 0.25, "ms"),
        ("dlopen of 200 libraries, to native warm ext4",
         ratio("load_200", "copper warm", "ext4"), 1.05, "x"),
        ("the same with the audit library",
         ratio("load_200_audit", "copper warm", "ext4"), 1.05, "x"),
        ("warm import, to native warm ext4", ratio("import", "copper warm", "ext4"), 1.00, "x"),
        ("cold import, to native warm ext4", ratio("import", "copper cold", "ext4"), 1.25, "x"),
        ("warm import from the slow origin, to plain", slow["copper warm"] / slow["plain"], 0.10, "x"),
        ("the same, the kernel keeps names for 1 s", kept["copper warm"] / kept["plain"], 0.10, "x"),
        ("memory used, to 1.05 x cached bytes + 20 MB",
         memory["used_bytes"] / memory["limit_bytes"], 1.00, "x"),
        ("processor time of an idle helper in 3 s", idle_ticks * 10, 10, "ms"),
    ]
    return [
        {"what": what, "measured": round(measured, 4), "limit": limit, "unit": unit,
         "holds": measured <= limit}
        for what, measured, limit, unit in rows
    ]


def print_tables(report):
    where = report["machine"]
    print(f"Machine: {where['cpu']}, {where['cores']} cores, Linux {where['kernel']}, "
          f"{where['libc']}, Python {where['python']}, load {where['load_average']:.1f} at the start. "
          f"Medians of {report['rounds']} rounds, interleaved, of single calls with {PROCESSES_PER_ROUND} processes in each.\n")
    variants = ["ext4", "tmpfs", "copper warm", "copper uncounted", "view warm", "copper cold",
                "plain"]
    titles = ["native ext4 warm", "native tmpfs", "copper warm", "the same, not counted", "view warm",
              "copper cold",
              "slow origin plain"]
    print("| |", " | ".join(titles), "|")
    print("|---|" + "---:|" * len(titles))
    for row, name in NAMES.items():
        medians = report["medians"].get(row, {})
        cells = [number(medians.get(variant)) for variant in variants]
        print(f"| {name} |", " | ".join(cells), "|")
    print("\n| condition | measured | limit | |\n|---|---:|---:|---|")
    for row in report["conditions"]:
        verdict = "holds" if row["holds"] else "**falls short**"
        print(f"| {row['what']} | {number(row['measured'])} {row['unit']} | "
              f"{row['limit']} {row['unit']} | {verdict} |")
    memory = report["memory"]
    print(f"\nHelper: {memory['cached_bytes'] / 1e6:.1f} MB cached, {memory['used_bytes'] / 1e6:.1f} "
          f"MB used in all, {memory['own_bytes'] / 1e6:.1f} MB of it the process's own.")


def number(value):
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def arguments_of(about):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--release", required=True, help="cargo's release directory")
    parser.add_argument("--packages", required=True, help="directory with numpy, scipy and pandas")
    parser.add_argument("--calls", required=True, help="the compiled bench_calls")
    parser.add_argument("--directory", default="/var/tmp", help="scratch directory on ext4")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="file for the report")
    return parser.parse_args()


def measured(bench):
    """Has a bench measure and clean up; the medians, by row and variant."""
    try:
        bench.measure()
    finally:
        bench.clean()
    return {
        row: {variant: statistics.median(values) for variant, values in by_variant.items()}
        for row, by_variant in bench.results.items()
    }


def main():
    arguments = arguments_of(__doc__)
    where = machine()
    bench = Bench(arguments)
    medians = measured(bench)
    report = {
        "machine": where, "rounds": arguments.rounds, "medians": medians,
        "all": bench.results, "memory": bench.memory_used,
        "conditions": judge(medians, bench.memory_used, bench.idle_ticks),
    }
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    print_tables(report)


if __name__ == "__main__":
    main()
