"""Energies over the latent space of a trained model."""
