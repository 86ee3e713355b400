"""What Hydra finds: it takes sweepers only from packages of this name."""

from vaebench.cli.sweeper import TrainingSweeper


class VaebenchSweeper(TrainingSweeper):
    """The sweeper of `vaebench train -m`."""
