"""A constructor's parameters, and plain configuration values held against their annotations."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import inspect
import math
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, cast

import typing_extensions

from vaebench.factory.groups import GROUPS
from vaebench.factory.targets import ConfigError
from vaebench.messages import did_you_mean

REQUIRED = inspect.Parameter.empty
_ABSTRACT_LISTS = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_LISTS = (list, tuple, set, frozenset, *_ABSTRACT_LISTS)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_PLAIN: dict[Any, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63,
    float: lambda value: _is_number(value),
    str: lambda value: isinstance(value, str),
    Path: lambda value: isinstance(value, str) and bool(value),
    None: lambda value: value is None,
    type(None): lambda value: value is None,
}
_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    None: "null",
    type(None): "null",
}


@dataclass(frozen=True)
class Parameter:
    """One argument of a constructor: its annotation, or Any, and its default, or REQUIRED."""

    annotation: Any
    default: Any


def parameters(cls: type[Any]) -> dict[str, Parameter]:
    """The keyword arguments of a constructor.

    Where it passes **kwargs on, its parents' too: those that `**kwargs: Unpack[TypedDict]` names, or all of them.
    """
    found: dict[str, Parameter] = {}
    wanted: set[str] | None = None
    for parent in cls.__mro__:
        given = vars(parent).get("__init__")
        if not isinstance(given, types.FunctionType):
            continue
        init = cast(types.FunctionType, inspect.unwrap(given))
        hints = _hints(parent, init)
        passed_on: str | None = None
        for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                passed_on = name
            elif parameter.kind is not parameter.VAR_POSITIONAL and (wanted is None or name in wanted):
                found.setdefault(name, Parameter(hints.get(name, Any), parameter.default))
        if passed_on is None:
            break
        named = _unpacked(hints.get(passed_on))
        wanted = named if wanted is None or named is None else wanted & named
    return found


def _unpacked(annotation: Any) -> set[str] | None:
    """The keys of `Unpack[TypedDict]`, None for any other annotation."""
    if typing_extensions.get_origin(annotation) is not typing_extensions.Unpack:
        return None
    return set(typing_extensions.get_args(annotation)[0].__annotations__)


def convert(value: object, annotation: Any, key: str, class_of: Callable[[object], type | None]) -> Any:
    """Hold a plain value against an annotation.

    Args:
        value: From YAML: numbers, strings, booleans, None, lists, mappings; or what stands for an object to be built.
        annotation: A type hint.
        key: For the sentence.
        class_of: The class of what stands for an object, None for a plain value.

    Returns: the value; an int given for a float as a float, a list given for a tuple or Sequence as a tuple, a string
        given for a Path as a Path.

    Raises:
        ConfigError: what was expected, what came, and the key.
    """
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return convert(value, options[0], key, class_of)
    if annotation in (Any, object, REQUIRED) or isinstance(annotation, (str, typing.TypeVar)):
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, annotation, key, class_of)
    if origin is typing.Literal:
        if any(type(value) is type(option) and value == option for option in options):
            return value
        names = [option for option in options if isinstance(option, str)]
        near = did_you_mean(value, names) if isinstance(value, str) and names else ""
        raise ConfigError(f"{key}: expected {_describe(annotation)}, got {_show(value, class_of)}{_hint_only(near)}")
    expected = origin or annotation
    given = class_of(value)
    if given is not None:
        if _is_kind_of(given, expected):
            return value
    elif expected in _PLAIN:
        if _PLAIN[expected](value):
            return expected(value) if expected in (float, Path) else value
    elif expected in _LISTS and isinstance(value, (list, tuple)):
        return _convert_list(value, expected, options, key, class_of, annotation)
    elif expected in _MAPPINGS and isinstance(value, Mapping):
        item = options[1] if len(options) == 2 else Any
        return {name: convert(entry, item, f"{key}.{name}", class_of) for name, entry in value.items()}
    if expected is int and isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{key}: expected {_describe(annotation)} of at most 64 bits, got {_show(value, class_of)}")
    hint = f"; quote it: {key}=\"'{value}'\"" if expected is str and isinstance(value, (int, float)) else ""
    if expected in _LISTS and isinstance(value, (int, float, str)):
        with contextlib.suppress(ConfigError):
            convert([value], annotation, key, class_of)
            hint = f"; for a single one write {key}=[{value}]"
    if expected not in (*_PLAIN, *_LISTS, *_MAPPINGS) and isinstance(value, str) and "." in value:
        hint = f"; to build one write '{key}={{_target_: {value}}}'"
    elif expected not in (*_PLAIN, *_LISTS, *_MAPPINGS) and isinstance(value, str) and key.replace(".", "/") in GROUPS:
        hint = f"; choose one with {key.replace('.', '/')}={value}"
    raise ConfigError(f"{key}: expected {_describe(annotation)}, got {_show(value, class_of)}{hint}")


def without_null(annotation: Any) -> Any:
    """The annotation less the None in its union."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    return reduce(operator.or_, [option for option in typing.get_args(annotation) if option is not type(None)])


