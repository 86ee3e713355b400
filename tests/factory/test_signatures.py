from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Protocol

import pytest
from typing_extensions import Required, TypedDict, Unpack

from vaebench.factory.signatures import REQUIRED, Parameter, convert, parameters
from vaebench.factory.targets import ConfigError


class Flies(Protocol):
    def fly(self) -> None: ...


class Bird:
    def fly(self) -> None: ...


class Plane:
    def fly(self, fuel: float) -> None: ...


class Stone: ...


class Standing:
    """What stands for an object that is to be built."""

    def __init__(self, cls: type) -> None:
        self.cls = cls


def class_of(value: object) -> type | None:
    return value.cls if isinstance(value, Standing) else None


GOOD = [
    (3, int, 3),
    (3, float, 3.0),
    (1e-3, float, 1e-3),
    (float("inf"), float, float("inf")),
    (True, bool, True),
    ("a", str, "a"),
    ("a/b", Path, Path("a/b")),
    (None, int | None, None),
    (None, Optional[int], None),  # noqa: UP045 - the old spelling is read too
    (2, int | None, 2),
    (2, int | float, 2),
    (2, float | int, 2),
    ("auto", bool | str, "auto"),
    (True, bool | str, True),
    ([1, 2], Sequence[int], (1, 2)),
    ([1, 2], list[int], [1, 2]),
    ([1, 2.5], tuple[int, float], (1, 2.5)),
    ([], tuple[int, ...], ()),
    ([[1], [2, 3]], Sequence[Sequence[int]], ((1,), (2, 3))),
    ({"a": 1}, dict[str, Any], {"a": 1}),
    ({"a": 1}, Mapping[str, float], {"a": 1.0}),
    ({"a": {"b": 1e-4}}, dict[str, dict[str, Any]] | None, {"a": {"b": 1e-4}}),
    ("sum", Literal["sum", "mean"], "sum"),
    ("whatever", Any, "whatever"),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), GOOD)
def test_a_value_that_fits_is_taken(value, annotation, expected):
    found = convert(value, annotation, "k", class_of)
    assert found == expected
    assert type(found) is type(expected)


BAD = [
    ("abc", int, "an integer, got 'abc'"),
    ("1.5", int, "an integer, got '1.5'"),
    (1.5, int, "an integer, got 1.5"),
    (1.0, int, "an integer, got 1.0"),
    (True, int, "an integer, got true"),
    (None, int, "an integer, got null"),
    (2**63, int, "an integer of at most 64 bits, got 9223372036854775808"),
    (10**400, float, "a number, got 1" + "0" * 96 + "…"),
    ("1e-3", float, "a number, got '1e-3'"),
    ("abc", float, "a number, got 'abc'"),
    (float("nan"), float, "a number, got nan"),
    (False, float, "a number, got false"),
    (1, bool, "true or false, got 1"),
    ("yes", bool, "true or false, got 'yes'"),
    (12, str, "a string, got 12; quote it: k=\"'12'\""),
    (12, Path, "a path, got 12"),
    (3, Sequence[int], "a list (each an integer), got 3; for a single one write k=[3]"),
    ("ab", Sequence[str], "a list (each a string), got 'ab'; for a single one write k=[ab]"),
    ("ab", Sequence[int], "a list (each an integer), got 'ab'"),
    ([1], tuple[int, int], "a list of 2 (an integer, an integer), got [1]"),
    ([1], dict[str, int], "a mapping, got [1]"),
    ("summ", Literal["sum", "mean"], "one of sum, mean, got 'summ'; did you mean 'sum'?"),
    (1, Literal["sum"], "one of sum, got 1"),
    (True, Literal[1], "one of 1, got true"),
    ("x", int | float, "an integer or a number, got 'x'"),
    ("x" * 500, int, "an integer, got '" + "x" * 96 + "…"),
    (None, Flies, "a Flies, got null"),
    ("bird", Flies, "a Flies, got 'bird'"),
    ("my.Bird", Flies, "a Flies, got 'my.Bird'; to build one write 'k={_target_: my.Bird}'"),
    (Standing(Stone), Flies, "a Flies, got a Stone"),
    (Standing(Plane), Flies, "a Flies, got a Plane"),  # its method takes other arguments
    (Standing(Stone), Bird, "a Bird, got a Stone"),
    (Standing(Stone), int, "an integer, got a Stone"),
    ({"_": 1}, Bird, "a Bird, got a dict"),
]


@pytest.mark.parametrize(("value", "annotation", "sentence"), BAD)
def test_a_value_that_does_not_fit_is_refused(value, annotation, sentence):
    with pytest.raises(ConfigError) as caught:
        convert(value, annotation, "k", class_of)
    assert str(caught.value) == f"k: expected {sentence}"


def test_the_element_is_named():
    with pytest.raises(ConfigError, match=r"^k\[1\]: expected an integer, got 'x'$"):
        convert([1, "x"], Sequence[int] | None, "k", class_of)
    with pytest.raises(ConfigError, match=r"^k\.b: expected a number, got 'x'$"):
        convert({"a": 1, "b": "x"}, dict[str, float], "k", class_of)


@pytest.mark.parametrize("annotation", [Flies, Bird, Bird | None, Any, object])
def test_an_object_of_the_right_kind_is_taken(annotation):
    bird = Standing(Bird)
    assert convert(bird, annotation, "k", class_of) is bird


class Base:
    def __init__(self, shape: Sequence[int], *, size: int = 1, name: str = "a") -> None: ...


class PassesOn(Base):
    def __init__(self, *arguments: Any, extra: Nowhere | None = None, size: int = 2, **kwargs: Any) -> None:  # type: ignore[name-defined] # noqa: F821
        super().__init__(*arguments, size=size, **kwargs)


class Inherits(Base): ...


class Wings(TypedDict, total=False):
    size: int
    name: Required[str]


class Unpacks(Base):
    def __init__(self, shape: Sequence[int], *, size: int = 5, **wings: Unpack[Wings]) -> None:
        super().__init__(shape, **wings)


class UnpacksTwice(Unpacks):
    def __init__(self, *, other: int = 1, **wings: Unpack[Wings]) -> None:
        super().__init__((1,), **wings)


@dataclass(kw_only=True)
class Description:
    size: int = 3
    optimizer_args: dict[str, Any] | None = None


def test_parameters_of_a_constructor_and_of_those_it_passes_on_to():
    assert parameters(Inherits) == parameters(Base)
    assert parameters(Base)["shape"] == Parameter(Sequence[int], REQUIRED)
    assert {name: p.default for name, p in parameters(PassesOn).items()} == {
        "extra": None, "size": 2, "shape": REQUIRED, "name": "a",
    }  # fmt: skip
    assert parameters(PassesOn)["extra"].annotation is Any  # its name exists for type checkers only
    assert parameters(PassesOn)["size"].annotation is int
    assert parameters(Description)["optimizer_args"] == Parameter(dict[str, Any] | None, None)
    assert parameters(Stone) == {}


def test_parameters_named_by_an_unpacked_typed_dict_have_the_parents_defaults():
    assert parameters(Unpacks) == {
        "shape": Parameter(Sequence[int], REQUIRED), "size": Parameter(int, 5), "name": Parameter(str, "a"),
    }  # fmt: skip
    assert parameters(UnpacksTwice) == {
        "other": Parameter(int, 1), "size": Parameter(int, 5), "name": Parameter(str, "a"),
    }  # fmt: skip
