#!/usr/bin/env bash
# Measure libfabric's providers between two processes of this machine: half round trips, read
# bandwidth, and the ways in which bytes get into fresh pages of tmpfs.
#
#   scripts/bench/fabric.sh [--provider NAME]... [--repeats N] [--mebibytes N] [--json FILE]
#   scripts/bench/fabric.sh --transport     the helpers' transport on the best provider instead
#
# COPPER_LIBFABRIC=/path/to/libfabric.so.1 measures another libfabric than the system's.
# Prefix it with `nice -n 10` on a shared machine, or `taskset -c 0` to bind both sides to one
# core, which alone makes figures of sleeping processes comparable.
set -euo pipefail

cd "$(dirname "$0")/../.."
echo "$(date --iso-8601=seconds), Linux $(uname -r), $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg)"
grep -m1 'model name' /proc/cpuinfo || true
echo "huge pages on tmpfs: $(cat /sys/kernel/mm/transparent_hugepage/shmem_enabled 2>/dev/null || echo unknown)"

if [ "${1:-}" = --transport ]; then
    exec cargo test --quiet --release -p copper --test peers -- --ignored --nocapture fabric::measure
fi
cargo build --quiet --release -p libfabric-sys --example fabric_bench
exec "${CARGO_TARGET_DIR:-target}/release/examples/fabric_bench" measure "$@"
