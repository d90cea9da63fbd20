#!/bin/bash
# Runs on one of the hosts. ssh must reach the others without a password, and copper must be
# installed under the same path on all of them.
set -euo pipefail
hosts=node1,node2,node3,node4

copper start --hosts "$hosts" --cover /lus/project/env
trap 'copper stop' EXIT

# Hydra (MPICH, Intel MPI); with Open MPI: mpirun --host "$hosts" -x LD_PRELOAD="..."
mpirun -hosts "$hosts" -n 4 -genv LD_PRELOAD "$(copper env --lib)" \
  /lus/project/env/bin/python3 app.py
