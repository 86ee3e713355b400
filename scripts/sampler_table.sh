#!/usr/bin/env bash
# The README's table of samplers: one VAE on the embedded digits, three seeds, 1,000 samples by every sampler that serves it.
# An hour on one core, most of it for two_stage, which is fitted last.
#
#   scripts/sampler_table.sh [DIRECTORY]     a run directory for each seed, and report/ beside them
#   SAMPLERS="normal maf" SEEDS=0 scripts/sampler_table.sh     fewer
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/sampler-table}
number=1000

if [ ! -d "$directory/0" ]; then $vaebench train -m model=vae seed="${SEEDS:-0,1,2}" hydra.sweep.dir="$directory"; fi
for sampler in ${SAMPLERS:-normal gaussian_mixture kernel_density maf latent_diffusion hmc iaf two_stage}; do
    target=()
    if [ "$sampler" = hmc ]; then target=(target=aggregate_posterior); fi
    $vaebench sample "$directory"/[0-9]* sampler="$sampler" num_samples=$number "${target[@]}"
    $vaebench evaluate "$directory"/[0-9]* samples="$sampler" metric=[fd,density_coverage] \
        metric.fd.num_samples=$number
done
$vaebench report "$directory"/[0-9]* output="$directory/report" sort_by=fd_pixels
