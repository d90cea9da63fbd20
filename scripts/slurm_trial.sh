#!/usr/bin/env bash
# Copper under a real Slurm: munge, slurmctld and a slurmd on each of four nodes that are namespaces
# of this machine (scripts/cluster.sh). Batch jobs start helpers with srun and run ranks, which import
# numpy, with srun and with MPICH's mpirun:
#
#   alone      copper start, ranks, copper stop, on one node: what is read from the origin is counted
#   stopped    the same on all nodes: no more is read, and nothing is left on any of them
#   forgotten  copper start and ranks, no copper stop: the job's end leaves nothing either
#   cancelled  scancel while helpers run: the same
#   example    scripts/examples/slurm.sh
#
# Root only. Needs Debian's slurm-wlm, munge and mpich, and a build:
#
#   scripts/slurm_trial.sh [DIRECTORY-OF-THE-BUILD]      (default: target/release)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

build=$(realpath -e "${1:-$target/release}")
[ "$(id -u)" = 0 ] || die "namespaces and slurmd need root"
for tool in srun sbatch munged slurmd slurmctld mpirun.mpich; do
  command -v "$tool" >/dev/null || die "$tool is missing; run: apt-get install slurm-wlm munge mpich"
done

prefix=slurm
nodes=4
place=$(mktemp -d /var/tmp/copper-slurm.XXXXXX)
chmod 755 "$place"
daemons=()

on() { # HOST COMMAND...
  local host=$1
  shift
  scripts/cluster.sh exec "$host" --prefix $prefix -- "$@"
}

