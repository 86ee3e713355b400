"""Quantisers: from vectors to the nearest of finitely many codes."""
