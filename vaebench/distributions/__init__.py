"""Distributions that torch lacks, and the modules that return them."""
