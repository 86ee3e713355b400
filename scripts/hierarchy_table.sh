#!/usr/bin/env bash
# The README's table of hierarchies beside a VAE. About half an hour on one core; STEPS=1500 trains the very deep VAE longer.
#
#   scripts/hierarchy_table.sh [DIRECTORY] [OVERRIDE ...]    a run directory for each model, and report/ beside them
#
# A VAE and ladder VAEs of 1, 2 and 3 groups, with as many parameters to within 1 %, on binarised MNIST; then the very
# deep VAE with its 12 groups on 4,000 training pictures of CIFAR-10. Overrides belong to CIFAR-10, and may name a file:
#   scripts/hierarchy_table.sh outputs/hierarchies dataset=arrays dataset.path=cifar10_subset.npz
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/hierarchy-table}
shift || true
pictures=("${@:-dataset=cifar10}")
[ $# -gt 0 ] || pictures+=(dataset.num_examples=4000)
digits=(dataset=binarized_mnist trainer.num_epochs="${EPOCHS:-15}")

$vaebench train model=vae model.network.hidden_dims=[384,384] model.latent_dim=32 "${digits[@]}" \
    hydra.run.dir="$directory/vae"
number=0
for sizes in "[384] [32]" "[352,128] [32,16]" "[348,128,64] [32,16,8]"; do
    read -r hidden latent <<< "$sizes"
    number=$((number + 1))
    $vaebench train model=ladder_vae model.network.hidden_dims="$hidden" model.network.latent_dims="$latent" "${digits[@]}" \
        hydra.run.dir="$directory/ladder-$number"
done
$vaebench train model=vdvae model/likelihood=logistic_mixture "${pictures[@]}" trainer.num_steps="${STEPS:-300}" \
    trainer.batch_size=16 trainer.skip_gradient_above=1.2e6 trainer.gradient_clip_norm=6e5 trainer.ema_decay=0.99 \
    hydra.run.dir="$directory/vdvae"
for run in vae ladder-1 ladder-2 ladder-3; do
    $vaebench evaluate run="$directory/$run" metric=[elbo,active_units]
done
$vaebench evaluate run="$directory/vdvae" metric=[elbo,bits_per_dim] num_examples=200
$vaebench report "$directory" output="$directory/report"
