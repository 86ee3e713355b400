"""From a node of the configuration to an object, in two steps: a recipe, checked throughout, and the making."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vaebench.factory.signatures import REQUIRED, convert, parameters, without_null
from vaebench.factory.targets import ConfigError, check_targets, resolve
from vaebench.messages import did_you_mean

MISSING = "???"


@dataclass(frozen=True)
class Recipe:
    """A class and its arguments, checked by name and type; arguments may hold recipes.

    Attributes:
        target: The class.
        arguments: By name.
        key: Where it stands in the configuration.
    """

    target: type[Any]
    arguments: dict[str, Any]
    key: str

    def make(self, **injected: Any) -> Any:
        """Construct the object; `injected` arguments come from the program, not from the configuration.

        Raises:
            ConfigError: the constructor refused a value; the sentence names its key.
        """
        arguments = {name: _make(value) for name, value in self.arguments.items()}
        try:
            return self.target(**injected, **arguments)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(self._with_key(str(error))) from error

    def _with_key(self, sentence: str) -> str:
        first = re.match(r"[A-Za-z_]\w*", sentence)
        if first and first[0] in parameters(self.target):
            return f"{self.key}.{sentence}"
        if sentence.startswith((f"{self.key}.", f"{self.key.partition('.')[0]}.")):
            return sentence
        return f"{self.key}: {sentence}"


def recipe(node: object, key: str, injected: Collection[str] = ()) -> Recipe:
    """Check a node against the constructor that it names: targets, keys, types, in that order; nothing is built.

    Args:
        node: A mapping with a `_target_`.
        key: Its place in the configuration.
        injected: Arguments that the program will give; the configuration may give them too, but not as null.

    Raises:
        ConfigError: the first mistake, with its key and the nearest valid name.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{key}: expected a mapping with a '_target_', got {type(node).__name__}; choose one: {key}=")
    check_targets(node, key)
    cls = resolve(node["_target_"], f"{key}._target_")
    known = parameters(cls)
    arguments = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in known:
            choices = set(known) - {name for name in injected if name not in node}
            hint = did_you_mean(str(name), choices) or f"; {cls.__name__} takes no settings"
            raise ConfigError(f"{key}.{name}: {cls.__name__} has no such setting{hint}")
        annotation = known[str(name)].annotation
        arguments[str(name)] = convert(
            _with_recipes(value, f"{key}.{name}"),
            without_null(annotation) if name in injected else annotation,
            f"{key}.{name}",
            _class_of,
        )
    for name, parameter in known.items():
        if parameter.default is REQUIRED and name not in arguments and name not in injected:
            raise ConfigError(f"{key}.{name}: {cls.__name__} needs a value; set {key}.{name}=")
    return Recipe(cls, arguments, key)


def _with_recipes(value: object, key: str) -> object:
    if isinstance(value, str) and value == MISSING:
        raise ConfigError(f"{key}: a value is needed; set {key}=")
    if isinstance(value, Mapping):
        if "_target_" in value:
            return recipe(value, key)
        return {name: _with_recipes(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_recipes(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return value


def _class_of(value: object) -> type | None:
    return value.target if isinstance(value, Recipe) else None


def _make(value: Any) -> Any:
    if isinstance(value, Recipe):
        return value.make()
    if isinstance(value, dict):
        return {name: _make(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_make(item) for item in value)
    return value
