#!/bin/bash
# Nodes without a batch system, reached by ssh without questions. Run on the first of them; nodes is
# a file with a name in each line. The two lines that use Copper are marked.
ENVIRONMENT=/data/environment # where the Python packages lie
export PYTHONPATH=$ENVIRONMENT

copper start --hostfile nodes --cover "$ENVIRONMENT" || exit 1 # Copper: one helper on each node

# Copper: the words between $( ) give every rank the preload (MPICH; for Open MPI: openmpi).
# shellcheck disable=SC2046
mpirun -f nodes $(copper env --format hydra) -n 32 python3 app.py

copper stop # nothing else ends the helpers here
