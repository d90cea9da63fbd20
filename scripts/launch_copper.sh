#!/usr/bin/env bash
# Starts Copper on all nodes of this batch job: copper start --allocation, with the options of older
# job scripts.
#
#   launch_copper.sh [OPTION]... [-- OPTION-OF-COPPER-START...]
#
#   -l LEVEL   log level: 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 fatal (error), 6 none
#              (default 6)                                             copper start --log-level
#   -t TYPE    log type: file (default); stdout and file_and_stdout are taken for file, since
#              helpers have no terminal
#   -d DIR     directory of the logs, one for each node (default ~/copper-logs/JOB)
#                                                                      copper start --log
#   -T TREES   number of trees (default 1)                             copper start --trees
#   -M BYTES   largest file that is cached, also 10M or 1G (default 10 MiB)
#                                                                      copper start --largest
#   -b CPUS    processors that helpers are bound to (default 48-51 where this node has them)
#                                                                      copper start --cpus
#   -n TYPE    network: cxi, tcp, verbs, ... (default: the best there is)
#                                                                      copper start --provider
#   -v DIR     the view (default $COPPER_VIEW or /tmp/$USER/copper)    copper start --view
#   -s SECONDS, -F FILE, -a FILE   accepted and not needed: the start says by itself when all
#              helpers are ready, and they find each other without an address book
#   -E MS      how long a name is taken for absent, in milliseconds (default: until a program of the
#              job makes it, or until copper refresh)                  copper start --absence-lifetime
#   -P, -N NUMBER, -A, -I SECONDS  accepted: there is no profile; see copper status --all --json
set -euo pipefail

usage() { sed -n '2,29s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

die() {
  printf 'launch_copper.sh: %s\n' "$*" >&2
  exit 2
}

warn() { printf 'launch_copper.sh: %s\n' "$*" >&2; }

find_copper() {
  local here
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  local candidate
  for candidate in "$here/copper" "$here/../bin/copper" "${COPPER_ROOT:+$COPPER_ROOT/bin/copper}" \
    "$here/../target/release/copper"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      echo "$candidate"
      return
    fi
  done
  command -v copper || die "copper is neither beside this script nor in PATH; set COPPER_ROOT"
}

level_name() {
  case "$1" in
    0 | trace) echo trace ;;
    1 | debug) echo debug ;;
    2 | info) echo info ;;
    3 | warn | warning) echo warn ;;
    4 | error | 5 | fatal) echo error ;;
    6 | off | none) echo off ;;
    *) die "-l $1: a log level is a number from 0 (trace) to 6 (none)" ;;
  esac
}

# Whether this node has all processors of 48-51.
has_default_processors() {
  local processor
  for processor in 48 49 50 51; do
    [ -d "/sys/devices/system/cpu/cpu$processor" ] || return 1
  done
}

level=6
job=${PBS_JOBID:-${SLURM_JOB_ID:-${FLUX_JOB_ID:-${LSB_JOBID:-interactive}}}}
logs=${HOME:-.}/copper-logs/${job%%.*}
trees=1
largest=10M
cpus=
network=
absences=
view=
while getopts ':l:t:d:T:M:E:PN:AI:s:b:F:a:n:v:h' option; do
  case "$option" in
    l) level=$OPTARG ;;
    t)
      case "$OPTARG" in
        file) ;;
        stdout | file_and_stdout) warn "-t $OPTARG: helpers have no terminal; the log goes to files" ;;
        *) die "-t $OPTARG: a log type is file, stdout or file_and_stdout" ;;
      esac
      ;;
    d) logs=$OPTARG ;;
    T) trees=$OPTARG ;;
    M) largest=$OPTARG ;;
    E) absences=$OPTARG ;;
    P | N | A | I)
      warn "-$option: there is no profile yet; copper status --all --json counts what is done"
      ;;
    s | F | a) ;;
    b) cpus=$OPTARG ;;
    n) network=${OPTARG#ofi+} ;;
    v) view=$OPTARG ;;
    h) usage; exit 0 ;;
    :) die "-$OPTARG needs a value; see launch_copper.sh -h" ;;
    *) die "unknown option -$OPTARG; see launch_copper.sh -h" ;;
  esac
done
shift $((OPTIND - 1))
[ $# = 0 ] || [[ $1 == -* ]] ||
  die "unknown argument $1; options of copper start come after --"

arguments=(start --allocation --trees "$trees" --largest "$largest")
level=$(level_name "$level")
arguments+=(--log-level "$level")
if [ "$level" != off ]; then
  mkdir -p "$logs" || die "the logs' directory $logs cannot be made; name another with -d"
  arguments+=(--log "$logs/copper-{host}.log")
fi
if [ -n "$cpus" ]; then
  arguments+=(--cpus "$cpus")
elif has_default_processors; then
  arguments+=(--cpus 48-51)
fi
if [ -n "$network" ]; then
  arguments+=(--provider "$network")
fi
if [ -n "$absences" ]; then
  arguments+=(--absence-lifetime "$absences")
fi
if [ -n "$view" ]; then
  arguments+=(--view "$view")
fi
copper=$(find_copper)
exec "$copper" "${arguments[@]}" "$@"
