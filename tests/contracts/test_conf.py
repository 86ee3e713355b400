"""Every configuration composes, and says what its class says: names, defaults, targets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import composing
from vaebench import factory
from vaebench.cli import main as cli
from vaebench.cli.application import conf_dir
from vaebench.factory.configurations import defaults
from vaebench.factory.groups import GROUPS, MANY, TABLE
from vaebench.factory.signatures import REQUIRED, convert, parameters
from vaebench.factory.targets import AUTO, ROOMS, resolve

CONF = conf_dir()
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
OPTIONS = [name for name in FILES if "/" in name and not name.startswith("hydra/")]
VERBS = [verb for verb in cli.VERBS if verb not in ("list", "sweep")]
PUBLIC_NAMES = {
    "HamiltonianMonteCarlo": "hamiltonianmontecarlo",
    "LangevinDynamics": "langevindynamics",
    "MetropolisAdjustedLangevin": "metropolisadjustedlangevin",
    "ProgressBarCallback": "progressbar",
    "MetricConsolePrinterCallback": "metricconsoleprinter",
}


composed = cache(composing.plain)


def words_for(option: str) -> tuple[str, str, str]:
    """The verb that takes an option, the word that chooses it, and where its values then stand."""
    group, _, name = option.removesuffix(".yaml").rpartition("/")
    top = group.partition("/")[0]
    verb = GROUPS[top].verbs[0]
    if top in MANY:
        return verb, f"{group}=[{name}]", f"{group}.{name}"
    return verb, f"{group}={name}", group.replace("/", ".")


def host_of(option: str) -> list[str]:
    """The word that chooses a model with a part that the default model does not have."""
    group, _, part = option.rpartition("/")[0].partition("/")
    if group != "model" or not part:
        return []
    with_part = [
        path.stem
        for path in sorted((CONF / "model").glob("*.yaml"))
        if any(isinstance(entry, dict) and part in entry for entry in yaml.safe_load(path.read_text())["defaults"])
    ]
    return [] if "vae" in with_part else [f"model={with_part[0]}"]


def node_of(option: str) -> tuple[dict[str, Any], str]:
    verb, word, key = words_for(option)
    node: Any = composed(verb, *host_of(option), word)
    for name in key.split("."):
        node = node[name]
    return node, key


def with_targets(node: object, key: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every object of a tree."""
    if isinstance(node, Mapping):
        if node.get("_target_", AUTO) != AUTO:
            yield node, key
        for name, value in node.items():
            yield from with_targets(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from with_targets(value, f"{key}[{index}]")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes(verb):
    places = () if verb == "train" else ("dataset",)  # beside a stored run only where its data lie
    factory.check({name: value for name, value in composed(verb).items() if name not in ("target", *places)})


def test_every_group_is_in_the_table():
    assert {option.rpartition("/")[0] for option in OPTIONS} <= {group.name for group in TABLE}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_the_groups_that_the_table_gives_it(verb):
    assert set(defaults(verb, [CONF])) == {
        group.name for group in TABLE if verb in group.verbs and "/" not in group.name
    }


@pytest.mark.parametrize("group", TABLE, ids=lambda group: group.name)
def test_rooms_and_lists_of_the_table_hold(group):
    assert group.room is None or group.room in ROOMS
    for verb in group.verbs if "/" not in group.name else ():
        assert isinstance(defaults(verb, [CONF])[group.name], list) == group.is_many


@pytest.mark.parametrize("option", OPTIONS)
def test_it_composes_and_its_targets_are_allowed_classes(option):
    if option.startswith("experiment/"):
        verb, word, _ = words_for(option)
        factory.check(composed(verb, word))
        return
    node, key = node_of(option)
    assert node.get("_target_"), f"{option} names no _target_"
    for inner, path in with_targets(node, key):
        resolve(inner["_target_"], f"{path}._target_")


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith("experiment/")])
def test_keys_are_the_constructors_arguments_and_defaults_its_defaults(option):
    node, key = node_of(option)
    if node["_target_"] == AUTO:
        return
    own = own_settings(option)
    known = parameters(resolve(node["_target_"], f"{key}._target_"))
    given = {name for name in node if name != "_target_"}
    injected = (
        {"shape", "likelihood", "num_classes"} if option.startswith("model/") and option.count("/") == 1 else set()
    )
    injected |= {"device", "dtype"} if option.startswith("sampler/") else set()  # the hardware decides
    required = {name for name, parameter in known.items() if parameter.default is REQUIRED}
    assert given <= set(known), f"{option}: {sorted(given - set(known))} are no arguments"
    assert set(known) - injected <= given, f"{option} leaves out {sorted(set(known) - injected - given)}"
    for name in given - injected - own:
        if name in required:
            continue
        assert describes(node[name], known[name].default, known[name].annotation, f"{key}.{name}"), (
            f"{option}: {name} is {node[name]!r}, and {known[name].default!r} in the constructor"
        )


def own_settings(option: str) -> set[str]:
    """What a variant sets, and may: another option (`defaults: [auto, _self_]`), or another file's class."""
    own = yaml.safe_load((CONF / option).read_text()) or {}
    module = str(node_of(option)[0]["_target_"]).split(".")[-2]
    is_variant = "_target_" not in own or (option.startswith("model/") and option.count("/") == 1)
    parts = [next(iter(entry)) for entry in own.get("defaults", []) if isinstance(entry, dict)]
    replaced = {part.removeprefix("override ") for part in parts if part.startswith("override ")}
    return set(own) | replaced if is_variant and module != Path(option).stem else set()


def describes(value: Any, default: Any, annotation: Any, key: str) -> bool:
    """Whether a value of a configuration gives what the constructor would take by itself."""
    if isinstance(value, Mapping) and "_target_" in value:
        cls = resolve(value["_target_"], f"{key}._target_")
        if type(default) is not cls:
            return False
        known = parameters(cls)
        return all(
            describes(item, getattr(default, name), known[name].annotation, f"{key}.{name}")
            for name, item in value.items()
            if name != "_target_"
        )
    return convert(value, annotation, key, lambda _: None) == convert(plain(default), annotation, key, lambda _: None)


def plain(default: Any) -> Any:
    return (
        list(default) if isinstance(default, (tuple, list)) else str(default) if isinstance(default, Path) else default
    )


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.count("/") == 1])
def test_file_config_and_class_share_one_name(option):
    """File `beta_tc_vae.py` = config `beta_tc_vae.yaml` = class `BetaTCVAE`, unless the option is a variant."""
    group, _, name = option.removesuffix(".yaml").partition("/")
    if group in ("experiment", "hardware") or own_settings(option):
        return
    target = node_of(option)[0]["_target_"]
    _, module, cls = target.rsplit(".", 2)
    if group == "trainer":  # as models name the trainer that they need
        assert (module, resolve(target, "trainer._target_").name) == (name, name)
        return
    plain_name = re.sub(r"[^a-z0-9]", "", cls.lower()).removesuffix(group).removesuffix("energy")
    searched = PUBLIC_NAMES.get(cls, module)  # a name that users search for, where the option's is shorter
    assert plain_name in (module.replace("_", ""), searched)
    assert module == name


@pytest.mark.parametrize("option", OPTIONS)
def test_the_first_line_says_what_it_is(option):
    lines = (CONF / option).read_text().splitlines()
    lines = [line for line in lines if not line.startswith("# @package")]
    if option.count("/") == 1 and option.partition("/")[0] not in MANY:
        assert lines[0].startswith("# "), f"{option}: `vaebench list` shows the comment of the first line"
