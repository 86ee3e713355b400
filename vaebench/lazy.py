"""Names of a package that are imported when they are first used (PEP 562), found in its sources."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lazy_classes(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`: every public class of its modules, imported on first use.

    Args:
        package: Its dotted name.
    """

    @functools.cache
    def modules() -> dict[str, str]:
        spec = find_spec(package)
        assert spec is not None
        found: dict[str, str] = {}
        for entry in pkgutil.walk_packages(spec.submodule_search_locations, f"{package}."):
            source = find_spec(entry.name)
            if source is not None and source.origin is not None and not entry.ispkg:
                text = Path(source.origin).read_text(encoding="utf-8")
                found |= dict.fromkeys(re.findall(r"^class ([A-Z]\w*)", text, re.MULTILINE), entry.name)
        return found

    def get(name: str) -> Any:
        if name[:1].isupper() and name in modules():
            return getattr(importlib.import_module(modules()[name]), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get, lambda: sorted(modules())
