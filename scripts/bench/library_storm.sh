#!/usr/bin/env bash
# Measures a library storm (scripts/bench/storm.py): native, Copper warm and cold, and from the slow
# origin. Prints a Markdown table; the JSON goes to target/bench/library_storm.json.
#
#   scripts/bench/library_storm.sh [--rounds N] [--libraries N] [--modules N] [--rpath origin|absolute]
#                                  (root, for the slow origin's mount)
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/common.sh

scripts/setup.sh >&2
build_release >&2
mkdir -p "$target/bench"
"$(real_python)" scripts/bench/library_storm.py --release "$target/release" \
  --json "$target/bench/library_storm.json" "$@"
echo "JSON: $target/bench/library_storm.json" >&2
