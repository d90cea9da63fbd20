#!/usr/bin/env bash
# Ends all helpers of this batch job: copper stop.
#
#   stop_copper.sh [-v DIR]      -v: accepted and not needed, the helpers know their view
set -euo pipefail

die() {
  printf 'stop_copper.sh: %s\n' "$*" >&2
  exit 2
}

while getopts ':v:h' option; do
  case "$option" in
    v) ;;
    h) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    :) die "-$OPTARG needs a value" ;;
    *) die "unknown option -$OPTARG; see stop_copper.sh -h" ;;
  esac
done
shift $((OPTIND - 1))
[ $# = 0 ] || die "unknown argument $1"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for candidate in "$here/copper" "$here/../bin/copper" "${COPPER_ROOT:+$COPPER_ROOT/bin/copper}" \
  "$here/../target/release/copper"; do
  if [ -n "$candidate" ] && [ -x "$candidate" ]; then
    exec "$candidate" stop
  fi
done
exec copper stop