def _convert_union(value: object, annotation: Any, key: str, class_of: Callable[[object], type | None]) -> Any:
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    if value is None and len(options) < len(typing.get_args(annotation)):
        return None
    if len(options) == 1:
        return convert(value, options[0], key, class_of)
    # Exact types first, so that 1 stays an int for `float | int`.
    for option in sorted(options, key=lambda option: option is not type(value)):
        try:
            return convert(value, option, key, class_of)
        except ConfigError:
            continue
    raise ConfigError(f"{key}: expected {_describe(annotation)}, got {_show(value, class_of)}")


def _convert_list(
    value: list[Any] | tuple[Any, ...],
    expected: type,
    options: tuple[Any, ...],
    key: str,
    class_of: Callable[[object], type | None],
    annotation: Any,
) -> Any:
    if expected is tuple and options and options[-1] is not Ellipsis:
        if len(options) != len(value):
            raise ConfigError(f"{key}: expected {_describe(annotation)}, got {_show(value, class_of)}")
        kinds = options
    else:
        kinds = (options[0] if options else Any,) * len(value)
    items = [
        convert(item, kind, f"{key}[{i}]", class_of) for i, (item, kind) in enumerate(zip(value, kinds, strict=True))
    ]
    return expected(items) if expected in (list, set, frozenset) else tuple(items)


def _is_kind_of(given: type, expected: Any) -> bool:
    if getattr(expected, "_is_protocol", False):
        return all(_takes_calls_of(given, expected, name) for name in _protocol_methods(expected))
    if expected is collections.abc.Callable:
        return hasattr(given, "__call__")  # noqa: B004 - the question is whether instances are callable
    return not isinstance(expected, type) or issubclass(given, expected)


def _takes_calls_of(given: type, protocol: type, name: str) -> bool:
    """Whether a class has a method of the protocol, and that method takes the positional arguments passed to it."""
    method, described = getattr(given, name, None), getattr(protocol, name)
    if not isinstance(method, types.FunctionType) or not isinstance(described, types.FunctionType):
        return hasattr(given, name)
    passed = [p for p in inspect.signature(described).parameters.values() if p.default is p.empty]
    try:
        inspect.signature(method).bind(*(p.name for p in passed if p.kind is p.POSITIONAL_OR_KEYWORD))
    except TypeError:
        return False
    return True


def _protocol_methods(protocol: type) -> set[str]:
    return {
        name
        for parent in protocol.__mro__
        if getattr(parent, "_is_protocol", False) and parent is not typing.Protocol
        for name, value in vars(parent).items()
        if (name == "__call__" or not name.startswith("_")) and (callable(value) or isinstance(value, property))
    }


def _describe(annotation: Any) -> str:
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is typing.Literal:
        return f"one of {', '.join('null' if option is None else str(option) for option in options)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in options)
    if origin is tuple and options and options[-1] is not Ellipsis:
        return f"a list of {len(options)} ({', '.join(_describe(option) for option in options)})"
    if (origin or annotation) in _LISTS:
        return f"a list (each {_describe(options[0])})" if options else "a list"
    if (origin or annotation) in _MAPPINGS:
        return "a mapping"
    return f"a {getattr(annotation, '__name__', annotation)}"


def _show(value: object, class_of: Callable[[object], type | None]) -> str:
    cls = class_of(value)
    if cls is not None:
        return f"a {cls.__name__}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if isinstance(value, (str, int, float, list, tuple)) else f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}…"


def _is_number(value: Any) -> bool:
    """Whether it is a float but nan, or an integer that a float can hold."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, float) and not math.isnan(value)


def _hint_only(near: str) -> str:
    return near if "did you mean" in near else ""  # the sentence already lists the valid names


def _hints(cls: type, init: types.FunctionType) -> dict[str, Any]:
    """Annotations of a constructor; those of a dataclass are its fields', each read in the module that wrote it."""
    if not dataclasses.is_dataclass(cls):
        return _evaluated(init.__annotations__, init.__globals__)
    hints = {}
    for parent in reversed(cls.__mro__):
        hints.update(_evaluated(vars(parent).get("__annotations__", {}), vars(sys.modules[parent.__module__])))
    return hints


def _evaluated(annotations: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    hints = {}
    for name, annotation in annotations.items():
        try:
            hints[name] = eval(annotation, names) if isinstance(annotation, str) else annotation
        except NameError:  # imported for type checkers only
            hints[name] = Any
    return hints
