#!/usr/bin/env bash
# Measures Copper on one node: native ext4, native tmpfs, Copper warm and cold, side by side in one
# run. Prints a Markdown table; the JSON goes to target/bench/single_node.json.
#
#   scripts/bench/single_node.sh [--rounds N] [--directory DIR]     (root, for the slow origin's mount)
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/common.sh

bench_one_node single_node "$@"
