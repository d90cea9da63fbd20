#!/usr/bin/env bash
# Tries an unpacked Copper: a generated Python package is imported, and its tree walked with the
# system's own tools, plain and under Copper, and the results compared. It needs bash, coreutils,
# findutils and python3, and no network.
#
#   share/copper/demo.sh [DIR]      DIR: a directory for what it makes (default /var/tmp/copper-demo-UID)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
copper=$here/../../bin/copper
place=${1:-/var/tmp/copper-demo-$(id -u)}
packages=$place/packages
modules=300

say() { printf '\n== %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

[ -x "$copper" ] || die "there is no $copper; run this script where the tarball was unpacked"
copper=$(realpath "$copper")
mkdir -p "$place"
export COPPER_RUNTIME_DIR=$place/run COPPER_VIEW=$place/view PYTHONDONTWRITEBYTECODE=1
trap '"$copper" stop >/dev/null 2>&1 || true' EXIT

say "this node"
"$copper" doctor || die "the node has a problem; see above"

say "a package of $modules modules in $packages"
python3 - "$packages" "$modules" <<'PYTHON'
import os, sys
place, count = sys.argv[1], int(sys.argv[2])
package = os.path.join(place, "demo_package")
os.makedirs(package, exist_ok=True)
for number in range(count):
    with open(os.path.join(package, f"module{number}.py"), "w") as file:
        file.write(f"value = {number}\n" + "# filling\n" * 100)
names = ", ".join(f"module{number}" for number in range(count))
with open(os.path.join(package, "__init__.py"), "w") as file:
    file.write(f"from . import {names}\n")
link = os.path.join(place, "alias")
if not os.path.lexists(link):
    os.symlink("demo_package", link)
PYTHON

import_all() {
  "$@" python3 -c '
import demo_package, os
total = sum(getattr(demo_package, f"module{n}").value for n in range('"$modules"'))
print(total, os.path.dirname(demo_package.__file__))'
}

counts() {
  "$copper" status --json | python3 -c '
import json, sys
origin = json.load(sys.stdin)["origin"]
print(*(origin[name] for name in ("stats", "listings", "opens", "readlinks")))'
}

walk() {
  "$@" bash -c 'cd "$0" && ls -lR . && ls -lL alias && cat demo_package/* | sha256sum &&
    find . -type f | sort && du -s --apparent-size demo_package && readlink -f alias/module7.py &&
    stat -c "%a %s %Y %n" demo_package/module7.py && wc -l demo_package/module7.py &&
    { cat missing 2>&1 || true; } && cp demo_package/module9.py "$1/copied" &&
    cmp demo_package/module9.py "$1/copied" && rm "$1/copied"' "$packages" "$place"
}

say "plain and under Copper"
export PYTHONPATH=$packages
plain=$(import_all env)
walk env >"$place/plain.txt"
"$copper" start --cover "$packages" >/dev/null
for _ in 1 2 3; do
  served=$(import_all "$copper" run --cover "$packages" --)
  [ "$served" = "$plain" ] || die "the import gave '$served' instead of '$plain'"
done
walk "$copper" run --cover "$packages" -- >"$place/served.txt"
cmp "$place/plain.txt" "$place/served.txt" || die "the tools saw something else under Copper"
echo "the import gave $served each time; the tools printed the same $(wc -l <"$place/plain.txt") lines"

say "through the view"
viewed=$(PYTHONPATH=$COPPER_VIEW$packages import_all "$copper" run --)
[ "${viewed%% *}" = "${plain%% *}" ] || die "the view gave '$viewed'"
echo "$viewed"

say "what was served"
"$copper" status
before=$(counts)
import_all "$copper" run --cover "$packages" -- >/dev/null
[ "$(counts)" = "$before" ] || die "another import read from the origin: $before became $(counts)"
echo "another import read nothing from the origin (stats, listings, opens, links: $before)"

"$copper" stop >/dev/null
[ ! -e "$COPPER_RUNTIME_DIR" ] && [ ! -e "$COPPER_VIEW" ] || die "copper stop left something behind"
say "the demonstration passed; the helper is gone and left nothing behind"
