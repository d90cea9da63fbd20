#!/usr/bin/env bash
# Runs the random tests with seeds that nobody has tried, for a number of seconds. Ends with an
# error if one fails; the seeds to run again by hand are printed and kept in a log.
#
#   scripts/random.sh [SECONDS]      default: 60 seconds
#
# The runs of scripts/test.sh always use the same seeds. One seed alone:
#   COPPER_RANDOM_SEED=SEED cargo test --release --test one_node -- random_trees::
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

seconds=${1:-60}
case "$seconds" in
  '' | *[!0-9]*) echo "usage: scripts/random.sh [SECONDS]" >&2; exit 2 ;;
esac

build_release
cargo test --release --locked --test one_node --no-run
log=$target/random.log
: >"$log"

end=$((SECONDS + seconds)) runs=0 failed=()
while [ "$SECONDS" -lt "$end" ]; do
  # Nanoseconds apart, so that no case of one run is a case of another.
  seed=$(date +%s%N)
  if ! COPPER_RANDOM_SEED=$seed cargo test --quiet --release --locked --test one_node -- \
    random_trees:: >"$log.run" 2>&1; then
    failed+=("$seed")
    cat "$log.run" >>"$log"
    grep -A 12 'differs from the plain run' "$log.run" || tail -n 20 "$log.run"
  fi
  runs=$((runs + 1))
done
rm -f "$log.run"
echo "$runs runs, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] || die "fails with COPPER_RANDOM_SEED one of: ${failed[*]} (see $log)"
