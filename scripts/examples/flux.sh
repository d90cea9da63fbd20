#!/bin/bash
#flux: --nodes=4
#flux: --tasks-per-node=8
#flux: --time-limit=30m
# A batch job on Flux. The two lines that use Copper are marked.
ENVIRONMENT=/p/project/environment # where the Python packages lie
export PYTHONPATH=$ENVIRONMENT

copper start --allocation --cover "$ENVIRONMENT" || exit 1 # Copper: run by the brokers

# Copper: the words between $( ) give every rank the preload.
# shellcheck disable=SC2046
flux run $(copper env --format flux) --nodes=4 --tasks-per-node=8 python3 app.py

copper stop # also done by itself at the job's end
