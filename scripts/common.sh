# What the scripts share; to be sourced from the top of the repository.

target=${CARGO_TARGET_DIR:-$PWD/target}
cache=$PWD/.cache

say() { printf '\n== %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The helper, the shim, the audit library and the programs of the tests. What is preloaded is built
# by itself: see Cargo.toml.
build_release() {
  cargo build --release --locked
  cargo build --release --locked -p copper-shim -p copper-audit
  cargo build --release --locked -p call-counter
}

# The interpreter itself, not a script of a version manager that stands for it.
real_python() { python3 -c 'import os, sys; print(os.path.realpath(sys.executable))'; }

# Builds what a bench of one node needs and runs scripts/bench/NAME.py with it.
bench_one_node() {
  local name=$1 packages
  shift
  scripts/setup.sh >&2
  build_release >&2
  packages=$(python_packages)
  mkdir -p "$target/bench"
  gcc -O2 -D_GNU_SOURCE -o "$target/bench/bench_calls" tests/programs/bench_calls.c -ldl
  "$(real_python)" "scripts/bench/$name.py" --release "$target/release" --packages "$packages" \
    --calls "$target/bench/bench_calls" --json "$target/bench/$name.json" "$@"
  echo "JSON: $target/bench/$name.json" >&2
}

# Prints a directory with numpy, scipy and pandas in it, installed at the first call. It does not
# lie below /tmp, which is never covered.
python_packages() {
  local place=${COPPER_TEST_DIR:-/var/tmp/copper-tests-$(id -u)}/python-packages
  if [ ! -d "$place" ]; then
    mkdir -p "$(dirname "$place")"
    "$(real_python)" -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
      --no-warn-conflicts --no-index --find-links "$cache/wheels" --target "$place.unfinished" \
      -r scripts/python-packages.txt >&2 || die "pip could not install numpy, scipy and pandas"
    mv "$place.unfinished" "$place"
  fi
  echo "$place"
}
