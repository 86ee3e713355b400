"""Configurations for tests. Composing one takes a fifth of a second, so each is composed once in a session."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from tests.shared import made_once
from vaebench import factory
from vaebench.factory.configurations import conf_dir


def composed(verb: str, *words: str) -> DictConfig:
    """The configuration of a command line, to be changed at will."""
    return pickle.loads(_pickled(verb, *words))


def plain(verb: str, *words: str) -> dict[str, Any]:
    """The same as dictionaries and lists."""
    return factory.plain(composed(verb, *words))


@functools.cache
def _pickled(verb: str, *words: str) -> bytes:
    def write(file: Path) -> None:
        if not GlobalHydra.instance().is_initialized():
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                return write(file)
        file.write_bytes(pickle.dumps(compose(verb, list(words))))

    return made_once(write, "compose", verb, *words).read_bytes()
