"""Never sideways: what has a configuration of its own imports no other of its kind, except what it derives from.

The layers themselves are contracts in pyproject.toml.
"""

from __future__ import annotations

import functools
import importlib

import grimp
import pytest
import yaml

from vaebench.factory.configurations import conf_dir, options

GROUPS = ("model", "sampler", "metric", "dataset")


@functools.cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("vaebench", cache_dir=None)


def modules(group: str) -> set[str]:
    """The modules named by the configurations of a group: one paper, one file, one yaml."""
    found = set()
    for name in options([conf_dir()]).get(group, []):
        content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text()) or {}
        nodes = [content, *(value for value in content.values() if isinstance(value, dict))]
        targets = [node["_target_"] for node in nodes if "." in str(node.get("_target_"))]
        found |= {target.rpartition(".")[0] for target in targets[:1]}
    return {module for module in found if module in graph().modules}


def derives(importer: str, imported: str) -> bool:
    """Whether a class of one module has a base in the other."""
    module = importlib.import_module(importer)
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == importer]
    return any(base.__module__ == imported for cls in own for base in cls.__mro__[1:])


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_imports_another_of_its_kind(group):
    concrete = {module for module in modules(group) if not module.endswith(".base")}
    sideways = {
        (importer, imported)
        for importer in concrete
        for imported in graph().find_modules_directly_imported_by(importer)
        if imported in concrete and not derives(importer, imported)
    }
    assert sideways == set()


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_shared_knows_no_concrete_one(group):
    concrete = {module for module in modules(group) if not module.endswith(".base")}
    rooms = {module.rpartition(".")[0] for module in concrete}
    shared = {child for room in rooms for child in graph().find_children(room)} - concrete
    upward = {
        (importer, imported)
        for importer in shared
        for imported in graph().find_modules_directly_imported_by(importer)
        if imported in concrete
    }
    assert upward == set()


def test_a_sideways_import_would_be_seen():
    assert "vaebench.models.base" in graph().find_modules_directly_imported_by("vaebench.models.vae")
    assert "vaebench.models.vae" in modules("model")
