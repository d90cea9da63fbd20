#!/usr/bin/env python3
"""Draws the scale report: plot_scaling.py REPORT.json OUTPUT writes OUTPUT.svg and OUTPUT.png."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "copper"
from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

# Told apart by line and marker as well as by shade, so that the plot can be read in grey.
STYLES = {
    "cooperative tree": ("black", "-", "o", "this Copper: 8 trees of fan-out 8"),
    "first Copper's scheme": ("dimgrey", "--", "s", "the first Copper's scheme"),
    "first Copper's scheme with a page cache":
        ("grey", (0, (5, 1, 1, 1)), "D", "the first Copper's scheme, large files from a page cache"),
    "no cache": ("darkgrey", ":", "^", "no cache"),
}
PANELS = [
    ("import of numpy, scipy.sparse, pandas", "Cold import of numpy, scipy.sparse and pandas"),
    ("torch-sized import", "Cold import of torch's size"),
    ("1 GB library", "A library of 1 GB"),
]


def points(rows, workload, scheme):
    """The (nodes, seconds) of a scheme in its own shape."""
    chosen = {}
    for row in rows:
        if row["workload"] == workload and row["scheme"] == scheme:
            chosen.setdefault(row["nodes"], row["seconds"])
    return sorted(chosen.items())


def draw(axes, rows, workload, title):
    for scheme, (shade, line, marker, label) in STYLES.items():
        series = points(rows, workload, scheme)
        if series:
            axes.plot(*zip(*series), color=shade, linestyle=line, marker=marker, label=label)
    bounds = sorted({r["nodes"]: r["bound"] for r in reversed(rows)
                     if r["workload"] == workload and r["bound"]}.items())
    if bounds:
        axes.plot(*zip(*bounds), color="black", linewidth=0.7, linestyle="-.",
                  label="bound: size / bandwidth + depth")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("nodes (12 ranks each)")
    axes.set_ylabel("time until the last rank is done (s)")
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="major", linewidth=0.3)


def main():
    with open(sys.argv[1]) as report:
        rows = json.load(report)["rows"]
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(14, 4.5))
    for axes, (workload, title) in zip(panels, PANELS):
        draw(axes, rows, workload, title)
    figure.suptitle("Modelled on a Slingshot network with a Lustre origin (parameters: docs/SCALING.md)",
                    fontsize=9)
    labelled = {}
    for axes in panels:
        labelled.update((label, line) for line, label in zip(*axes.get_legend_handles_labels()))
    figure.legend(labelled.values(), labelled.keys(), loc="lower center", ncols=len(labelled), fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    for kind, extra in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 130})):
        figure.savefig(f"{sys.argv[2]}.{kind}", **extra)


if __name__ == "__main__":
    main()
