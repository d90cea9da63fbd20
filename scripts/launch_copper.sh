#!/usr/bin/env bash
# Starts Copper on all nodes of this batch job: copper start --allocation, with the options of older
# job scripts.
#
#   launch_copper.sh [OPTION]... [-- OPTION-OF-COPPER-START...]
#
#   -l LEVEL   log level: 0 nothing, 1 what is fatal, 2 errors, 3 warnings, 4 infos, with the times
#              of the start, 5 everything (default 0)                  copper start --log-level
#   -t TYPE    log type: file (default), stdout or file_and_stdout; only this node's helper has a
#              standard output                                         copper start --log-type
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
#   -P         profile: sums of each node, in DIR/profiling when the job is stopped
#                                                                      copper start --profile
#   -N NUMBER  the same, with so many paths of each kind               copper start --profile-top
#   -A         the same, with all paths                                copper start --profile-paths
#   -I SECONDS the same, also while the job runs                       copper start --profile-interval
#              copper profile --merge DIR/profiling makes one of all nodes; copper report
#              --profile DIR/profiling shows it
set -euo pipefail

usage() { sed -n '2,32s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

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
    0 | 6 | off | none) echo off ;;
    1 | fatal) echo fatal ;;
    2 | error) echo error ;;
    3 | warn | warning) echo warn ;;
    4 | info) echo info ;;
    5 | debug | trace) echo trace ;;
    *) die "-l $1: a log level is a number from 0 (nothing) to 5 (everything)" ;;
  esac
}

# Whether this node has all processors of 48-51.
has_default_processors() {
  local processor
  for processor in 48 49 50 51; do
    [ -d "/sys/devices/system/cpu/cpu$processor" ] || return 1
  done
}

level=0
log_type=file
profile=()
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
        file | stdout) log_type=$OPTARG ;;
        file_and_stdout) log_type=both ;;
        *) die "-t $OPTARG: a log type is file, stdout or file_and_stdout" ;;
      esac
      ;;
    d) logs=$OPTARG ;;
    T) trees=$OPTARG ;;
    M) largest=$OPTARG ;;
    E) absences=$OPTARG ;;
    P) profile+=(--profile) ;;
    N) profile+=(--profile-top "$OPTARG") ;;
    A) profile+=(--profile-paths) ;;
    I) profile+=(--profile-interval "$OPTARG") ;;
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
  arguments+=(--log-type "$log_type")
  if [ "$log_type" != stdout ]; then
    mkdir -p "$logs" || die "the logs' directory $logs cannot be made; name another with -d"
    arguments+=(--log "$logs/copper-{host}.log")
  fi
fi
if [ ${#profile[@]} -gt 0 ]; then
  arguments+=("${profile[@]}" --profile-directory "$logs/profiling")
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
