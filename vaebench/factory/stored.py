"""A run as it lies on the disk: its configuration read without running anything in it, its model with its weights."""

from __future__ import annotations

import functools
import io
import logging
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaebench.data.io.download import downloads_forbidden
from vaebench.factory import objects
from vaebench.factory.bounds import bounded_by
from vaebench.factory.stored_dataset import PLACES, check_data, moved, stored_data
from vaebench.factory.targets import AUTO, ConfigError, check_targets
from vaebench.factory.weights import unequal_shapes
from vaebench.runs.regular import read_bytes
from vaebench.runs.run import Run, write_atomic
from vaebench.trainers.state import check_weights_file, load_weights

MAX_DEPTH = 50
MAX_BYTES = 2**20  # per configuration
CHECKPOINTS = ("best", "last")
_log = logging.getLogger(__name__)


def save_config(run: Run, cfg: objects.Config) -> None:
    """Write config.yaml, resolved."""
    write_atomic(run.config, OmegaConf.to_yaml(OmegaConf.create(objects.plain(cfg)), resolve=False))


def load_config(run: Run) -> dict[str, Any]:
    """Read config.yaml: plain values only, no tag, alias or interpolation, and every target on the allow-list.

    Raises:
        ConfigError: the file is missing or damaged, or asks for what a stored configuration may not.
    """
    path = run.config
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
        _refuse_all_but_plain(text, path)
        container = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except ConfigError:
        raise
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"'{path}' is damaged: expected YAML ({' '.join(str(problem).split())})") from None
    if not isinstance(container, dict):
        raise ConfigError(f"'{path}' is damaged: expected a mapping at its top")
    tree = {str(name): value for name, value in container.items()}
    _check_texts(tree, path)
    try:
        check_targets(tree)
    except ValueError as error:
        raise ConfigError(f"'{path}': {error}") from None
    return tree


def load_run(
    run: Run, checkpoint: str = "best", places: Mapping[str, Any] | None = None
) -> tuple[DictConfig, Any, Any]:
    """Rebuild a run's data set and model, and load the weights of a checkpoint; the model is in eval mode, on the CPU.

    Args:
        run: A run directory.
        checkpoint: "best" (by validation; the last one where none was judged), or "last".
        places: Where the data lie now: new values of the data set's `path` and `root`.

    Returns: the configuration, the data set, the model.

    Raises:
        ValueError: a file is missing, damaged or foreign; the sentence names it. Nothing in the directory is executed.
    """
    tree, path = _read(run, checkpoint)
    tree = moved(tree, places)
    data = _dataset(run, tree, places)
    return OmegaConf.create(tree), data, _model(tree, data, path)


def load_data(run: Run, places: Mapping[str, Any] | None = None) -> Any:
    """Rebuild a run's data set; see `load_run`."""
    return _dataset(run, moved(_checked_config(run), places), places)


class TrainingSplit:
    """A run's training split, read when it is first asked for, and held against what the run was trained on.

    Args:
        run: A run directory.
        places: Where the data lie now; see `load_run`.
    """

    def __init__(self, run: Run, places: Mapping[str, Any] | None = None) -> None:
        self._run, self._places = run, places

    @functools.cached_property
    def _split(self) -> Any:
        data = load_data(self._run, self._places)
        is_named = any(place is not None for place in (self._places or {}).values())
        check_data(self._run, data, ["train"], is_named=is_named)
        return data.train

    def __len__(self) -> int:
        return len(self._split)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._split, name)


def load_model(
    run: Run, checkpoint: str = "best", places: Mapping[str, Any] | None = None
) -> tuple[DictConfig, Any, Any]:
    """Rebuild a run's model as `load_run` does, without its data, which may be gone.

    Returns: the configuration; what the run kept of its data set (name, shape, classes), or the data set itself where
        an older run kept nothing; the model.
    """
    tree, path = _read(run, checkpoint)
    tree = moved(tree, places)
    likelihood = tree["model"].get("likelihood")
    is_auto = isinstance(likelihood, Mapping) and likelihood.get("_target_") == AUTO
    data = None if is_auto else stored_data(run)
    if data is None:
        data = _dataset(run, tree, places)
    return OmegaConf.create(tree), data, _model(tree, data, path)


def _checked_config(run: Run) -> dict[str, Any]:
    tree = load_config(run)
    for group in ("dataset", "model"):
        if group not in tree:
            raise ConfigError(f"'{run.config}' is damaged: it names no {group}")
    try:
        objects.check({group: tree[group] for group in ("dataset", "model")})
    except ValueError as error:
        raise ConfigError(f"'{run.config}': {error}") from None
    return tree


def _read(run: Run, checkpoint: str) -> tuple[dict[str, Any], Path]:
    """The checked configuration, and the path of the weights."""
    if checkpoint not in CHECKPOINTS:
        raise ConfigError(f"checkpoint: expected best or last, got '{checkpoint}'")
    load_config(run)  # refuses a hostile one before reading weights
    path = run.best_weights if checkpoint == "best" else run.last_weights
    if checkpoint == "best" and not path.is_file() and run.last_weights.is_file():
        path = run.last_weights
        _log.info("no best checkpoint in '%s'; using the last one", run.path)
    check_weights_file(path)
    status = run.read_status()
    if status.get("status", "done") != "done":
        _log.warning("'%s' is not done: %s, at epoch %s", run.path, status["status"], status.get("epoch"))
    return _checked_config(run), path


def _dataset(run: Run, tree: dict[str, Any], named: Mapping[str, Any] | None) -> Any:
    try:
        with downloads_forbidden(not any((named or {}).values())):
            return objects.dataset(tree)
    except ValueError as error:
        places = [f"dataset.{key}=" for key in PLACES if key in tree["dataset"]]
        is_missing = "not there" in str(error) or "is missing" in str(error)
        hint = f"; if the data of '{run.path}' have moved, name their new place: {' or '.join(places)}"
        raise ConfigError(f"{error}{hint if places and is_missing else ''}") from error


def _model(tree: dict[str, Any], data: Any, path: Path) -> Any:
    with bounded_by(path):
        built = objects.model(tree, data)
    load_into(built, load_weights(path, sum(value.nbytes for value in built.state_dict().values())), path)
    return built.eval()


def load_into(model: Any, weights: dict[str, Any], path: Path) -> None:
    """Give a model its weights, every name and shape.

    Raises:
        ConfigError: they belong to another model.
    """
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = unequal_shapes(model, weights) or " ".join(str(error).partition(":\n")[2].split()) or str(error)
        reason = reason if len(reason) <= 300 else f"{reason[:297]}…"
        raise ConfigError(f"'{path}' holds the weights of another model than config.yaml: {reason}") from None


def _refuse_all_but_plain(text: str, path: Path) -> None:
    """Refuse what YAML can do beyond values in mappings and lists, before any of it is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise ConfigError(f"'{path}' is damaged: expected plain values, got a YAML tag or alias")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"'{path}' is damaged: expected at most {MAX_DEPTH} levels")


def _check_texts(tree: object, path: Path) -> None:
    """Refuse interpolations, and characters that a terminal would obey."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            _check_texts(name, path)
            _check_texts(value, path)
    elif isinstance(tree, list):
        for value in tree:
            _check_texts(value, path)
    elif isinstance(tree, str) and "${" in tree:
        raise ConfigError(f"'{path}' is damaged: expected resolved values, got {tree[:60]!a}")
    elif isinstance(tree, str) and any(unicodedata.category(character) == "Cc" for character in tree.replace("\n", "")):
        raise ConfigError(f"'{path}' is damaged: expected text without control characters, got {tree[:60]!a}")
