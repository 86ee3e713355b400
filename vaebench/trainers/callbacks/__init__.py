"""Behaviour around the training loop."""
