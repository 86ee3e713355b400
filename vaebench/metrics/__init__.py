"""Metrics of a trained model: each one file, with its value, its standard error and how it was estimated."""
