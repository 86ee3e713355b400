"""Energies that a network computes."""
