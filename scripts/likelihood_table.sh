#!/usr/bin/env bash
# The README's table of likelihoods: one small U-Net VAE on 2,000 pictures of CIFAR-10, once with each. About 8 minutes on
# one core.
#
#   scripts/likelihood_table.sh [DIRECTORY] [OVERRIDE ...]    a run directory for each, and report/ beside them
#
# Overrides may name a file in the place of dataset=cifar10:
#   scripts/likelihood_table.sh outputs/likelihoods dataset=arrays dataset.path=cifar10_subset.npz
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/likelihood-table}
shift || true

$vaebench train -m model=unet_vae model/likelihood=discretized_logistic,logistic_mixture "${@:-dataset=cifar10}" \
    dataset.num_examples=2000 model.network.base_channels=8 trainer.batch_size=50 trainer.num_epochs="${EPOCHS:-4}" \
    callback=[progress,checkpoint] hydra.sweep.dir="$directory"
for run in "$directory"/[0-9]*/; do
    $vaebench evaluate run="$run" metric=[elbo,bits_per_dim]
done
$vaebench report "$directory" output="$directory/report"
