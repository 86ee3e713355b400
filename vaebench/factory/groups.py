"""The groups of options, in one table: to add a group, add a line. Read without torch, Hydra or omegaconf."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OptionGroup:
    """One group of options: a folder under `conf/`.

    Attributes:
        name: The folder, and the word before `=` on the command line; `model/network` for a part of a model.
        title: What `vaebench list` calls its options.
        verbs: The verbs that choose from it; a part goes with the group above it.
        room: The package of vaebench that its own target must come from; None leaves it open.
        is_many: Whether several options can be chosen together, as in `metric=[elbo,reconstruction]`.
    """

    name: str
    title: str
    verbs: tuple[str, ...]
    room: str | None = None
    is_many: bool = False


TABLE = (
    OptionGroup("model", "models", ("train", "benchmark"), room="models"),
    OptionGroup("trainer", "trainers", ("train", "benchmark"), room="trainers"),
    OptionGroup("dataset", "datasets", ("train", "benchmark"), room="data"),
    OptionGroup("sampler", "samplers", ("sample", "benchmark"), room="samplers"),
    OptionGroup("target", "targets", ("sample", "benchmark"), room="energies"),
    OptionGroup("kernel", "kernels", ("sample", "benchmark"), room="mcmc"),
    OptionGroup("metric", "metrics", ("evaluate", "benchmark"), room="metrics", is_many=True),
    OptionGroup("extractor", "extractors", ("evaluate", "benchmark"), room="metrics"),
    OptionGroup("callback", "callbacks", ("train", "benchmark"), room="trainers", is_many=True),
    OptionGroup("model/network", "networks", ("train",)),
    OptionGroup("model/posterior", "posteriors", ("train",)),
    OptionGroup("model/prior", "priors", ("train",)),
    OptionGroup("model/quantizer", "quantizers", ("train",)),
    OptionGroup("model/likelihood", "likelihoods", ("train",)),
    OptionGroup("model/beta", "betas", ("train",)),
    OptionGroup("hardware", "hardware", ("train", "sample", "evaluate", "encode", "benchmark"), room="hardware"),
    OptionGroup("sweep", "sweeps", ("train", "benchmark"), room="sweeps"),
    OptionGroup("experiment", "experiments", ("train", "benchmark")),
)

GROUPS = {group.name: group for group in TABLE}
ONE = tuple(group.name for group in TABLE if group.room is not None and not group.is_many)
MANY = tuple(group.name for group in TABLE if group.is_many)


def by_word() -> dict[str, OptionGroup]:
    """Return the groups by every word that names one: models, model; networks, model/network, network."""
    return {word: group for group in TABLE for word in (group.title, group.name, group.name.rpartition("/")[2])}
