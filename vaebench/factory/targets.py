"""Which classes a configuration may name: those defined in vaebench's own rooms, and in packages that the user allows.

A configuration that came with a run is a stranger's text, and whoever resolves its `_target_` runs what it names. So
the whole tree is judged by name before anything is imported, and then by what the name turned out to be.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vaebench.factory.groups import GROUPS, MANY
from vaebench.messages import did_you_mean

ROOMS = (
    "data",
    "distributions",
    "energies",
    "hardware",
    "mcmc",
    "metrics",
    "models",
    "networks",
    "objectives",
    "samplers",
    "schedules",
    "sweeps",
    "trainers",
)
AUTO = "auto"  # as model.likelihood._target_: the data set's own likelihood


class ConfigError(ValueError):
    """A mistake in the configuration; the sentence names the key."""


def targets(tree: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every `_target_` in a tree of mappings and lists, with its key.

    Raises:
        ConfigError: a key with a leading underscore other than `_target_` (`_args_`, `_partial_`, …).
    """
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            path = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield path, value
            elif str(name).startswith("_"):
                raise ConfigError(f"{path} is not allowed: '_target_' is the only special key here")
            else:
                yield from targets(value, path)
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from targets(value, f"{key}[{index}]")


def check_targets(tree: object, key: str = "") -> None:
    """Refuse a tree in which any `_target_` lies outside the allow-list; imports nothing.

    Raises:
        ConfigError: the sentence names the key.
    """
    for path, target in targets(tree, key):
        if target == AUTO and path == "model.likelihood._target_":
            continue
        _check_name(target, path)


def resolve(target: object, key: str) -> type[Any]:
    """The class that a `_target_` names.

    Raises:
        ConfigError: the name is not on the allow-list, there is no such class, or it is only imported there from
            somewhere that is not on the list.
    """
    module_name, class_name = _check_name(target, key)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(f"{key}: '{target}' needs the package '{error.name}', which is not installed") from error
        near = _near_module(module_name)
        hint = near or "; a module of your own must be installed, or its folder be on PYTHONPATH"
        raise ConfigError(f"{key}: there is no module '{module_name}'{hint}") from None
    found = getattr(module, class_name, None)  # a package may import its names lazily
    if not isinstance(found, type) or not _is_allowed(found.__module__):
        classes = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and _is_allowed(value.__module__) and not name.startswith("_")
        ]
        raise ConfigError(f"{key}: '{module_name}' defines no class '{class_name}'{did_you_mean(class_name, classes)}")
    return found


def _check_name(target: object, key: str) -> tuple[str, str]:
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", target, re.ASCII):
        raise ConfigError(f"{key}: expected the dotted name of a class, got {target!r}")
    module_name, _, class_name = target.rpartition(".")
    group, *beneath = re.split(r"[.\[]", key.removesuffix("._target_"))
    is_groups_own = group in GROUPS and len(beneath) <= (group in MANY)  # parts below it may come from any package
    room = GROUPS[group].room if is_groups_own else None
    in_room = _is_within(module_name, f"vaebench.{room}") if room else _is_in_a_room(module_name)
    if not in_room and not _is_users(module_name):
        expected = f"vaebench.{room}" if room else f"vaebench ({', '.join(ROOMS)})"
        named = os.environ.get("VAEBENCH_ALLOW", "")
        raise ConfigError(
            f"{key}: '{target}' is not allowed: expected a class of {expected}, or of a package of your own that the "
            f"environment variable VAEBENCH_ALLOW names{f' (now {named!r})' if named else ''}"
        )
    return module_name, class_name


def _is_allowed(module_name: str) -> bool:
    return _is_in_a_room(module_name) or _is_users(module_name)


def _is_in_a_room(module_name: str) -> bool:
    return any(_is_within(module_name, f"vaebench.{room}") for room in ROOMS)


def _is_users(module_name: str) -> bool:
    packages = re.split(r"[,:;\s]+", os.environ.get("VAEBENCH_ALLOW", ""))
    return any(_is_within(module_name, package) for package in packages if package)


def _is_within(module_name: str, package: str) -> bool:
    return module_name == package or module_name.startswith(f"{package}.")


def _near_module(module_name: str) -> str:
    package_name, _, name = module_name.rpartition(".")
    try:
        package = importlib.import_module(package_name)
    except (ImportError, ValueError):
        return ""
    return did_you_mean(name, [entry.name for entry in pkgutil.iter_modules(getattr(package, "__path__", []))])
