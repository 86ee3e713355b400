"""Samplers: ways to draw latents from a trained model."""
