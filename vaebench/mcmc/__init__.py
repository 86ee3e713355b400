"""Markov chain Monte Carlo: kernels, adaptation, the chain loop and its diagnostics."""
