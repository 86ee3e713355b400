"""Markov transition kernels: one method per file."""
