"""The run directory: paths, atomic files, provenance, image grids."""
