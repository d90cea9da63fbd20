#!/usr/bin/env bash
# Measures Copper on one node: native ext4, native tmpfs, Copper warm and cold, side by side in one
# run. Prints a Markdown table; the JSON goes to target/bench/single_node.json.
#
#   scripts/bench/single_node.sh [--rounds N] [--directory DIR]     (root, for the slow origin's mount)
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/common.sh

scripts/setup.sh >&2
build_release >&2
packages=$(python_packages)
mkdir -p "$target/bench"
gcc -O2 -D_GNU_SOURCE -o "$target/bench/bench_calls" tests/programs/bench_calls.c -ldl
"$(real_python)" scripts/bench/single_node.py --release "$target/release" --packages "$packages" \
  --calls "$target/bench/bench_calls" --json "$target/bench/single_node.json" "$@"
echo "JSON: $target/bench/single_node.json" >&2
