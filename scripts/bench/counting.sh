#!/usr/bin/env bash
# What counting costs programs, and the journal the helper: calls, imports and starts with and without,
# side by side in one run. Prints Markdown tables; the JSON goes to target/bench/counting.json.
#
#   scripts/bench/counting.sh [--rounds N] [--directory DIR]
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/common.sh

scripts/setup.sh >&2
build_release >&2
packages=$(python_packages)
mkdir -p "$target/bench"
gcc -O2 -D_GNU_SOURCE -o "$target/bench/bench_calls" tests/programs/bench_calls.c -ldl
"$(real_python)" scripts/bench/counting.py --release "$target/release" --packages "$packages" \
  --calls "$target/bench/bench_calls" --json "$target/bench/counting.json" "$@"
echo "JSON: $target/bench/counting.json" >&2
