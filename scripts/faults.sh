#!/usr/bin/env bash
# The long tests on several nodes, which continuous integration has no time for: 8 nodes with 4 ranks
# each import once for all; then each fault on a leaf, an interior node and the root of 8 nodes, idle,
# in the middle of a file of 500 MB and in the middle of an import. Writes docs/faults.md. Root only.
#
#   scripts/faults.sh [FILE]      FILE: where the report goes instead of docs/faults.md
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

[ "$(id -u)" = 0 ] || die "nodes are namespaces, which need root"
report=$(realpath -m "${1:-docs/faults.md}")
log=$target/faults.log

say "setting up"
scripts/setup.sh
say "building"
build_release

# The tests print rows of tables and a few sentences; everything else is the test program's own.
long_test() {
  cargo test --release --locked --test cluster -- --exact --nocapture --include-ignored "$1" 2>&1 |
    tee -a "$log"
}
rows() { grep -oE '\|.*\|$|[0-9]+ nodes: \{.*' || true; }

: >"$log"
say "8 nodes with 4 ranks each"
sharing=$(COPPER_TEST_NODES=8 COPPER_TEST_RANKS=4 \
  long_test sharing::each_file_is_read_once_whatever_the_number_of_nodes | tee /dev/stderr) ||
  die "failed; see $log"
say "every fault on 8 nodes"
faults=$(long_test faults::every_harm_on_eight_nodes_with_500_megabytes | tee /dev/stderr) ||
  die "failed; see $log"

cpu=$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2- | sed 's/^ *//')
{
  cat <<HEADER
# Faults

What \`scripts/faults.sh\` printed on $(date -u +%Y-%m-%d), on one machine that plays all nodes
(namespaces, \`scripts/cluster.sh\`): $cpu, $(nproc) cores, Linux $(uname -r), Python
$("$(real_python)" -c 'import platform; print(platform.python_version())').

## Once for all

2, 4 and 8 nodes with 4 ranks each import numpy, scipy.sparse and pandas from a slow origin that each
node has mounted for itself. Each byte was read once and each directory listed once; each file was opened
once, those of several MiB once by the root of each of the two trees that read them. Every rank printed
what a plain run prints, and a second start of all ranks made no operation on the origin. What the first
start asked of the origin, all nodes together:

HEADER
  rows <<<"$sharing" | sed 's/^/- /'
  cat <<HEADER

## Helpers killed or stopped, links down

8 nodes, one tree of fan-out 2. Each row is a job of its own: its ranks (one on each node) import, or read
a file of 500 MB, while the fault is done to one node. All ranks printed what a plain run prints, then and
in a second run after the fault. "Plain" is the time that as many ranks take without Copper, all of
them on the cores of this one machine; "nothing wrong" what the ranks of a cold job take without a
fault (each node's copy of the 500 MB is written by the same few cores); "took" the slowest rank's time;
"named" the time from the ranks' end until \`copper status --all\` named the missing node and no
other; "back" the time from the end of the fault until all nodes were there again (a killed helper stays
away).

HEADER
  rows <<<"$faults"
} >"$report"
say "the report is in $report; all of the output in $log"
