#!/bin/bash
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --time=30
# A job on Slurm (as on Frontier). The two lines that use Copper are marked.
ENVIRONMENT=/lustre/project/environment # where the Python packages lie
export PYTHONPATH=$ENVIRONMENT

copper start --allocation --cover "$ENVIRONMENT" || exit 1 # Copper: a job step beside the ranks'

# Copper: the words between $( ) give every rank the preload.
# shellcheck disable=SC2046
srun $(copper env --format srun) python3 app.py

copper stop # also done by itself at the job's end
