"""Measures what counting costs programs and what the journal costs the helper, on one node.

Called by scripts/bench/counting.sh, which builds what is needed. Variants run interleaved, in turns that
begin with another one each round; medians over the rounds are reported.
"""

import json
import os
import sys
from pathlib import Path

from single_node import CALLS, NAMES, Bench, Helper, arguments_of, cpu_ticks, machine, measured

COUNTED, UNCOUNTED = "counted", "not counted"
KEPT, NOT_KEPT = "journal", "no journal"


class Counting(Bench):
    def counting_round(self, warm, variant):
        self.measure_calls(variant, "warm", self.scratch / "tree", warm.shimmed)
        self.time_start("start_true", variant, warm.shimmed)
        for _ in range(3):
            self.add("import", variant, self.time_import(self.packages, warm.shimmed))

    def journal_round(self, variant):
        options = ["--journal-limit=0"] if variant == NOT_KEPT else []
        with Helper(self, [self.packages], options) as helper:
            for row in ["import_cold", "import_warm"]:
                before = cpu_ticks(helper.status()["pid"])
                self.add(row, variant, self.time_import(self.packages, helper.shimmed))
                ticks = cpu_ticks(helper.status()["pid"]) - before
                self.add(f"{row}_helper", variant, ticks * 1000 / os.sysconf("SC_CLK_TCK"))

    def measure(self):
        with Helper(self, [self.make_tree(), self.packages]) as warm:
            for _ in range(2):
                self.time_import(self.packages, warm.shimmed)
            for number in range(self.rounds):
                print(f"round {number + 1} of {self.rounds}", file=sys.stderr)
                turns = [COUNTED, UNCOUNTED]
                for variant in turns if number % 2 else reversed(turns):
                    if variant == COUNTED:
                        self.counting_round(warm, variant)
                    else:
                        with warm.uncounted():
                            self.counting_round(warm, variant)
            self.paths = warm.status()["paths"]
        for number in range(self.rounds):
            turns = [KEPT, NOT_KEPT]
            for variant in turns if number % 2 else reversed(turns):
                self.journal_round(variant)


ROWS = {
    **{row: NAMES[row] for row in [*CALLS, "start_true"]},
    "import": "import of numpy, scipy.sparse, pandas, warm, s",
    "import_cold": "import, cold, s",
    "import_cold_helper": "processor time of the helper in it, ms",
    "import_warm": "import, warm, s",
    "import_warm_helper": "processor time of the helper in it, ms",
}


def print_table(medians, variants):
    print(f"\n| | {' | '.join(variants)} | ratio |\n|---|---:|---:|---:|")
    for row, name in ROWS.items():
        values = [medians.get(row, {}).get(variant) for variant in variants]
        if None in values:
            continue
        ratio = f"{values[0] / values[1]:.3f}" if values[1] else ""
        print(f"| {name} | {' | '.join(f'{value:.4g}' for value in values)} | {ratio} |")


def main():
    arguments = arguments_of(__doc__)
    where = machine()
    bench = Counting(arguments)
    medians = measured(bench)
    if arguments.json:
        report = {"machine": where, "rounds": arguments.rounds, "medians": medians,
                  "all": bench.results, "paths": bench.paths}
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    print(f"Machine: {where['cpu']}, {where['cores']} cores, load {where['load_average']:.1f} at the "
          f"start. Medians of {arguments.rounds} rounds, interleaved.")
    print_table(medians, [COUNTED, UNCOUNTED])
    print_table(medians, [KEPT, NOT_KEPT])
    noted = bench.paths
    print(f"\nNoted: one call in {noted['noted_one_in']}, {len(noted['hot'])} paths named.")


if __name__ == "__main__":
    main()
