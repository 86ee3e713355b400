"""vaebench: experiments with variational autoencoders, from one command or as a library."""

__version__ = "0.1.0"
