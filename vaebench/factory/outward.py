"""Network addresses in a stored configuration: nothing is sent to one unless the user names it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaebench.factory.targets import ConfigError, resolve
from vaebench.messages import printable


def refuse_unasked(tree: Mapping[str, Any], composed: Mapping[str, Any]) -> None:
    """Refuse a callback that would report to an address, unless the command line alone names it too.

    Args:
        tree: The configuration of a run that goes on: as stored, with what was typed on top.
        composed: What the command line alone composes to.

    Raises:
        ConfigError: the address, and the two ways to go on.
    """
    typed = composed.get("callback") or {}
    for name, node in (tree.get("callback") or {}).items():
        address = _address(node, f"callback.{name}")
        if address is None or address == _address(typed.get(name), f"callback.{name}"):
            continue
        key, value = address
        raise ConfigError(
            f"callback.{name}: the stored configuration sends the run away ({key}={printable(value)}); to allow it "
            f"give callback=[{name}] callback.{name}.{key}=…, to go on without it callback=[]"
        )


def _address(node: Any, key: str) -> tuple[str, Any] | None:
    """The setting by which a callback leads away from this machine, with its value."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    outward: Mapping[str, Any] = getattr(resolve(node["_target_"], f"{key}._target_"), "outward", {})
    for name, harmless in outward.items():
        if name in node and node[name] not in harmless:
            return name, node[name]
    return None
