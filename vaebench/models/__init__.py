"""Models: one paper, one file."""

from vaebench.models.vae import VAE

__all__ = ["VAE"]
