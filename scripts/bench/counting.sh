#!/usr/bin/env bash
# What counting costs programs, and the journal the helper: calls, imports and starts with and without,
# side by side in one run. Prints Markdown tables; the JSON goes to target/bench/counting.json.
#
#   scripts/bench/counting.sh [--rounds N] [--directory DIR]
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/common.sh

bench_one_node counting "$@"
