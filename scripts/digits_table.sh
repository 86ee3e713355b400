#!/usr/bin/env bash
# The README's table: models with their defaults on the embedded digits, three seeds each. About 15 minutes on one core.
#
#   scripts/digits_table.sh [DIRECTORY]      a run directory for each model and seed, and report/ beside them
#   MODELS=vae,aae scripts/digits_table.sh   other models; those with wide discriminators take minutes a run
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/digits-table}

$vaebench train -m model="${MODELS:-vae,rhvae,piwae,rae_l2}" seed=0,1,2 hydra.sweep.dir="$directory"
for run in "$directory"/[0-9]*/; do
    $vaebench evaluate run="$run"
done
$vaebench report "$directory" output="$directory/report"
