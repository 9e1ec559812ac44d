#!/bin/bash
# The night on a machine with NPUs, or in a container that has them; PART is K/N where several machines share it. MindSpore
# and CANN are those that are there; the history is at HISTORY, and the site is left in site/.
set -euo pipefail

python=$(command -v python3.11 || command -v python3)
"$python" -m venv --system-site-packages .venv
.venv/bin/pip install -e '.[ascend]'
set +u # CANN's script reads variables that are not set
for root in cann ascend-toolkit; do
  if [ -f "/usr/local/Ascend/$root/set_env.sh" ]; then
    # shellcheck disable=SC1090
    source "/usr/local/Ascend/$root/set_env.sh"
    break
  fi
done
set -u
code=0
.venv/bin/certify nightly harness/nightly/ascend.yaml --history "$HISTORY" ${PART:+--part "$PART"} \
  --power reports/power-qwen3-tiny-fp32.json || code=$?
rm -rf site
if [ -d "$HISTORY/site" ]; then cp -r "$HISTORY/site" site; fi
exit "$code"
