#!/usr/bin/env bash
# Runs the fuzz targets under AddressSanitizer, each for a number of seconds.
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]      default: 30 seconds, all targets
#
# A stable toolchain is enough: the sanitizer's flag is unlocked for this build alone.
set -euo pipefail
cd "$(dirname "$0")/../tests/fuzz"

seconds=${1:-30}
[ $# -gt 0 ] && shift
case "$seconds" in
  ''|*[!0-9]*) echo "usage: scripts/fuzz.sh [SECONDS] [TARGET...]" >&2; exit 2 ;;
esac

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address --cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
cargo build --release --target "$host"
for target in "${targets[@]}"; do
  echo "fuzzing $target for $seconds s"
  mkdir -p "corpus/$target" artifacts
  log="artifacts/$target.log"
  if ! "target/$host/release/$target" -max_total_time="$seconds" -max_len=4096 -timeout=5 \
    -artifact_prefix="artifacts/$target-" -print_final_stats=1 "corpus/$target" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "$target failed: the input that does it is in tests/fuzz/artifacts" >&2
    exit 1
  fi
  grep -E "stat::number_of_executed_units" "$log"
done
echo "all fuzz targets passed"
