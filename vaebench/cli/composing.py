"""The configurations of many jobs. Composing one takes a tenth of a second and more, so options are composed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from vaebench import factory

NOT_OF_A_JOB = ("hydra", "sweep", "resume")


class Composer:
    """Composes the configurations of jobs.

    Args:
        context: Hydra's.
        config: What the sweep's own words gave.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self._loader = context.config_loader
        self._config = config
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._plain: dict[tuple[str, ...], dict[str, Any] | None] = {}  # None if values refer to each other
        self._is_option: dict[str, bool] = {}
        self._parser = OverridesParser.create(config_loader=self._loader)

    def parse(self, words: Sequence[str]) -> list[Override]:
        """Return the words as Hydra reads them."""
        return self._parser.parse_overrides(list(words))

    def whole(self, words: Sequence[str]) -> DictConfig:
        """Return a configuration with Hydra's own part."""
        return self._loader.load_sweep_config(self._config, list(words))

    def __call__(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the plain configuration of a job.

        Raises:
            HydraException: a word names what there is not.
        """
        overrides = self.parse(words)
        values = [override for override in overrides if self._sets_a_value(override)]
        chosen = tuple(word for word, override in zip(words, overrides, strict=True) if override not in values)
        if chosen not in self._composed:
            composed = self.whole(chosen)
            tree = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in NOT_OF_A_JOB])
            assert isinstance(tree, DictConfig)
            OmegaConf.set_struct(tree, True)
            self._composed[chosen] = tree
            refers = "${" in OmegaConf.to_yaml(tree)
            self._plain[chosen] = None if refers else factory.plain(tree)
        quick = _with_values(self._plain[chosen], values)
        if quick is not None:
            return quick
        job = copy.deepcopy(self._composed[chosen])
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
        return factory.plain(job)

    def _sets_a_value(self, override: Override) -> bool:
        """Whether a word sets a value and chooses no option, nor changes what keys there are."""
        key = override.key_or_group
        if override.type != OverrideType.CHANGE or override.package is not None or key.startswith("hydra"):
            return False
        if key not in self._is_option:
            self._is_option[key] = bool(self._loader.get_group_options(key))
        return not self._is_option[key]


def _with_values(tree: dict[str, Any] | None, values: Sequence[Override]) -> dict[str, Any] | None:
    """A copy with other values where plain ones take the place of plain ones; None where it takes OmegaConf to tell."""
    if tree is None:
        return None
    copied = copy.deepcopy(tree)
    for override in values:
        value, (*above, last) = override.value(), override.key_or_group.split(".")
        node: Any = copied
        for name in above:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
            return None
        if not (value is None or type(value) in (bool, int, float) or (type(value) is str and "$" not in value)):
            return None
        node[last] = value
    return copied
