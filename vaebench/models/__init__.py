"""Models: one paper, one file."""

from vaebench.models.rhvae import RHVAE
from vaebench.models.vae import VAE

__all__ = ["RHVAE", "VAE"]
