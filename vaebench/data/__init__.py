"""Data sets: one file each; every one declares its shape, its splits, and the likelihood that suits it."""
