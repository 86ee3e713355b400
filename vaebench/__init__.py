"""vaebench: experiments with variational autoencoders, from one command or as a library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from vaebench.core import Model
    from vaebench.data.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["LoadedRun", "__version__", "load_model", "load_run"]

# OpenMP threads spin for about 0.3 ms while they wait for each other. When another program holds one of their cores,
# this makes small operations a hundred times slower; a short spin costs little otherwise. Set before torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class LoadedRun(NamedTuple):
    """A trained run.

    Attributes:
        model: With its weights, in eval mode, on the CPU.
        dataset: Its data set, with `train`, `validation` and `test`.
        config: Its configuration, as nested dictionaries.
    """

    model: Any
    dataset: Dataset
    config: dict[str, Any]

    def __repr__(self) -> str:
        return f"LoadedRun({type(self.model).__name__} on {self.dataset!r}, config of {len(self.config)} keys)"


def load_run(
    path: str | os.PathLike[str] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    *,
    data_root: str | os.PathLike[str] | None = None,
    data_path: str | os.PathLike[str] | None = None,
) -> LoadedRun:
    """Load a trained run: `model, dataset, config = vaebench.load_run("outputs/first")`.

    Args:
        path: The run directory; the newest run under `outputs/` if not given.
        checkpoint: "best" by validation, or "last".
        data_root: Where the data lie now, if they were moved: what `dataset.root` was.
        data_path: The same for `dataset.path`.

    Raises:
        ValueError: there is no such run, or a file of it is missing, damaged or foreign. Nothing in it is executed.
    """
    from vaebench import factory

    places = {"root": data_root, "path": data_path}
    moved = {key: None if place is None else os.path.expanduser(place) for key, place in places.items()}
    config, dataset, model = factory.load_run(_open(path), checkpoint, moved)
    return LoadedRun(model, dataset, factory.plain(config))


def load_model(path: str | os.PathLike[str] | None = None, checkpoint: Literal["best", "last"] = "best") -> Model:
    """Load the model of a trained run, in eval mode, on the CPU; its data need not be there any more.

    Args:
        path: The run directory; the newest run under `outputs/` if not given.
        checkpoint: "best" by validation, or "last".

    Raises:
        ValueError: there is no such run, or a file of it is missing, damaged or foreign. Nothing in it is executed.
    """
    from vaebench.factory.stored import load_model

    return load_model(_open(path), checkpoint)[2]


def _open(path: str | os.PathLike[str] | None) -> Any:
    from vaebench.runs.run import Run

    return Run.newest() if path is None else Run.open(os.path.expanduser(path))
