"""Sweeps: which runs to train, as jobs on this machine or a cluster, with a record on the disk."""
