"""Measures helpers on several nodes beside the provider and the memory they stand on; see tree.sh."""

import argparse
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

CLUSTER = Path(__file__).resolve().parents[1] / "cluster.sh"
PREFIX = "bench-"
SIZES = [64, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 4 << 20]
CHAIN = 4
GIB = 1 << 30
IMPORT_FILES, IMPORT_DIRECTORIES = 1500, 75
# Nanoseconds of processor time, by the scheduler's own account.
SCHEDSTAT = "/proc/{}/task/{}/schedstat"


def run(command, **options):
    return subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, **options
    ).stdout


class Nodes:
    """A cluster; a context that takes it down."""

    def __init__(self, count, share):
        self.count, self.share = count, share

    def __enter__(self):
        subprocess.run([CLUSTER, "down", "--prefix", PREFIX], check=True)
        out = run([CLUSTER, "up", self.count, "--prefix", PREFIX, "--share", self.share])
        self.hosts = out.split()
        return self

    def __exit__(self, *_):
        subprocess.run([CLUSTER, "down", "--prefix", PREFIX], check=True)

    def through(self, node):
        """What to put before a command that is to run on a node."""
        return [CLUSTER, "--prefix", PREFIX, "exec", self.hosts[node], "--"]

    def on(self, node, command, before=(), **options):
        """Runs a command on a node; `before` is what starts it there."""
        return run([*self.through(node), *before, *command], **options)

    def address(self, node):
        return self.on(node, ["getent", "hosts", self.hosts[node]]).split()[0]


class Job:
    """Helpers on all nodes of a cluster; a context that stops them."""

    def __init__(self, bench, nodes, covered, *arguments, bound=False):
        self.bench, self.nodes, self.covered = bench, nodes, covered
        self.arguments = arguments
        self.taskset = ["taskset", "-c", bench.core] if bound else []
        self.copper = bench.release / "copper"

    def __enter__(self):
        begun = time.perf_counter()
        self.nodes.on(0, [
            self.copper, "start", "--launcher", "local", "--hosts", ",".join(self.nodes.hosts),
            "--cover", self.covered, *self.arguments,
        ], self.taskset, stderr=subprocess.DEVNULL)
        self.start_seconds = time.perf_counter() - begun
        return self

    def __exit__(self, *_):
        self.nodes.on(0, [self.copper, "stop"])

    def status(self, node):
        return json.loads(self.nodes.on(node, [self.copper, "status", "--json"]))

    def pids(self):
        return [self.status(node)["pid"] for node in range(self.nodes.count)]

    def calls(self, node, kind, paths):
        """Times calls on a node under the shim: median and sum, in seconds."""
        shimmed = [
            "env", f"COPPER_PATHS={self.covered}",
            f"LD_PRELOAD={self.bench.release / 'libcopper.so'}",
        ]
        listing = "".join(f"{path}\n" for path in paths)
        command = [self.bench.calls, kind]
        return timed(self.nodes.on(node, command, [*self.taskset, *shimmed], input=listing))


def timed(printed):
    """What tree_calls printed, in seconds."""
    median, total = printed.split()
    return float(median) / 1e9, float(total) / 1e9


