#!/bin/sh
# Runs the simulator of the cooperative tree.
#
#   scripts/simulate.sh faults [SEEDS [FIRST]]   fault schedules, 10,000 unless told
#   scripts/simulate.sh replay SEED              one schedule again; shrinks it if it fails
#   scripts/simulate.sh scale [MOST [LEAST [WORKLOAD [SCHEME]]]]
#                                                the scale report for jobs of LEAST (1) to MOST (100,000) nodes, of
#                                                workloads and schemes whose names hold these words (all):
#                                                docs/scaling.{md,json} and the plots in docs/images; other rows are
#                                                kept
#   scripts/simulate.sh plot                     the plots alone, from docs/scaling.json
#   scripts/simulate.sh workload                 records the import workload again
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

# The largest jobs take gigabytes that are visited in no order; huge pages nearly halve their time.
GLIBC_TUNABLES=${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}glibc.malloc.hugetlb=1
export GLIBC_TUNABLES

simulate() {
    cargo build --profile simulator --quiet -p copper-simulator
    "$target/simulator/simulate" "$@"
}

plot() {
    venv=$target/plot-venv
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet matplotlib
    fi
    "$venv/bin/python" tests/simulator/plot_scaling.py docs/scaling.json docs/images/scaling
}

case ${1:-} in
faults) simulate faults --count "${2:-10000}" --from "${3:-0}" ;;
replay) simulate replay "$2" ;;
scale)
    status=0
    simulate scale --most "${2:-100000}" --from "${3:-1}" --workload "${4:-}" --scheme "${5:-}" \
        --json docs/scaling.json --table docs/scaling.md || status=$?
    plot
    exit "$status"
    ;;
plot) plot ;;
workload)
    command -v strace >/dev/null || { echo "strace is missing; install it (apt-get install strace)" >&2; exit 1; }
    python3 tests/simulator/record_workload.py "$target/workload" tests/simulator/workloads/import.workload
    ;;
*)
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
