"""Plugins that Hydra discovers by their place; see hydra_plugins beneath."""
