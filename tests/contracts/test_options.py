"""Every key of every option does something: change it, and what the option does changes, or the table says why not.

A key that a sampler does not hand on, or a command ignores, is found here the day it appears. An option is
added without work where its values are numbers, truths or words with a few choices; CHANGES gives another value where
none can be guessed.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import composing
from tests.contracts import behaviour
from tests.contracts.option_values import CHANGES, ELSEWHERE, NEEDS, REASONS, SHORT, SMALL
from vaebench.factory.configurations import conf_dir, options
from vaebench.factory.groups import GROUPS
from vaebench.factory.signatures import parameters
from vaebench.factory.targets import AUTO, resolve


def entry(group: str, name: str) -> tuple[str, tuple[str, ...], str]:
    """The verb that takes an option, the words that choose it, and the place of its settings."""
    if group in ("kernel", "target"):
        return "sample", ("sampler=mcmc", f"{group}={name}"), f"sampler.{group}"
    if group == "callback":
        return "train", (f"callback=[{name}]",), f"callback.{name}"
    if group == "metric":
        return "evaluate", (f"metric=[{name}]",), f"metric.{name}"
    owner = MODEL_OF.get(f"{group}={name}", MODEL_OF.get(group))
    words = (f"{group}={name}", *([f"model={owner}"] if owner else []))
    return GROUPS[group].verbs[0], words, group.replace("/", ".")


MODEL_OF = {  # where the option needs another than the default
    "trainer=adversarial": "aae",
    "trainer=contrastive_divergence": "ebm",
    "trainer=coupled": "rae_l2",
    "trainer=coupled_adversarial": "vae_gan",
    "model/beta": "beta_vae",
    "model/quantizer": "vq_vae",
    "model/network=ladder": "ladder_vae",
    "model/network=vdvae": "vdvae",
    "model/network=nvae": "nvae",
    "model/prior=conditional_gaussian": "conditional_vae",
}


def own_options() -> list[tuple[str, str]]:
    """The options that are classes of their own, not other settings of one."""
    found = []
    for group in GROUPS:
        for name in options([conf_dir()]).get(group, []) if group != "experiment" else ():
            content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
            if content.get("_target_", AUTO) != AUTO and not (group == "dataset" and name in ELSEWHERE):
                found.append((group, name))
    return found


def base_of(group: str, name: str, folder: Path, key: str = "") -> dict[str, Any]:
    """The configuration from which one key is changed."""
    verb, words, _ = entry(group, name)
    cfg = composing.plain(verb, *words)
    if "model" in cfg:
        behaviour.small(cfg)
    if group in ("sampler", "kernel", "target"):
        cfg["sampler"].update({name: value for name, value in SHORT.items() if name in cfg["sampler"]})
    for scope in (group, f"{group}={name}", key):
        for path, value in SMALL.get(scope, {}).items():
            put(cfg, path, value)
    if group == "dataset" and name in ("arrays", "images"):
        file, pictures = behaviour.own_files(folder)
        cfg["dataset"]["path"] = str(file if name == "arrays" else pictures)
    if (group, name) == ("sweep", "list"):
        cfg["sweep"]["path"] = str(behaviour.own_list(folder))
    return cfg


def get(cfg: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        cfg = cfg[name]
    return cfg


def put(cfg: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    get(cfg, ".".join(above))[last] = value


def keys(group: str, name: str) -> list[str]:
    """The keys of an option; of a part that has a file of its own, one that shows that the part is used."""
    verb, words, place = entry(group, name)
    found = []
    for key, value in get(composing.plain(verb, *words), place).items():
        if key == "_target_":
            continue
        if not (isinstance(value, Mapping) and "_target_" in value):
            found.append(f"{place}.{key}")
            continue
        inner = [
            part for part, setting in value.items() if part != "_target_" and isinstance(setting, (int, float, list))
        ]
        found += [f"{place}.{key}.{part}" for part in inner[:1]]
    return found


def listed(table: Mapping[str, Any], group: str, name: str, key: str) -> str | None:
    """The most particular line of a table that speaks of a key."""
    short = key.rpartition(".")[2]
    return next((line for line in (f"{group}={name}:{key}", key, short, f"{group}={name}") if line in table), None)


def other_value(cfg: Mapping[str, Any], group: str, name: str, key: str) -> Any:
    """Another valid value."""
    line = listed(CHANGES, group, name, key)
    if line is not None:
        return CHANGES[line]
    value, (above, _, last) = get(cfg, key), key.rpartition(".")
    annotation = parameters(resolve(get(cfg, above)["_target_"], f"{above}._target_"))[last].annotation
    choices = [choice for choice in typing.get_args(annotation) if isinstance(choice, str) and choice != value]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return [value[0] + 1, *value[1:]]
    if choices:
        return choices[0]
    pytest.fail(
        f"{group}={name}: name another value than {key}={value} in CHANGES, or the reason for no effect in REASONS"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it loads its compiler
@pytest.mark.parametrize(("group", "name"), own_options(), ids=lambda value: value)
def test_every_key_has_an_effect_or_a_reason_for_none(group, name, tmp_path):
    if (group, name) in NEEDS:
        pytest.importorskip(NEEDS[group, name], reason="an extra that is not installed")
    behave = behaviour.of(group)
    seen: dict[str, Any] = {}
    ignored = []
    for number, key in enumerate(keys(group, name)):
        if listed(REASONS, group, name, key):
            continue
        scope = next((line for line in (f"{group}={name}:{key}", key) if line in SMALL), "")
        folders = [tmp_path / f"{number}-{side}" for side in ("before", "after")]
        for folder in folders:
            folder.mkdir()
        cfg = base_of(group, name, folders[0], scope)
        if scope not in seen:
            seen[scope] = behave(copy.deepcopy(cfg), folders[0])
        value = other_value(cfg, group, name, key)
        assert value != get(cfg, key), f"{group}={name}: CHANGES gives {key} the value that it has, {value}"
        put(cfg, key, value)
        if behave(cfg, folders[1]) == seen[scope]:
            ignored.append(f"{key}={value}")
    assert not ignored, (
        f"{group}={name}: nothing changes with {', '.join(ignored)}; is it handed on? If so, say why in REASONS"
    )


def test_every_reason_and_change_is_about_a_key_that_there_is():
    used = set()
    for group, name in own_options():
        for key in keys(group, name):
            used |= {listed(REASONS, group, name, key), listed(CHANGES, group, name, key)}
        used |= {f"{group}={name}"} & set(REASONS)
    assert set(REASONS) | set(CHANGES) <= used, sorted((set(REASONS) | set(CHANGES)) - used)
