"""The parts of an experiment, each from its group of the configuration."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaebench.factory.groups import MANY, ONE
from vaebench.factory.recipes import Recipe, recipe
from vaebench.factory.signatures import convert, parameters
from vaebench.factory.targets import AUTO, ConfigError, check_targets

Config = Mapping[str, Any] | DictConfig

_TRAINER_NAMES = (("model", "trainer"), ("trainer", "name"))
_FROM_THE_DATA = ("shape", "likelihood", "num_classes")


def plain(cfg: Config) -> dict[str, Any]:
    """The configuration as dictionaries and lists, interpolations resolved.

    Raises:
        ConfigError: an interpolation has no value.
    """
    if not isinstance(cfg, DictConfig) and _refers_to_nothing(dict(cfg)):
        return copy.deepcopy(dict(cfg))  # as OmegaConf gives it, seventy times as fast
    try:
        node = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
        container = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}


def _refers_to_nothing(value: object) -> bool:
    """Whether a value is plain, and holds only plain ones in which nothing stands for another."""
    if type(value) is dict:
        return all(type(key) is str and _refers_to_nothing(item) for key, item in value.items())
    if type(value) is list:
        return all(map(_refers_to_nothing, value))
    return value is None or type(value) in (bool, int, float) or (type(value) is str and "${" not in value)


def check(cfg: Config) -> None:
    """Check every group that is there: first all targets against the allow-list, then keys and types; builds nothing.

    Raises:
        ConfigError: the first mistake.
    """
    tree = plain(cfg)
    check_targets(tree)
    convert(tree.get("seed", 0), int, "seed", lambda value: None)
    recipes = {group: _recipe(tree, group) for group in ONE if tree.get(group) is not None}
    for group in MANY:
        _recipes(tree, group)
    if "model" in recipes and "trainer" in recipes:
        needed, given = (getattr(recipes[group].target, name, None) for group, name in _TRAINER_NAMES)
        if needed != given:
            raise ConfigError(
                f"trainer: model {recipes['model'].target.__name__} needs trainer={needed}, got trainer={given}"
            )


def dataset(cfg: Config) -> Any:
    """The data set."""
    return _recipe(_checked(cfg), "dataset").make()


def model(cfg: Config, dataset: Any) -> Any:
    """The model for a data set, which gives it shape, number of classes and, where the configuration says auto,
    likelihood.
    """
    tree = _checked(with_likelihood(cfg, dataset))
    made = _recipe(tree, "model")
    known = parameters(made.target)
    injected: dict[str, Any] = {"shape": tuple(dataset.shape)} if "shape" in known else {}
    if "likelihood" in known and "likelihood" not in made.arguments:
        injected["likelihood"] = dataset.likelihood
    if "num_classes" in known and "num_classes" not in made.arguments:
        needs_labels = made.arguments.get("condition_dim") is None  # continuous conditions need no classes
        if dataset.num_classes is None and needs_labels and getattr(made.target, "needs_labels", True):
            raise ConfigError(f"model: {made.target.__name__} needs labels, and dataset '{dataset.name}' has none")
        injected["num_classes"] = dataset.num_classes
    return made.make(**injected)


def with_likelihood(cfg: Config, dataset: Any) -> dict[str, Any]:
    """The plain configuration in which `model.likelihood`, or its number of levels, is the data set's where it said
    auto.
    """
    tree = plain(cfg)
    likelihood = (tree.get("model") or {}).get("likelihood")
    if isinstance(likelihood, Mapping) and likelihood.get("num_levels") == AUTO:
        levels = dataset.likelihood.num_levels
        tree["model"] = {**tree["model"], "likelihood": {**likelihood, "num_levels": levels}}
    if isinstance(likelihood, Mapping) and likelihood.get("_target_") == AUTO:
        tree["model"] = {**tree["model"], "likelihood": dataset.likelihood_config()}
    return tree


def with_absolute_paths(cfg: Config) -> dict[str, Any]:
    """The plain configuration in which where the data lie does not depend on where the user stands."""
    tree = plain(cfg)
    node = tree.get("dataset")
    if isinstance(node, Mapping):
        key = "path" if node.get("root") is None else "root"  # with a root, the path is relative to it
        place = node.get(key)
        if isinstance(place, str) and place:
            tree["dataset"] = {**node, key: os.path.abspath(os.path.expanduser(place))}
    return tree


def trainer(cfg: Config) -> Any:
    """The trainer."""
    return _recipe(_checked(cfg), "trainer").make()


def hardware(cfg: Config) -> Any:
    """Build the hardware that the run computes on."""
    return _recipe(_checked(cfg), "hardware").make()


def sampler(cfg: Config) -> Any:
    """The sampler."""
    return _recipe(_checked(cfg), "sampler").make()


def sweep(cfg: Config) -> Any:
    """Build the strategy of a sweep."""
    return _recipe(_checked(cfg), "sweep").make()


def metrics(cfg: Config) -> dict[str, Any]:
    """The metrics by name, in the order of the configuration."""
    return {name: made.make() for name, made in _recipes(_checked(cfg), "metric").items()}


def extractor(cfg: Config) -> Any:
    """Build the extractor, which turns images into features."""
    return _recipe(_checked(cfg), "extractor").make()


def callbacks(cfg: Config) -> list[Any]:
    """The callbacks, in the order of the configuration."""
    return [made.make() for made in _recipes(_checked(cfg), "callback").values()]


def _checked(cfg: Config) -> dict[str, Any]:
    tree = plain(cfg)
    check_targets(tree)
    return tree


def _recipe(tree: dict[str, Any], group: str) -> Recipe:
    if tree.get(group) is None:
        raise ConfigError(f"{group}: nothing is chosen; set {group}=")
    node = tree[group]
    injected: tuple[str, ...] = ()
    if group == "model" and isinstance(node, Mapping):
        likelihood = node.get("likelihood")
        if isinstance(likelihood, Mapping) and likelihood.get("_target_") == AUTO:
            extra = set(likelihood) - {"_target_"}
            if extra:
                raise ConfigError(f"model.likelihood.{min(extra)}: 'auto' takes no settings; choose model/likelihood=")
            node = {name: value for name, value in node.items() if name != "likelihood"}
        injected = _FROM_THE_DATA
    return recipe(node, group, injected)


def _recipes(tree: dict[str, Any], group: str) -> dict[str, Recipe]:
    nodes = tree.get(group) or {}
    if not isinstance(nodes, Mapping):
        raise ConfigError(f"{group}: expected settings by name, got {type(nodes).__name__}; choose {group}=[a,b]")
    return {name: recipe(node, f"{group}.{name}") for name, node in nodes.items() if node is not None}
