#!/usr/bin/env bash
# The README's table of samplers: one VAE on the embedded digits, three seeds, 1,000 samples by every sampler that serves it.
# About 25 minutes on one core.
#
#   scripts/sampler_table.sh [DIRECTORY]     a run directory for each seed, and report/ beside them
#   SAMPLERS="normal maf" SEEDS=0 scripts/sampler_table.sh     fewer
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/sampler-table}
samplers=${SAMPLERS:-normal gaussian_mixture kernel_density maf iaf two_stage latent_diffusion hmc}
number=1000

$vaebench train -m model=vae seed="${SEEDS:-0,1,2}" hydra.sweep.dir="$directory"
for run in "$directory"/[0-9]*/; do
    for sampler in $samplers; do
        target=()
        if [ "$sampler" = hmc ]; then target=(target=aggregate_posterior); fi
        $vaebench sample run="$run" sampler="$sampler" num_samples=$number "${target[@]}"
        $vaebench evaluate run="$run" samples="$sampler" metric=[fd,density_coverage] \
            metric.fd.num_samples=$number metric.density_coverage.num_samples=$number
    done
done
$vaebench report "$directory" output="$directory/report"