clean_up() {
  local status=$? pid
  if [ $status != 0 ]; then
    on ${prefix}1 cat /tmp/copper.log >&2 || true
    tail -n 8 "$place"/*.out "$place"/*.log >&2 2>/dev/null || true
  fi
  for pid in ${daemons[@]+"${daemons[@]}"}; do
    kill "$pid" 2>/dev/null || true
  done
  scripts/cluster.sh down --prefix $prefix
  rm -rf "$place"
}
trap clean_up EXIT

wait_for() { # WHAT COMMAND...
  local what=$1 until=$((SECONDS + 120))
  shift
  while [ $SECONDS -lt $until ]; do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "waited in vain until $what"
  return 1
}

say "setting up $nodes nodes with munge and Slurm"
scripts/cluster.sh up $nodes --prefix $prefix >/dev/null
mkdir -p "$place"/{munge,state,bin}
chmod 700 "$place/munge"
cp "$build/copper" "$build/libcopper.so" "$place/bin"
packages=$(python_packages)
cat >"$place/rank.sh" <<RANK
#!/bin/sh
export PYTHONPATH=$packages PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1
exec $(real_python) $place/app.py
RANK
chmod 755 "$place/rank.sh"
# In one piece: the ranks' lines come through the same pipes.
cat >"$place/app.py" <<'APP'
import numpy, os, socket
os.write(1, f"rank on {socket.gethostname()} {numpy.__file__}\n".encode())
APP

dd if=/dev/urandom of="$place/munge/key" bs=64 count=1 status=none
chmod 600 "$place/munge/key"
munged --foreground --force --key-file "$place/munge/key" --socket "$place/munge.socket" \
  --pid-file "$place/munge/pid" --log-file "$place/munge/log" --seed-file "$place/munge/seed" \
  >"$place/munged.log" 2>&1 &
daemons+=($!)
wait_for "munge listens" test -S "$place/munge.socket"

export SLURM_CONF=$place/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=copper
SlurmctldHost=${prefix}1
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$place/munge.socket
StateSaveLocation=$place/state
SlurmdSpoolDir=/tmp/slurmd-%n
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=/tmp/slurmd-%n.pid
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=5
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
NodeName=${prefix}[1-$nodes] CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP
CONF

on ${prefix}1 slurmctld -D -f "$SLURM_CONF" >"$place/slurmctld.log" 2>&1 &
daemons+=($!)
for ((number = 1; number <= nodes; number++)); do
  on "$prefix$number" slurmd -D -N "$prefix$number" -f "$SLURM_CONF" \
    >"$place/slurmd$number.log" 2>&1 &
  daemons+=($!)
done
all_idle() { [ "$(on ${prefix}1 sinfo -h -o '%D %t')" = "$nodes idle" ]; }
wait_for "all nodes are idle" all_idle

# The lines that every job script has: start, then ranks with the preload.
cat >"$place/job.sh" <<JOB
#!/bin/bash
#SBATCH --nodes=$nodes --ntasks-per-node=2 --time=5
set -eu
copper=$place/bin/copper
\$copper start --allocation --launcher srun --log /tmp/copper.log --log-level info \\
  --read-ahead 0 --cover $packages
srun \$(\$copper env --format srun) $place/rank.sh
mpirun.mpich \$(\$copper env --format hydra) -ppn 2 -n \$((2 * SLURM_JOB_NUM_NODES)) $place/rank.sh
\$copper status --all
\$copper status --all --json | $(real_python) -c \\
  'import json, sys; told = json.load(sys.stdin)["counters"]
print("of the origin:", told["origin_looks"], "looks,", told["origin_reads"], "reads")'
case \$1 in
  alone | stopped) \$copper stop ;;
  forgotten) ;;
  cancelled) touch $place/running; sleep 100 ;;
esac
JOB

left_over() {
  local number
  scripts/cluster.sh ps --prefix $prefix | grep -E '/copper( |$)' || true
  for ((number = 1; number <= nodes; number++)); do
    on "$prefix$number" sh -c 'ls -d /dev/shm/* /tmp/copper-* 2>/dev/null || true'
  done
}
nothing_left() { [ -z "$(left_over)" ]; }

submit() { # HOW NODES: prints the job's number
  on ${prefix}1 sbatch --parsable --nodes "$2" --output="$place/$1.out" --chdir="$place" \
    "$place/job.sh" "$1"
}
# The job script that is installed as an example, with another directory and fewer ranks.
submit_example() { # prints the job's number
  sed "s|^ENVIRONMENT=.*|ENVIRONMENT=$packages|" scripts/examples/slurm.sh >"$place/example.sh"
  on ${prefix}1 env PATH="$place/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 sbatch --parsable \
    --ntasks-per-node 2 --time 5 --output="$place/example.out" --chdir="$place" "$place/example.sh"
}
has_ended() { [ -z "$(on ${prefix}1 squeue -h -j "$1")" ]; }

for how in alone stopped forgotten cancelled; do
  say "a job that is $how"
  if [ $how = alone ]; then used=1; else used=$nodes; fi
  job=$(submit $how $used)
  if [ $how = cancelled ]; then
    wait_for "the job runs" test -e "$place/running"
    on ${prefix}1 scancel "$job"
  fi
  wait_for "job $job has ended" has_ended "$job"
  cat "$place/$how.out"
  # Each node's two ranks of srun, and of mpirun.
  [ "$(grep -c "^rank on .* $packages/" "$place/$how.out")" = $((4 * used)) ] || die "not all ranks ran"
  grep -q "ready $used/$used" "$place/$how.out" || die "not all helpers were ready"
  grep -q "$used of $used ready" "$place/$how.out" || die "not all helpers answered"
  asked=$(sed -n 's/^of the origin: //p' "$place/$how.out")
  if [ $how = alone ]; then asked_alone=$asked; fi
  [ "${asked%% *}" -gt 50 ] && [ "$asked" = "$asked_alone" ] ||
    die "$asked instead of $asked_alone"
  wait_for "nothing is left" nothing_left || die "left: $(left_over)"
done
say "the example of a job script"
job=$(submit_example)
wait_for "job $job has ended" has_ended "$job"
cat "$place/example.out"
[ "$(grep -c "^rank on .* $packages/" "$place/example.out")" = $((2 * nodes)) ] || die "not all ranks ran"
wait_for "nothing is left" nothing_left || die "left: $(left_over)"
say "helpers and ranks ran under Slurm, and nothing was left, in $SECONDS s"
