#!/bin/bash
# Submit with: flux batch -N4 --exclusive -t 30m flux.sh
set -euo pipefail
module load copper

copper start --hosts "$(flux hostlist --expand --delimiter=, instance)" --cover /lus/project/env
trap 'copper stop' EXIT

flux run -N4 --tasks-per-node=8 --env=LD_PRELOAD="$(copper env --lib)" \
  /lus/project/env/bin/python3 app.py
