"""The policy for losses and gradients that are not finite, and for gradients that are huge."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vaebench.trainers.parts import Part

log = logging.getLogger(__name__)
_EVERY = 50  # steps between checks on a GPU, each of which waits for it
_LEAST_SCALE = 1e-4  # of the float16 loss scale, as in fairseq; below it, overflow is not the cause


class NonFiniteError(ArithmeticError):
    """A loss or gradient is infinite or not a number."""


class FiniteCheck:
    """Watches the values of every step.

    On a CPU each step is checked; on a GPU values are kept on the device and read every 50 steps and before each save.

    Attributes:
        skipped: Whether the current step was skipped.
        num_skipped: How many were.
        num_large: How many because a gradient's norm was too large.
        num_overflows: Updates that the gradient scaler of float16 left out; the first few are its search for a scale.

    Args:
        policy: "stop" or "skip"; "skip" reads every step before the weights change, on a GPU too.
        max_skipped: Steps that may be left out.
        device: Where the values are.
        is_scaled: Whether there is a gradient scaler.
        largest_norm: Norm of a gradient above which a step is left out; None leaves none out. Where it is set, a GPU
            is waited for in each step.
    """

    def __init__(
        self,
        policy: str,
        max_skipped: int,
        device: torch.device,
        is_scaled: bool = False,
        largest_norm: float | None = None,
    ) -> None:
        self.policy = policy
        self.max_skipped = max_skipped
        self.is_scaled = is_scaled
        self.largest_norm = largest_norm
        self.num_skipped = 0
        self.num_large = 0
        self.num_overflows = 0
        self._every = 1 if device.type == "cpu" else _EVERY
        self._waiting: list[tuple[int, Mapping[str, Tensor]]] = []
        self.skipped = False

    def allows(self, step: int, terms: Mapping[str, Tensor], parts: Iterable[Part]) -> bool:
        """Whether the weights may be updated by the current gradients.

        Raises:
            NonFiniteError: too many steps were left out.
        """
        if self.policy != "skip":
            return True
        found = first_non_finite({**terms, **gradients(parts)})
        if found is None:
            return True
        self.skipped = True
        self.num_skipped += 1
        name, value = found
        if self.num_skipped > self.max_skipped:
            raise NonFiniteError(
                f"step {step + 1}: {name} is {value}, and trainer.max_skipped={self.max_skipped} lets no more steps be "
                f"left out; lower trainer.learning_rate"
            )
        log.warning("step %d left out: %s is %s (%d so far)", step + 1, name, value, self.num_skipped)
        return False

    def allows_norms(self, parts: Iterable[Part]) -> bool:
        """Whether no gradient is finite and above the largest norm; one that is not finite is left to `policy`."""
        if self.largest_norm is None:
            return True
        is_large = any(self.largest_norm < float(norm) < math.inf for norm in gradients(parts).values())
        self.skipped = self.skipped or is_large
        self.num_large += is_large
        return not is_large

    def note_overflow(self, step: int, part: str, scale: float) -> None:
        """Count an update that the gradient scaler left out.

        Raises:
            NonFiniteError: if the scale is so small that overflow cannot be the cause.
        """
        self.num_overflows += 1
        if scale < _LEAST_SCALE:
            raise NonFiniteError(
                f"step {step + 1}: gradient of {part} is not finite, even of the loss times {scale:.1g}; lower "
                f"trainer.learning_rate, or choose hardware.precision=bf16 or fp32"
            )

    def note(self, step: int, terms: Mapping[str, Tensor], parts: Iterable[Part] = ()) -> None:
        """Look at the values of a step that was taken, now or later; at gradients where their norm is known."""
        if self.skipped:
            self.skipped = False
            return
        if self.policy == "skip":
            return
        self._waiting.append((step, {**terms, **gradients(parts)}))
        if len(self._waiting) >= self._every:
            self.check()

    def check(self) -> None:
        """Look at every value that was not looked at yet.

        Raises:
            NonFiniteError: with the first step and term that are not finite.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        if len(waiting) == 1:
            totals = waiting[0][1].values()
            if all(math.isfinite(value.item()) for value in totals):
                return
        else:
            stacked = torch.stack([value.float() for _, terms in waiting for value in terms.values()])
            if bool(torch.isfinite(stacked).all()):
                return
        for step, terms in waiting:
            found = first_non_finite(terms)
            if found is not None:
                name, value = found
                raise NonFiniteError(
                    f"step {step}: {name} is {value}; the last checkpoint is from before. Lower trainer.learning_rate, "
                    f"set trainer.gradient_clip_norm, or leave such steps out with trainer.non_finite=skip"
                )

    def check_validation(self, step: int, values: Mapping[str, float], is_last: bool) -> None:
        """Look at the means of a validation. While steps follow, the policy "skip" lets it pass with a warning.

        Raises:
            NonFiniteError: if its loss is not finite, with the first term that is not.
        """
        if math.isfinite(values.get("loss", 0.0)):
            return
        name, value = first_non_finite(values) or ("loss", math.nan)
        if self.policy == "skip" and not is_last:
            log.warning("step %d: %s of the validation is %s", step, name, value)
            return
        raise NonFiniteError(
            f"step {step}: {name} of the validation is {value}; lower trainer.learning_rate, or set "
            f"trainer.gradient_clip_norm"
        )

    def values(self) -> dict[str, float]:
        """Values for the log."""
        skipped = {"num_skipped": float(self.num_skipped)} if self.policy == "skip" else {}
        if self.largest_norm is not None:
            skipped["num_large_gradients"] = float(self.num_large)
        return {**skipped, "num_overflows": float(self.num_overflows)} if self.is_scaled else skipped

    def state_dict(self) -> dict[str, Any]:
        """The counts of what was left out."""
        return {"num_skipped": self.num_skipped, "num_large": self.num_large, "num_overflows": self.num_overflows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.num_skipped, self.num_large = state["num_skipped"], state["num_large"]
        self.num_overflows = state["num_overflows"]


def gradients(parts: Iterable[Part]) -> dict[str, Tensor]:
    """The gradient norms of the last step, as far as they were computed."""
    return {f"gradient of {part.name}": part.gradient_norm for part in parts if part.gradient_norm is not None}


def first_non_finite(terms: Mapping[str, Tensor | float]) -> tuple[str, float] | None:
    """Return the name and value of the first term that is not finite; the total comes last, it only follows."""
    names = sorted(terms, key=lambda name: name == "loss" or name.endswith("_loss"))
    for name in names:
        value = float(terms[name])
        if not math.isfinite(value):
            return name, value
    return None
