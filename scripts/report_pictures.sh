#!/usr/bin/env bash
# Pictures of a report of a real run, to be looked at: an import of numpy, scipy.sparse and pandas on
# four nodes of this machine (scripts/cluster.sh), at desktop and phone width, light and dark. Root only.
#
#   scripts/report_pictures.sh DIR     leaves DIR/report.html, DIR/{desktop,phone}-{light,dark}.png, and
#                                      DIR/report.png as it is in docs/images
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

[ $# = 1 ] || die "usage: scripts/report_pictures.sh DIR"
mkdir -p "$1"
out=$(realpath "$1")
build_release >&2
packages=$(python_packages)
python=$(real_python)

place=$(mktemp -d /var/tmp/copper-pictures-XXXXXX)
cluster=(scripts/cluster.sh --prefix pictures)
origin=
finish() {
  "${cluster[@]}" down >/dev/null 2>&1 || true
  exec 8>&- # the origin is unmounted when its input ends
  [ -z "$origin" ] || wait "$origin" || true
  rm -rf --one-file-system "$place"
}
trap finish EXIT

# What the import reads lies on a slow origin, its own modules where nothing is covered.
mkdir -p "$place/packages" "$place/project/env/lib"
mkfifo "$place/open"
"${cluster[@]}" up 4 --share "$place" >/dev/null
"$target/release/slow-origin" "$packages" "$place/packages" --control "$place/control" \
  <"$place/open" >"$place/origin.log" 2>&1 &
origin=$!
exec 8>"$place/open"
until grep -q mounted "$place/origin.log"; do sleep 0.1; done
"$python" - "$place/control" <<'PYTHON'
import json, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(json.dumps({"load": {"latency_us": 300}}).encode() + b"\n")
    connection.recv(4096)
PYTHON

on() {
  local host=$1
  shift
  "${cluster[@]}" exec "$host" -- env -C /tmp -u COPPER_RUNTIME_DIR -u COPPER_VIEW \
    COPPER_JOB=pictures "$@"
}
on pictures1 "$target/release/copper" start --launcher local --hosts pictures1,pictures2,pictures3,pictures4 \
  --trees 1 --fan-out 2 --largest 16M --cover "$place/packages" >/dev/null
for round in cold warm; do
  say "importing, $round"
  running=()
  for host in pictures1 pictures2 pictures3 pictures4; do
    on "$host" COPPER_PATHS="$place/packages" PYTHONPATH="$place/project/env/lib:$place/packages" \
      PYTHONDONTWRITEBYTECODE=1 LD_PRELOAD="$target/release/libcopper.so" \
      "$python" -c 'import numpy, scipy.sparse, pandas' &
    running+=($!)
  done
  for process in "${running[@]}"; do wait "$process"; done
done
on pictures1 "$target/release/copper" report -o "$out/report.html"
on pictures1 "$target/release/copper" stop >/dev/null

# Chromium has no windows as narrow as a telephone: a frame is.
picture() {
  local name=$1 width=$2 height=$3 page=$4
  printf '<!DOCTYPE html><body style="margin:0"><iframe src="%s" style="border:0" width="%s" height="%s"></iframe>' \
    "$page" "$width" "$height" >"$place/frame.html"
  chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
    --allow-file-access-from-files --user-data-dir="$place/chromium" --virtual-time-budget=4000 \
    --window-size="$((width > 500 ? width : 500)),$height" --screenshot="$out/$name.png" \
    "file://$place/frame.html" >/dev/null 2>&1
}
sed 's/@media (prefers-color-scheme: dark)/@media all/' "$out/report.html" >"$place/dark.html"
cp "$out/report.html" "$place/light.html"
for shade in light dark; do
  picture "desktop-$shade" 1120 3300 "$shade.html"
  picture "phone-$shade" 390 5200 "$shade.html"
done
picture report 1120 2400 light.html
say "see $out"
