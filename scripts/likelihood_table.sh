#!/usr/bin/env bash
# The README's table of likelihoods: the same U-Net VAE on CIFAR-10 with two likelihoods. About 10 minutes on one core.
#
#   scripts/likelihood_table.sh [DIRECTORY] [OVERRIDE ...]    a run directory for each, and report/ beside them
#
# Without overrides it takes 4,000 of the training pictures of dataset=cifar10; overrides may name a file instead:
#   scripts/likelihood_table.sh outputs/likelihoods dataset=arrays dataset.path=cifar10_subset.npz
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/likelihood-table}
shift || true
data=("${@:-dataset=cifar10}")
[ $# -gt 0 ] || data+=(dataset.num_examples=4000)

$vaebench train -m model=unet_vae model/likelihood=discretized_logistic,logistic_mixture "${data[@]}" \
    model.network.base_channels=16 trainer.num_epochs="${EPOCHS:-12}" hydra.sweep.dir="$directory"
for run in "$directory"/[0-9]*/; do
    $vaebench evaluate run="$run" metric=[elbo,bits_per_dim]
done
$vaebench report "$directory" output="$directory/report"
