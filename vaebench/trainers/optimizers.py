"""Optimisers and learning-rate schedules by their names in `torch.optim`, with checked arguments."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler

from vaebench.messages import check_range, counted, did_you_mean

REFUSED_OPTIMIZERS = {
    "LBFGS": "it evaluates the loss several times in a step, and a stochastic loss differs each time",
    "SparseAdam": "it takes sparse gradients only, and no model here has any",
}
REFUSED_SCHEDULERS = {
    "LambdaLR": "it takes a function, which a configuration cannot hold",
    "MultiplicativeLR": "it takes a function, which a configuration cannot hold",
    "SequentialLR": "it takes other schedulers; warm-up is trainer.warmup_steps",
    "ChainedScheduler": "it takes other schedulers; warm-up is trainer.warmup_steps",
}
COSINE = "cosine"
PLATEAU = "ReduceLROnPlateau"
# The argument for the length of a schedule; by default, that of the training.
_LENGTH = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}


def optimizer_names() -> list[str]:
    """Names that `build_optimizer` takes."""
    found = [name for name, kind in vars(torch.optim).items() if inspect.isclass(kind) and issubclass(kind, Optimizer)]
    return sorted(name for name in found if name != "Optimizer" and name not in REFUSED_OPTIMIZERS)


def scheduler_names() -> list[str]:
    """Names that `LearningRateSchedule` takes."""
    base = lr_scheduler.LRScheduler
    found = [
        name
        for name, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, base) and not name.startswith(("_", "LRScheduler"))
    ]
    return sorted([COSINE, *(name for name in found if name not in REFUSED_SCHEDULERS)])


def build_optimizer(
    name: str,
    parameters: Sequence[Parameter],
    learning_rate: float,
    arguments: Mapping[str, Any] | None = None,
    key: str = "trainer",
) -> Optimizer:
    """Return an optimiser of `torch.optim`, in its fused form where that exists: the same steps, faster.

    Args:
        name: As in `torch.optim`.
        parameters: What it steps.
        learning_rate: > 0.
        arguments: Its other arguments.
        key: Where the configuration holds these values, for messages.

    Raises:
        ValueError: an unknown name or argument, or a value that the optimiser refuses.
    """
    if name in REFUSED_OPTIMIZERS:
        raise ValueError(f"{key}.optimizer={name} cannot be used: {REFUSED_OPTIMIZERS[name]}")
    if name not in optimizer_names():
        raise ValueError(f"{key}.optimizer: there is no '{name}' in torch.optim{did_you_mean(name, optimizer_names())}")
    check_learning_rate(learning_rate, key)
    kind = getattr(torch.optim, name)
    taken = set(inspect.signature(kind).parameters) - {"params", "lr"}
    values = _checked(dict(arguments or {}), taken, f"{key}.optimizer_args", name, {"lr": f"{key}.learning_rate"})
    implementation_chosen = {"fused", "foreach", "differentiable", "capturable"} & values.keys()
    if "fused" in taken and not implementation_chosen and all(p.is_floating_point() for p in parameters):
        values["fused"] = True
    try:
        return kind(list(parameters), lr=learning_rate, **values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{key}.optimizer={name} cannot be used: {error}") from None


def check_learning_rate(value: Any, key: str) -> None:
    """Refuse what is not a positive finite number."""
    check_range(f"{key}.learning_rate", value, above=0, below=math.inf)


def check_scheduler(name: str | None, arguments: Mapping[str, Any] | None, key: str = "trainer") -> None:
    """Refuse an unknown schedule, or arguments that it does not take."""
    if name is None:
        if arguments:
            raise ValueError(f"{key}.scheduler_args are given, but no {key}.scheduler")
        return
    if name in REFUSED_SCHEDULERS:
        raise ValueError(f"{key}.scheduler={name} cannot be used: {REFUSED_SCHEDULERS[name]}")
    if name not in scheduler_names():
        raise ValueError(
            f"{key}.scheduler: there is no '{name}' in torch.optim.lr_scheduler{did_you_mean(name, scheduler_names())}"
        )
    taken = _scheduler_arguments(name)
    _checked(dict(arguments or {}), taken, f"{key}.scheduler_args", name, {})
    if name != COSINE:
        signature = inspect.signature(getattr(lr_scheduler, name)).parameters
        missing = [
            argument
            for argument in taken
            if signature[argument].default is inspect.Parameter.empty
            and argument not in (arguments or {})
            and argument != _LENGTH.get(name)
        ]
        if missing:
            raise ValueError(f"{key}.scheduler={name} needs {key}.scheduler_args with {', '.join(sorted(missing))}")


def _scheduler_arguments(name: str) -> set[str]:
    if name == COSINE:
        return {"final_fraction"}
    return set(inspect.signature(getattr(lr_scheduler, name)).parameters) - {"optimizer", "last_epoch"}


class LearningRateSchedule:
    """The learning rate of one optimiser over a training: linear warm-up times a schedule.

    With "cosine", the factor falls from 1 to `final_fraction` over the optimiser steps that follow the warm-up:
    f + (1 - f) (1 + cos(pi t)) / 2. With a name of `torch.optim.lr_scheduler`, torch's own schedule. Warm-up multiplies
    either by min(1, (n + 1) / warmup_steps) at optimiser step n = 0, 1, ...

    Args:
        optimizer: Whose rate is set.
        name: "cosine", a name of `torch.optim.lr_scheduler`, or None for a constant rate.
        arguments: The schedule's arguments. `T_max` of CosineAnnealingLR and `total_steps` of OneCycleLR default to
            the length of the training.
        interval: "step" or "epoch": how often torch's schedules move on. "cosine" always moves each step.
        num_steps: Optimiser steps of the whole training.
        num_epochs: Its epochs.
        warmup_steps: >= 0.
        key: Where the configuration holds these values, for messages.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        *,
        interval: str = "epoch",
        num_steps: int = 1,
        num_epochs: int = 1,
        warmup_steps: int = 0,
        key: str = "trainer",
    ) -> None:
        check_scheduler(name, arguments, key)
        self.optimizer = optimizer
        self._key = key
        self.interval = interval
        self.warmup_steps = warmup_steps
        self.num_updates = 0
        self._num_steps = num_steps
        self._final_fraction: float | None = None
        self._torch: Any = None
        values = {argument: _tuples(value) for argument, value in dict(arguments or {}).items()}
        if name == COSINE:
            self._final_fraction = float(values.get("final_fraction", 0.0))
            check_range(f"{key}.scheduler_args.final_fraction", self._final_fraction, at_least=0, at_most=1)
        elif name is not None:
            length = _LENGTH.get(name)
            if length is not None and "epochs" not in values:
                values.setdefault(length, num_steps if interval == "step" else num_epochs)
            try:
                self._torch = getattr(lr_scheduler, name)(optimizer, **values)
            except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
                raise ValueError(f"{key}.scheduler={name} cannot be used: {error}") from None
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self._apply()

    @property
    def needs_metric(self) -> bool:
        """Whether the schedule watches a validation metric."""
        return isinstance(self._torch, lr_scheduler.ReduceLROnPlateau)

    @property
    def learning_rate(self) -> float:
        """The rate of the next optimiser step (of the first group)."""
        return float(self.optimizer.param_groups[0]["lr"])

    def after_update(self) -> None:
        """Move on by one optimiser step."""
        self.num_updates += 1
        moves = self._torch is not None and self.interval == "step" and not self.needs_metric
        if moves:
            self._advance()
        if moves or self._final_fraction is not None or self.num_updates <= self.warmup_steps:
            self._apply()

    def after_epoch(self) -> None:
        """Move on by one epoch."""
        if self._torch is not None and self.interval == "epoch" and not self.needs_metric:
            self._advance()
            self._apply()

    def after_validation(self, value: float) -> None:
        """Show the validation metric to a schedule that watches one."""
        if self.needs_metric:
            self._advance(value)
            self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "num_updates": self.num_updates,
            "base": self._base,
            "torch": None if self._torch is None else self._torch.state_dict(),
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse a schedule that was made for fewer moves than this training has.

        Raises:
            ValueError: the schedule ends before the training does.
        """
        before, now = (state["torch"] or {}).get("total_steps"), getattr(self._torch, "total_steps", None)
        if isinstance(before, int) and isinstance(now, int) and now > before:
            raise ValueError(
                f"{self._key}.scheduler={type(self._torch).__name__} was made for {counted(before, self.interval)} and "
                f"cannot go on to {now}; train a new run from these weights: init_from=<run>"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; the optimiser's own state is loaded already."""
        self.num_updates = state["num_updates"]
        self._base = list(state["base"])
        if self._torch is not None and state["torch"] is not None:
            self._torch.load_state_dict(state["torch"])
        self._apply()

    def _advance(self, *metric: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = rate  # torch's schedules continue from this rate, which must exclude our warm-up
        with warnings.catch_warnings():
            # torch warns that no step was taken: steps precede a restart, or were skipped.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            try:
                self._torch.step(*metric)
            except ValueError as error:  # OneCycleLR, when a finished training is extended
                name = type(self._torch).__name__
                raise ValueError(f"{self._key}.scheduler={name} cannot go on: {error}") from None
        self._base = [float(group["lr"]) for group in self.optimizer.param_groups]

    def _apply(self) -> None:
        factor = min(1.0, (self.num_updates + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self._final_fraction is not None:
            length = max(1, self._num_steps - self.warmup_steps)
            t = min(1.0, max(0, self.num_updates - self.warmup_steps) / length)
            factor *= self._final_fraction + (1 - self._final_fraction) * 0.5 * (1 + math.cos(math.pi * t))
        for group, rate in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = rate * factor


def _checked(
    values: dict[str, Any], taken: set[str], key: str, name: str, elsewhere: Mapping[str, str]
) -> dict[str, Any]:
    for argument in values:
        if argument in elsewhere:
            raise ValueError(f"{key}.{argument}: set {elsewhere[argument]} instead")
        if argument not in taken:
            raise ValueError(f"{key}: {name} takes no '{argument}'{did_you_mean(argument, taken)}")
    return {argument: _tuples(value) for argument, value in values.items()}


def _tuples(value: Any) -> Any:
    """Lists of a configuration as the tuples that torch expects."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
