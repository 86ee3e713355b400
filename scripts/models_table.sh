#!/usr/bin/env bash
# The README's tables of models: each with its defaults, three seeds, one run directory a model and seed, and report/ beside
# them. On the embedded digits the models of the first list take about 50 minutes on one core.
#
#   scripts/models_table.sh [DIRECTORY] [OVERRIDE ...]
#   MODELS=nvae,vdvae,flow_vae SEEDS=0 scripts/models_table.sh outputs/deep
#   MODELS=vae,iwae scripts/models_table.sh outputs/mnist dataset=binarized_mnist trainer.num_epochs=20
set -euo pipefail
vaebench=${VAEBENCH:-vaebench}
directory=${1:-outputs/models-table}
shift || true
models=vae,beta_vae,beta_vae_with_capacity,beta_tc_vae,factor_vae,dip_vae,dip_vae_ii,info_vae,wae_mmd,aae,vae_gan
models+=,iwae,miwae,ciwae,piwae,vamp_vae,rhvae,rae_l2,conditional_vae,ladder_vae,gram_vae,unet_vae
models+=,vq_vae,residual_vq_vae,fsq_vae,lfq_vae

$vaebench train -m model="${MODELS:-$models}" seed="${SEEDS:-0,1,2}" "$@" hydra.sweep.dir="$directory"
$vaebench evaluate run="$directory"
$vaebench report "$directory" output="$directory/report"
