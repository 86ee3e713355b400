"""The base of the kinds of sweep: words of a command line to jobs, known at once or found one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from vaebench.messages import NamedArguments, check_range

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


class BaseSweep(NamedArguments, ABC):
    """Base of the sweeps.

    Args:
        wait: Whether the command waits for its jobs; false submits them and leaves.
        dry_run: Whether the jobs are only shown.
        confirm_above: A sweep of more jobs says their number before it starts, >= 1.
    """

    is_adaptive: ClassVar[bool] = False

    def __init__(self, wait: bool = True, dry_run: bool = False, confirm_above: int = 100) -> None:
        check_range("confirm_above", confirm_above, at_least=1, whole=True)
        self.wait = wait
        self.dry_run = dry_run
        self.confirm_above = confirm_above

    @abstractmethod
    def jobs(self, overrides: Sequence[Override]) -> list[list[str]]:
        """Return the overrides of each job that is known before the first one starts.

        Raises:
            ValueError: the words describe no jobs of this kind.
        """


def fixed_word(override: Override) -> str:
    """Return an override without several values as a word."""
    from hydra.core.override_parser.types import OverrideType

    key = override.get_key_element()
    if override.type == OverrideType.DEL:
        return key
    return f"{key}={override.get_value_element_as_str()}"
