"""Energies: unnormalised log-densities that samplers draw from."""
