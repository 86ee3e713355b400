"""Models: one paper, one file."""

from vaebench.models.aae import AAE
from vaebench.models.factor_vae import FactorVAE
from vaebench.models.piwae import PIWAE
from vaebench.models.rae_l2 import RAEL2
from vaebench.models.rhvae import RHVAE
from vaebench.models.vae import VAE
from vaebench.models.vae_gan import VAEGAN

__all__ = ["AAE", "PIWAE", "RAEL2", "RHVAE", "VAE", "VAEGAN", "FactorVAE"]
