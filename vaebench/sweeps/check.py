"""Check the configurations of jobs, in a process of its own: it needs the classes, and so torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from vaebench import factory


def mistakes(trees: Sequence[Any]) -> list[list[Any]]:
    """Return the number, overrides and sentence of each job whose configuration is wrong.

    Args:
        trees: For each job its number, its overrides and its configuration as plain values.
    """
    found = []
    for number, overrides, tree in trees:
        try:
            factory.check(tree)
        except ValueError as error:
            found.append([number, overrides, str(error)])
    return found


if __name__ == "__main__":
    json.dump(mistakes(json.load(sys.stdin)), sys.stdout)
