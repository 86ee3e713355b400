"""The options of every trainer, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from vaebench.messages import NamedArguments, check_range, did_you_mean
from vaebench.runs.identity import LENGTH
from vaebench.trainers.optimizers import PLATEAU, check_learning_rate, check_scheduler

PART_KEYS = ("learning_rate", "optimizer", "optimizer_args", "scheduler", "scheduler_args", "gradient_clip_norm")
LENGTH_KEYS = frozenset(key.removeprefix("trainer.") for key in LENGTH if key.startswith("trainer."))
AUTO = "auto"  # keep_best: by the model's own criterion


@dataclass(kw_only=True)
class TrainerOptions(NamedArguments):
    """The options that all trainers share, checked once.

    Args:
        num_epochs: Passes over the training split, >= 1.
        num_steps: Train for that many optimiser steps instead.
        batch_size: Examples in a batch, over all processes together.
        learning_rate: > 0.
        optimizer: Name in `torch.optim`.
        optimizer_args: Its other arguments.
        scheduler: "cosine", or a name in `torch.optim.lr_scheduler`; null keeps the rate constant.
        scheduler_args: Its arguments.
        scheduler_interval: "epoch" or "step": how often a schedule of torch moves on.
        warmup_steps: Optimiser steps in which the rate rises linearly from 0, >= 0.
        parts: For a part of the model, values of its own for learning_rate, optimizer, optimizer_args, scheduler,
            scheduler_args or gradient_clip_norm: {discriminator: {learning_rate: 1e-4}}.
        gradient_clip_norm: Gradients of a larger norm are scaled down to it, > 0.
        skip_gradient_above: A step whose gradient, before it is clipped, has a larger norm is left out, > 0; the log
            counts them. Null leaves none out. For rare steps in which a deep hierarchy would be torn from its place
            (Child, 2021, https://arxiv.org/abs/2011.10650); its threshold is about twice `gradient_clip_norm`.
        accumulate: Batches in an optimiser step, >= 1: the gradient is that of one batch `accumulate` times as large,
            in the memory of a small one. Where a loss couples the examples of a batch, only those of a small one meet.
        ema_decay: Decay per step of averaged weights, in [0, 1), which are then evaluated and saved; smaller in the
            first steps, min(ema_decay, (1 + t) / (10 + t)).
        validate_every: Epochs between validations, >= 1; null never validates.
        keep_best: Validation metric whose best weights are kept; "auto" takes the model's own criterion
            (`core.Model.best_criterion`), null keeps none.
        keep_best_mode: "min" or "max"; "auto" is the model's for its own criterion, and "min" for any other metric.
        patience: Validations without improvement of `keep_best` after which training ends, >= 1.
        max_minutes: Wall-clock time of one start of the program after which training ends, > 0.
        non_finite: What a loss or gradient that is not finite does: "stop" ends the run, "skip" leaves the step out.
        max_skipped: With "skip", steps left out before the run ends after all.
    """

    name: ClassVar[str]
    min_parts: ClassVar[int] = 1

    num_epochs: int = 100
    num_steps: int | None = None
    batch_size: int = 100
    learning_rate: float = 1e-3
    optimizer: str = "Adam"
    optimizer_args: dict[str, Any] | None = None
    scheduler: str | None = None
    scheduler_args: dict[str, Any] | None = None
    scheduler_interval: str = "epoch"
    warmup_steps: int = 0
    parts: dict[str, dict[str, Any]] | None = None
    gradient_clip_norm: float | None = None
    skip_gradient_above: float | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    validate_every: int | None = 1
    keep_best: str | None = AUTO
    keep_best_mode: str = AUTO
    patience: int | None = None
    max_minutes: float | None = None
    non_finite: str = "stop"
    max_skipped: int = 10

    def __post_init__(self) -> None:
        for key in ("num_epochs", "batch_size", "accumulate"):
            check_range(key, getattr(self, key), at_least=1, whole=True)
        for key in ("num_steps", "validate_every", "patience"):
            check_range(key, getattr(self, key), at_least=1, whole=True, or_null=True)
        for key in ("warmup_steps", "max_skipped"):
            check_range(key, getattr(self, key), at_least=0, whole=True)
        for key in ("gradient_clip_norm", "skip_gradient_above", "max_minutes"):
            check_range(key, getattr(self, key), above=0, below=float("inf"), or_null=True)
        check_range("ema_decay", self.ema_decay, at_least=0, below=1, or_null=True)
        for key, choices in (
            ("scheduler_interval", ("epoch", "step")),
            ("keep_best_mode", (AUTO, "min", "max")),
            ("non_finite", ("stop", "skip")),
        ):
            value = getattr(self, key)
            if value not in choices:
                raise ValueError(f"{key} must be one of {', '.join(choices)}; got '{value}'")
        if self.patience is not None and (self.validate_every is None or self.keep_best is None):
            raise ValueError("patience needs a metric: set trainer.validate_every and trainer.keep_best")
        check_learning_rate(self.learning_rate, "trainer")
        check_scheduler(self.scheduler, self.scheduler_args)
        self._check_parts()
        schedules = {"": self.scheduler, **{f"parts.{p}.": v.get("scheduler") for p, v in (self.parts or {}).items()}}
        for place, schedule in schedules.items():
            if schedule == PLATEAU and self.validate_every is None:
                raise ValueError(
                    f"{place}scheduler={PLATEAU} follows a validation metric, and trainer.validate_every=null never "
                    "validates; set trainer.validate_every=1"
                )

    def _check_parts(self) -> None:
        for part, values in (self.parts or {}).items():
            if not isinstance(values, Mapping):
                raise ValueError(f"parts.{part} must hold keys such as learning_rate, got {values!r}")
            for key in values:
                if key not in PART_KEYS:
                    raise ValueError(f"parts.{part} takes no '{key}'{did_you_mean(key, PART_KEYS)}")

    def best_by(self, criterion: tuple[str, str] | None) -> tuple[str, str] | None:
        """Return the validation metric that compares weights, and "min" or "max"; None where none does.

        Args:
            criterion: That of the model.
        """
        if self.keep_best is None or self.validate_every is None:
            return None
        if self.keep_best == AUTO:
            if criterion is None or self.keep_best_mode == AUTO:
                return criterion
            return criterion[0], self.keep_best_mode
        is_models = criterion is not None and criterion[0] == self.keep_best
        mode = criterion[1] if is_models and criterion is not None else "min"
        return self.keep_best, mode if self.keep_best_mode == AUTO else self.keep_best_mode

    def required_parts(self, names: Sequence[str]) -> None:
        """Refuse a model whose parts this update rule cannot use."""
        if len(names) < self.min_parts:
            raise ValueError(
                f"trainer={self.name} needs a model of at least {self.min_parts} parts, got {', '.join(names)}; "
                f"choose trainer=base"
            )

    def fingerprint(self) -> dict[str, Any]:
        """The options that a continued run must share."""
        shared = [field.name for field in fields(self) if field.name not in LENGTH_KEYS]
        return {"trainer": self.name, **{f"trainer.{key}": getattr(self, key) for key in shared}}
