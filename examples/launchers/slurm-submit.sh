#!/bin/bash
# ./slurm-submit.sh [CONFIG]          on the login node: what does not fit, or may not, never waits in a queue
set -euo pipefail

CONFIG=${1:-train.yaml}
GPU=${CTXPLAN_GPU:-H100-80GB}

ctxplan preflight "$CONFIG" --gpu "$GPU" --host-ram 256GiB
sbatch --export=ALL,CTXPLAN_GPU="$GPU" slurm.sbatch "$CONFIG"
