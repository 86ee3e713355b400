"""vaebench: experiments with variational autoencoders, from one command or as a library."""

import os

__version__ = "0.1.0"

# Threads that wait for each other spin for about 0.3 ms by default; where another program has one of their cores, that
# makes small operations a hundred times slower. A short spin costs little on an idle machine. Read as torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
