#!/usr/bin/env bash
# The main job from end to end: installs what is missing, builds in release, installs numpy, scipy
# and pandas into a directory, imports them under Copper from a covered prefix and from the view,
# and prints what was served from where.
#
#   scripts/demo.sh [DIR]      DIR: where the packages go (default /var/tmp/copper-demo-UID)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

place=${1:-/var/tmp/copper-demo-$(id -u)}
case "$(realpath -m "$place")" in
  /tmp/* | /proc/* | /sys/* | /dev/* | /run/*)
    die "$place lies in a node-local tree, which Copper never covers; give another directory" ;;
esac

say "setting up"
scripts/setup.sh --demo

say "building"
cargo build --release --locked -p copper
cargo build --release --locked -p copper-shim -p copper-audit
copper=$target/release/copper

packages=$place/packages
if [ ! -d "$packages/pandas" ]; then
  say "installing numpy, scipy and pandas into $packages"
  mkdir -p "$place"
  "$(real_python)" -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --no-warn-conflicts --no-index --find-links "$cache/wheels" --target "$packages" --upgrade \
    -r scripts/python-packages.txt 2>"$place/pip.log" ||
    { cat "$place/pip.log" >&2; die "pip could not install the packages"; }
fi

cat >"$place/app.py" <<'PYTHON'
import time
start = time.perf_counter()
import numpy, scipy.sparse, pandas
took = time.perf_counter() - start
matrix = scipy.sparse.eye(1000, format="csr") * 2
frame = pandas.DataFrame({"x": numpy.arange(5), "y": matrix.diagonal()[:5]})
print(f"  numpy from {numpy.__file__}")
print(f"  sum of the frame {frame.to_numpy().sum():g}, imported in {took:.2f} s")
PYTHON

python=$(real_python)
export PYTHONDONTWRITEBYTECODE=1
# A helper and a view of the demonstration's own, so that a running job's are left alone.
export COPPER_RUNTIME_DIR=$place/run COPPER_VIEW=$place/view
trap '"$copper" stop >/dev/null 2>&1 || true' EXIT

say "plain"
PYTHONPATH=$packages "$python" "$place/app.py"
PYTHONPATH=$packages "$python" "$place/app.py"

say "under Copper, below a covered prefix: the first process reads from the origin, the others do not"
"$copper" start --cover "$packages" >/dev/null
for _ in 1 2 3; do
  PYTHONPATH=$packages "$copper" run --cover "$packages" -- "$python" "$place/app.py"
done
say "what was served from where"
"$copper" status

say "under Copper, through the view: the same files again, nothing more is read from the origin"
PYTHONPATH=$COPPER_VIEW$packages "$copper" run -- "$python" "$place/app.py"
"$copper" status | grep -E '^(asked|origin)'

say "four processes at once"
running=()
for _ in 1 2 3 4; do
  PYTHONPATH=$packages "$copper" run --cover "$packages" -- "$python" "$place/app.py" | tail -n 1 &
  running+=($!)
done
for process in "${running[@]}"; do wait "$process"; done

"$copper" stop >/dev/null
say "done; the helper is gone and left nothing behind"
echo "Try it by hand:"
echo "  $copper run --cover $packages -- env PYTHONPATH=$packages python3 $place/app.py"
