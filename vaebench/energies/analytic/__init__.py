"""Energies in closed form, with exact draws or reference moments."""
