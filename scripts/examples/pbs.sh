#!/bin/bash
#PBS -l select=4
#PBS -l walltime=00:30:00
# A job on PBS with PALS (as on Aurora). The two lines that use Copper are marked.
cd "$PBS_O_WORKDIR" || exit 1
ENVIRONMENT=/lus/project/environment # where the Python packages lie
export PYTHONPATH=$ENVIRONMENT

copper start --allocation --cover "$ENVIRONMENT" || exit 1 # Copper: one helper on each node

# Copper: the words between $( ) give every rank the preload.
# shellcheck disable=SC2046
mpiexec $(copper env --format pals) -n 48 --ppn 12 python3 app.py

copper stop # also done by itself at the job's end
