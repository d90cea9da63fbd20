#!/usr/bin/env bash
# Measures helpers on several nodes (namespaces of this machine), each ratio within one run: look-ups
# and files through one, two and three hops beside the provider's own round trips; 1 GiB through one
# and three hops beside raw reads and memcpy; an import's files cold; starts; idle cost; memory.
# Prints Markdown; the figures go to target/bench/tree.json, too. Root only; takes some minutes.
#
#   scripts/bench/tree.sh [--rounds N] [--only PART]... [--core CORE]
#
# PART is one of round-trips, gigabyte, import, start, idle. Round trips are measured with all processes
# bound to one core (--core, default 0), which alone makes figures of sleeping processes comparable.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/common.sh

scripts/setup.sh >&2
build_release >&2
cargo build --quiet --release --locked -p libfabric-sys --example fabric_bench
mkdir -p "$target/bench"
gcc -O2 -Wall -o "$target/bench/tree_calls" scripts/bench/tree_calls.c
exec "$(real_python)" scripts/bench/tree.py --release "$target/release" \
  --calls "$target/bench/tree_calls" --json "$target/bench/tree.json" "$@"
