#!/bin/bash
#SBATCH --job-name=copper-example
#SBATCH --nodes=4
#SBATCH --time=00:30:00
set -euo pipefail
module load copper

copper start --allocation --cover /lus/project/env
trap 'copper stop' EXIT

srun --ntasks-per-node=8 --export="ALL,LD_PRELOAD=$(copper env --lib)" \
  /lus/project/env/bin/python3 app.py