class Bench:
    def __init__(self, arguments):
        self.release = Path(arguments.release).resolve()
        self.calls = Path(arguments.calls).resolve()
        self.rounds, self.core = arguments.rounds, str(arguments.core)
        self.scratch = Path(tempfile.mkdtemp(prefix="copper-bench-", dir=arguments.directory))
        self.scratch.chmod(0o755)
        self.report = {}

    def clean(self):
        shutil.rmtree(self.scratch)

    def fabric(self, raw, *arguments, bound, nodes=None):
        """Adds one measurement of the provider's own figures, by name; returns who it is. It is made
        between the first two nodes, or on this machine's loopback."""
        file = self.scratch / "fabric.json"
        command = ["taskset", "-c", self.core] if bound else []
        command += [
            self.release / "examples/fabric_bench", "measure", "--repeats", "1", "--json", file,
            *arguments,
        ]
        if nodes:
            own, other = (nodes.address(node) for node in [0, 1])
            through = " ".join(str(word) for word in nodes.through(1))
            nodes.on(0, command + ["--peer-through", through, "--peer-address", other],
                     ["env", f"FABRIC_TEST_ADDRESS={own}"])
        else:
            run(command)
        report = json.loads(file.read_text())
        provider = report["providers"][0]
        for figure in provider["figures"] + report["memory"]:
            raw.setdefault(figure["name"], []).append(figure)
        return f"libfabric {report['libfabric']}, {provider['provider']}"

    def many(self, name, count, size):
        """A directory of `count` files of `size` bytes each."""
        directory = self.scratch / name
        directory.mkdir()
        contents = os.urandom(size)
        for number in range(count):
            (directory / f"{number:05}").write_bytes(number.to_bytes(8, "little") + contents[8:])
        return sorted(directory.iterdir())

    # Round trips

    def round_trips(self):
        """Calls that ask a helper once, and through it others: through 0 to 3 hops."""
        raw, rows = {}, {}
        samples = {size: max(9, min(200, (8 << 20) // size)) for size in SIZES}
        trees = {
            size: self.many(f"size-{size}", self.rounds * samples[size] * CHAIN, size)
            for size in SIZES
        }
        names = self.many("names", self.rounds * 200 * CHAIN, 8)
        with Nodes(CHAIN, self.scratch) as nodes:
            # Directories are served name by name, so that each look-up is a question.
            chain = ["--trees", "1", "--fan-out", "1", "--directory-limit", "100"]
            with Job(self, nodes, self.scratch, *chain, bound=True) as job:
                # What the nodes below will ask for is known to the root; the rest it asks the origin.
                job.calls(0, "stat", names[self.rounds * 200:])
                for size, paths in trees.items():
                    job.calls(0, "open", paths[self.rounds * samples[size]:])
                for round in range(self.rounds):
                    # Right beside one another: the machine may not stay as quiet as it is.
                    provider = self.fabric(raw, "--mebibytes", "8", bound=True, nodes=nodes)
                    for depth in range(CHAIN):
                        place = depth * self.rounds + round
                        fresh = names[place * 200:][:200]
                        rows.setdefault(("stat", depth), []).append(job.calls(depth, "stat", fresh)[0])
                        for size, paths in trees.items():
                            fresh = paths[place * samples[size]:][:samples[size]]
                            # Known by name beforehand: only the contents are asked for.
                            job.calls(depth, "stat", fresh)
                            rows.setdefault((size, depth), []).append(job.calls(depth, "open", fresh)[0])
        self.print_round_trips(provider, raw, rows)

    def print_round_trips(self, provider, raw, rows):
        print(f"\n### Round trips\n\nWhat a program waits for a call that asks its helper once, and that "
              "helper its parents once; the root knows the answer, but for depth 0, where the root asks "
              "the origin (a local disk's cache). All processes on one core, sleeping while they wait. "
              f"{provider}: its round trip between two of the nodes. µs, medians of {self.rounds} "
              "rounds.\n")
        print("| | provider's own | depth 0 | depth 1 | depth 2 | depth 3 | depth 1 / provider | "
              "each further hop / provider |")
        print("|---|" + "---:|" * 7)
        for what in ["stat", *SIZES]:
            size = 64 if what == "stat" else what
            own = 2 * median_of(raw, f"half round trip, {size} B, sleeping")
            cells = [statistics.median(rows[(what, depth)]) * 1e6 for depth in range(CHAIN)]
            name = "stat of a new name" if what == "stat" else f"open of a new file of {show(what)}"
            first, further = cells[1] / own, (cells[3] - cells[1]) / 2 / own
            print(f"| {name} | {own:.1f} |", " | ".join(f"{cell:.1f}" for cell in cells),
                  f"| {first:.2f} | {further:.2f} |")
            self.report.setdefault("round_trips", {})[str(what)] = {
                "provider_us": own, "depth_us": cells, "first_hop_to_provider": first,
                "further_hop_to_provider": further,
            }

    # A gigabyte

    def gigabyte(self):
        """One file of 1 GiB, known to the root, opened on a node one or three hops below."""
        file = self.scratch / "gigabyte"
        with open(file, "wb") as sink:
            block = os.urandom(8 << 20)
            for _ in range(GIB // len(block)):
                sink.write(block)
        raw, rates, cpu = {}, {1: [], 3: []}, {1: [], 3: []}
        with Nodes(CHAIN, self.scratch) as nodes:
            for _ in range(self.rounds):
                provider = self.fabric(raw, "--mebibytes", "1024", bound=False)
                for depth in [1, 3]:
                    with Job(self, nodes, self.scratch, "--trees", "1", "--fan-out", "1") as job:
                        job.calls(0, "open", [file])
                        pids = job.pids()
                        before = sum(map(processor_seconds, pids))
                        seconds, _ = job.calls(depth, "open", [file])
                        # Interior nodes may still be at work.
                        time.sleep(0.2)
                        cpu[depth].append((sum(map(processor_seconds, pids)) - before) / depth)
                        rates[depth].append(GIB / 1e9 / seconds)
                        if job.status(depth)["cached"]["bytes"] < GIB:
                            raise SystemExit("the gigabyte did not get into the store")
        file.unlink()
        self.print_gigabyte(provider, raw, rates, cpu)

    def print_gigabyte(self, provider, raw, rates, cpu):
        print(f"\n### 1 GiB\n\nFrom the root's store into fresh files of the stores of nodes below. "
              f"{provider}. Medians of {self.rounds}; processor time is that of all helpers, per hop "
              "(three hops share the same cores as one).\n")
        print("| | GB/s | processor s per GB and hop |\n|---|---:|---:|")
        names = [
            ("memcpy into a fresh mapping of tmpfs", "memcpy into a fresh mapping of tmpfs"),
            ("raw reads of 1 MiB into a fresh mapping of tmpfs", "reads of 1024 KiB into tmpfs: mapping, faults"),
            ("raw reads of 1 MiB into buffers, written to a fresh file",
             "reads of 1024 KiB into tmpfs: ring of buffers and pwrite"),
        ]
        for name, key in names:
            cpu_per_gigabyte = median_of(raw, key, "cpu_seconds_per_gigabyte")
            print(f"| {name} | {median_of(raw, key):.2f} | {cpu_per_gigabyte:.2f} |")
        medians = {}
        for depth in [1, 3]:
            rate = statistics.median(rates[depth])
            per_hop = statistics.median(cpu[depth]) / (GIB / 1e9)
            medians[depth] = (rate, per_hop)
            print(f"| Copper, through depth {depth} | {rate:.2f} | {per_hop:.2f} |")
        own, best = median_of(raw, names[1][1]), median_of(raw, names[2][1])
        ratios = {
            "one hop to raw reads into fresh tmpfs": medians[1][0] / own,
            "one hop to raw reads the best way": medians[1][0] / best,
            "processor time per hop, three hops to one": medians[3][1] / medians[1][1],
        }
        print()
        for name, ratio in ratios.items():
            print(f"- {name}: {ratio:.2f}")
        self.report["gigabyte"] = {
            "rates": rates, "cpu_seconds_per_hop": cpu, "ratios": ratios,
            "raw": {name: raw[key] for name, key in names},
        }

    # An import's files

    def import_files(self):
        """1,500 files in 75 directories, read cold by one process: all from the origin, once."""
        tree = self.scratch / "import"
        paths = []
        for number in range(IMPORT_FILES):
            directory = tree / f"package-{number % IMPORT_DIRECTORIES}"
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"module-{number}.py"
            # From 1 to 40 KB, 11 KB on average.
            path.write_bytes(os.urandom(1000 + 39_000 * (number % 17) // 17 * (number % 5) // 3))
            paths.append(path)
        seconds = {depth: [] for depth in ["native", 0, 1, 2, 3]}
        with Nodes(CHAIN, self.scratch) as nodes:
            for _ in range(self.rounds):
                listing = "".join(f"{path}\n" for path in paths)
                seconds["native"].append(timed(run([self.calls, "read"], input=listing))[1])
                for depth in range(CHAIN):
                    with Job(self, nodes, tree, "--trees", "1", "--fan-out", "1") as job:
                        seconds[depth].append(job.calls(depth, "read", paths)[1])
        print(f"\n### {IMPORT_FILES} files in {IMPORT_DIRECTORIES} directories, cold\n\nRead by one process, "
              f"the helpers' caches empty, the origin a local disk's cache. Medians of {self.rounds}.\n")
        print("| without Copper | depth 0 | depth 1 | depth 2 | depth 3 |\n|---:|---:|---:|---:|---:|")
        medians = {depth: statistics.median(values) for depth, values in seconds.items()}
        print("|", " | ".join(f"{value * 1e3:.0f} ms" for value in medians.values()), "|")
        self.report["import"] = {str(depth): values for depth, values in seconds.items()}

    # Starting

    def start(self):
        empty = self.scratch / "empty"
        empty.mkdir(exist_ok=True)
        print(f"\n### `copper start` until all helpers are ready\n\nMedians of {self.rounds}; memory of a "
              "helper right after the start: the process's own pages, and its part of shared ones.\n")
        print("| helpers | s | slowest, s | own MiB | proportional MiB |\n|---:|---:|---:|---:|---:|")
        for count in [2, 8, 32]:
            with Nodes(count, self.scratch) as nodes:
                seconds, own, proportional = [], [], []
                for _ in range(self.rounds):
                    with Job(self, nodes, empty) as job:
                        seconds.append(job.start_seconds)
                        memory = [memory_of(pid) for pid in job.pids()]
                        own += [of["own"] for of in memory]
                        proportional += [of["proportional"] for of in memory]
            row = {
                "seconds": seconds, "own_mib": statistics.median(own),
                "proportional_mib": statistics.median(proportional),
            }
            print(f"| {count} | {statistics.median(seconds):.2f} | {max(seconds):.2f} | "
                  f"{row['own_mib']:.1f} | {row['proportional_mib']:.1f} |")
            self.report.setdefault("start", {})[str(count)] = row

    # Idle

    def idle(self):
        empty = self.scratch / "empty"
        empty.mkdir(exist_ok=True)
        count, seconds = 8, 30
        with Nodes(count, self.scratch) as nodes, Job(self, nodes, empty) as job:
            pids = job.pids()
            time.sleep(3)
            before = [processor_seconds(pid) for pid in pids]
            time.sleep(seconds)
            used = [processor_seconds(pid) - earlier for pid, earlier in zip(pids, before)]
        share = [of / seconds * 100 for of in used]
        print(f"\n### Idle\n\n{count} helpers for {seconds} s: {statistics.median(share):.3f} % of a core each "
              f"(median), {max(share):.3f} % at most.")
        self.report["idle_percent"] = share


def median_of(raw, name, field="median"):
    return statistics.median(figure[field] for figure in raw[name])


def processor_seconds(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(Path(SCHEDSTAT.format(pid, task)).read_text().split()[0])
    return total / 1e9


def memory_of(pid):
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            fields[words[0].rstrip(":")] = int(words[1]) / 1024
    return {
        "own": fields["Private_Clean"] + fields["Private_Dirty"], "proportional": fields["Pss"],
    }


def show(size):
    for unit, factor in [("MiB", 1 << 20), ("KiB", 1 << 10)]:
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


def machine():
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine())
    return (f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}, load "
            f"{os.getloadavg()[0]:.1f} at the start; nodes are namespaces of this machine "
            "(scripts/cluster.sh), joined by veth pairs and a bridge")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", required=True, help="cargo's release directory")
    parser.add_argument("--calls", required=True, help="the compiled tree_calls")
    parser.add_argument("--directory", default="/var/tmp", help="where the files to be read are made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="the core to which round trips are bound")
    parser.add_argument("--json", help="file for the report")
    parts = {
        "round-trips": Bench.round_trips, "gigabyte": Bench.gigabyte, "import": Bench.import_files,
        "start": Bench.start, "idle": Bench.idle,
    }
    parser.add_argument("--only", action="append", choices=parts, help="measure only this")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("tree.py: nodes are namespaces, which need root")
    print(f"Machine: {machine()}.", flush=True)
    bench = Bench(arguments)
    try:
        for name, part in parts.items():
            if not arguments.only or name in arguments.only:
                part(bench)
                sys.stdout.flush()
    finally:
        bench.clean()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(bench.report, indent=1) + "\n")


if __name__ == "__main__":
    main()
