#!/bin/bash
#PBS -N copper-example
#PBS -l select=4
#PBS -l walltime=00:30:00
set -euo pipefail
cd "$PBS_O_WORKDIR"
module load copper

copper start --allocation --cover /lus/project/env
trap 'copper stop' EXIT

nodes=$(sort -u "$PBS_NODEFILE" | wc -l)
mpiexec -n $((nodes * 12)) --ppn 12 --genv LD_PRELOAD="$(copper env --lib)" \
  /lus/project/env/bin/python3 app.py
