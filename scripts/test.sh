#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Ends with an error if one fails.
#
#   scripts/test.sh [--quick] [FILTER...]
#
#   --quick   only what takes seconds: the unit tests and the differential tests
#   FILTER    only tests on one node whose name contains one of these
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

quick=false
filters=()
for argument in "$@"; do
  case "$argument" in
    --quick) quick=true ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) die "unknown option $argument; see scripts/test.sh --help" ;;
    *) filters+=("$argument") ;;
  esac
done

failed=()
step() {
  local name=$1 start=$SECONDS
  shift
  say "$name"
  if "$@"; then
    echo "== $name: passed in $((SECONDS - start)) s"
  else
    echo "== $name: FAILED after $((SECONDS - start)) s"
    failed+=("$name")
  fi
}

say "setting up"
scripts/setup.sh
say "building"
build_release

# Always the same set of packages, the default members: another set would be built with other
# features of the dependencies, so all over again.
one_node() { cargo test --release --locked --test one_node -- "$@"; }

# The shim and the audit library by themselves, for the reason that Cargo.toml gives.
lints() {
  cargo clippy --release --locked --all-targets -- -D warnings &&
    cargo clippy --release --locked -p call-counter -- -D warnings &&
    cargo clippy --release --locked -p copper-shim -p copper-audit -- -D warnings
}

# In a directory of its own: other flags would have everything built anew.
model() {
  CARGO_TARGET_DIR=$target/loom RUSTFLAGS="--cfg loom" \
    cargo test --release --locked -p copper-core --lib model
}

# The tarball, checked for what it asks of glibc, and the programs in it on an older system.
release() {
  scripts/dist.sh && scripts/dist_trial.sh debian
}

if [ ${#filters[@]} -gt 0 ]; then
  step "tests on one node: ${filters[*]}" one_node "${filters[@]}"
elif $quick; then
  step "unit tests" cargo test --release --locked --lib --bins
  step "differential tests" one_node reading:: starting:: changes:: random_trees::
else
  step "formatting" cargo fmt --all --check
  step "lints" lints
  step "tests" cargo test --release --locked --no-fail-fast
  step "tests under the audit library" env COPPER_TEST_AUDIT=1 \
    cargo test --release --locked --test one_node -- coexistence:: starting::programs
  step "suites of others" scripts/conformance.sh --quick
  step "model of the catalog's publishing" model
  # It enters a tree of the older system.
  if [ "$(id -u)" = 0 ]; then step "release" release; fi
  step "fuzzing" scripts/fuzz.sh 15
fi

if [ ${#failed[@]} -gt 0 ]; then
  die "failed: ${failed[*]}"
fi
say "all tests passed in $SECONDS s"
