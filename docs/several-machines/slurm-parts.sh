#!/bin/bash
# A night that eight machines share: sbatch slurm-parts.sh, from a checkout that all of them see. The last part to end
# does not gather: that is a job of its own, after all of them.
#SBATCH --job-name=certify-night
#SBATCH --array=1-8
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=certify-night-%a.log
set -euo pipefail

MATRIX=harness/nightly/ascend.yaml
HISTORY=/shared/certify-nightly
# of this night alone: an old part must not stand for one that did not come
PARTS=/shared/parts/${GATHER:-$SLURM_ARRAY_JOB_ID}

if [ -z "${GATHER:-}" ]; then
  if [ "$SLURM_ARRAY_TASK_ID" = "$SLURM_ARRAY_TASK_MIN" ]; then
    sbatch --array=1-1 --dependency="afterany:$SLURM_ARRAY_JOB_ID" --export="ALL,GATHER=$SLURM_ARRAY_JOB_ID" "$0"
  fi
  .venv/bin/certify nightly "$MATRIX" --part "$SLURM_ARRAY_TASK_ID/8" --history "$PARTS/$SLURM_ARRAY_TASK_ID"
else
  parts=()
  for part in "$PARTS"/*; do parts+=(--gather "$part"); done
  .venv/bin/certify nightly "$MATRIX" --history "$HISTORY" "${parts[@]}"
fi
