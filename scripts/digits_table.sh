#!/usr/bin/env bash
# The README's table: every model with its defaults on the embedded digits, three seeds each. About 15 minutes on one core.
#
#   scripts/digits_table.sh [DIRECTORY]      a run directory for each model and seed, and report/ beside them
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/digits-table}

$vaebench train -m model=vae,rhvae,piwae,factor_vae,aae,rae_l2,vae_gan seed=0,1,2 hydra.sweep.dir="$directory"
for run in "$directory"/[0-9]*/; do
    $vaebench evaluate run="$run"
done
$vaebench report "$directory" output="$directory/report"
