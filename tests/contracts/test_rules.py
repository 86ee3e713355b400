"""What the repository decided about its texts and modules: references, shapes, examples, names, sizes, no circles."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import grimp
import pytest
import yaml

from vaebench.factory.configurations import conf_dir, options

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vaebench"
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
MODULES = [name.removesuffix(".__init__") for name in MODULES if not name.endswith("__main__")]

# Groups whose classes come from the literature.
PUBLISHED = ("model", "model/posterior", "model/prior", "kernel", "sampler", "metric", "extractor")
# Rooms of mathematics, where a tensor without a shape says nothing.
SHAPED = ("distributions", "energies", "mcmc", "metrics", "models", "networks", "objectives", "samplers")
A_SHAPE = re.compile(
    r"\bshapes?\b|\bscalars?\b|\((?:\*?[A-Za-z]\w*, ?)*\*?[A-Z]\w*,?\)|\(\.\.\.|[Ss]ame as|as (?:in )?`"
)
# Circles that the design allows, seen by type checkers only.
CIRCLES = {
    frozenset({"vaebench.energies.base", "vaebench.energies.target"}): "an analytic energy is its own target",
}
LONGEST = 400


@functools.cache
def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def public_classes(name: str) -> Iterator[type]:
    for found in vars(module(name)).values():
        if inspect.isclass(found) and found.__module__ == name and not found.__name__.startswith("_"):
            yield found


def option_classes() -> dict[str, str]:
    """The `_target_` that an option's own file names."""
    found = {}
    for group in PUBLISHED:
        for name in options([conf_dir()]).get(group, []):
            content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text()) or {}
            node = content if "_target_" in content else content.get("metric", {}).get(name, {})
            if "_target_" in node:
                found[f"{group}/{name}"] = node["_target_"]
    return found


@pytest.mark.parametrize("target", option_classes().values(), ids=option_classes())
def test_a_method_names_its_paper(target):
    module_name, _, class_name = target.rpartition(".")
    documentation = inspect.getdoc(getattr(module(module_name), class_name)) or ""
    section = re.search(r"^References:\n((?:[ \t]+.*\n?)+)", documentation, re.MULTILINE)
    assert section is not None, f"{target} has no section References"
    assert "http" in section[1], f"{target}: the references have no address"
    assert re.search(r"(?:19|20)\d\d", section[1]), f"{target}: the references have no year"


def returns_a_tensor(function: object) -> bool:
    return "Tensor" in str(getattr(function, "__annotations__", {}).get("return", ""))


def documentation_of(name: str, owner: type | None, function: object) -> str:
    """A method's words, those of what it overrides, and those of its class."""
    if owner is None:
        return inspect.getdoc(function) or ""
    places = [vars(parent).get(name) for parent in owner.__mro__]
    texts = [inspect.getdoc(getattr(place, "fget", place)) or "" for place in places if place is not None]
    return "\n".join([*texts, inspect.getdoc(owner) or ""])


def tensor_functions(module_name: str) -> Iterator[tuple[str, type | None, object]]:
    for name, found in vars(module(module_name)).items():
        if inspect.isfunction(found) and found.__module__ == module_name and not name.startswith("_"):
            yield name, None, found
    for owner in public_classes(module_name):
        for name, member in vars(owner).items():
            function = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
            if not name.startswith("_") and inspect.isfunction(function):
                yield name, owner, function


@pytest.mark.parametrize(
    "module_name", [name for name in MODULES if name.split(".")[1:2] in [[room] for room in SHAPED]]
)
def test_a_tensor_that_is_returned_has_a_shape(module_name):
    without = [
        f"{owner.__name__ + '.' if owner else ''}{name}"
        for name, owner, function in tensor_functions(module_name)
        if returns_a_tensor(function) and not A_SHAPE.search(documentation_of(name, owner, function))
    ]
    assert not without, f"{module_name}: the docstrings of {', '.join(without)} say no shape"


@pytest.mark.parametrize("name", [name for name in MODULES if ">>>" in (inspect.getsource(module(name)))])
def test_the_examples_in_docstrings_run(name):
    outcome = doctest.testmod(module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def files() -> list[Path]:
    found = [path for folder in ("vaebench", "tests", "scripts") for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def test_no_file_is_longer_than_one_can_read():
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in files()}
    assert {name for name, length in lengths.items() if length > LONGEST} == set()


def test_no_two_public_classes_share_a_name():
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def circles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """The strongly connected components of more than one module: each two of their modules import each other."""
    reached = {name: reachable(name, imports) for name in imports}
    found = {frozenset({name, *(other for other in reached[name] if name in reached[other])}) for name in imports}
    return {component for component in found if len(component) > 1}


def reachable(name: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        new = imports.get(left.pop(), set()) - found
        found |= new
        left.extend(new)
    return found


def imports(*, with_types: bool) -> dict[str, set[str]]:
    graph = grimp.build_graph("vaebench", cache_dir=None, exclude_type_checking_imports=not with_types)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_no_two_modules_need_each_other():
    assert circles(imports(with_types=False)) == set()


def test_no_two_modules_name_each_other_in_type_hints():
    assert circles(imports(with_types=True)) - set(CIRCLES) == set()


def test_a_circle_would_be_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {frozenset({"b", "c"})}
