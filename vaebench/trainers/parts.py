"""Parts of a model, each with its parameters, optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from vaebench.core import Model
from vaebench.messages import check_range, did_you_mean
from vaebench.trainers.optimizers import LearningRateSchedule, build_optimizer
from vaebench.trainers.options import PART_KEYS, TrainerOptions


@dataclass
class Part:
    """Some parameters of a model and what updates them.

    Attributes:
        name: As in `model.parts()`.
        modules: Where the parameters live.
        parameters: Those that are trained.
        optimizer: Steps them.
        schedule: Sets its learning rate.
        clip_norm: Largest norm of the part's gradient, or None.
        gradient_norm: Norm of the last gradient before clipping, where it was computed and the step taken.
    """

    name: str
    modules: list[nn.Module]
    parameters: list[Parameter]
    optimizer: Optimizer
    schedule: LearningRateSchedule
    clip_norm: float | None
    gradient_norm: Tensor | None = None

    def clip(self, measure: bool) -> None:
        """Scale the gradient down to `clip_norm`; keep its norm if there is a use for it."""
        if self.clip_norm is None and not measure:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, self.gradient_norm)

    def take_step(self, scaler: torch.amp.GradScaler | None) -> bool:
        """Step the optimiser; return whether it did.

        A gradient scaler leaves out a step whose gradients are not finite; to know it, the step waits for the device.
        """
        if scaler is None:
            self.optimizer.step()
            return True
        scaler.step(self.optimizer)
        # Ask each optimiser: a falling scale only says that some part was skipped.
        return not any(found.item() for found in scaler._found_inf_per_device(self.optimizer).values())

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and schedule."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def build_parts(trainer: TrainerOptions, model: Model, num_steps: int, num_epochs: int) -> dict[str, Part]:
    """Return the parts of `model` with the optimisers that `trainer` describes.

    Raises:
        ValueError: the options name a part that the model does not have, or an optimiser refuses its arguments.
    """
    modules = {name: list(part) for name, part in model.parts().items()}
    check_partition(model, modules)
    options = trainer.parts or {}
    for name in options:
        if name not in modules:
            raise ValueError(f"trainer.parts: the model has no part '{name}'{did_you_mean(name, modules)}")
    trainer.required_parts(list(modules))
    if trainer.name == "base" and not options:  # with one loss and equal options, one optimiser does the same faster
        modules = {"model": [model]}
    parts = {}
    for name, members in modules.items():
        own = options.get(name, {})
        values = {key: own.get(key, getattr(trainer, key)) for key in PART_KEYS}
        # Arguments for one optimiser or schedule do not carry over to another.
        for kind in ("optimizer", "scheduler"):
            if kind in own and f"{kind}_args" not in own and own[kind] != getattr(trainer, kind):
                values[f"{kind}_args"] = None
        key = f"trainer.parts.{name}" if own else "trainer"
        parameters = trainable(members)
        clip = values["gradient_clip_norm"]
        check_range(f"{key}.gradient_clip_norm", clip, above=0, below=math.inf, or_null=True)
        optimizer = build_optimizer(
            values["optimizer"], parameters, values["learning_rate"], values["optimizer_args"], key
        )
        schedule = LearningRateSchedule(
            optimizer,
            values["scheduler"],
            values["scheduler_args"],
            interval=trainer.scheduler_interval,
            num_steps=num_steps,
            num_epochs=num_epochs,
            warmup_steps=trainer.warmup_steps,
            key=key,
        )
        parts[name] = Part(name, members, parameters, optimizer, schedule, clip)
    return parts


def trainable(modules: Iterable[nn.Module]) -> list[Parameter]:
    """Parameters of some modules that take a gradient, each once."""
    found = {id(p): p for module in modules for p in _parameters(module) if p.requires_grad}
    return list(found.values())


def check_partition(model: nn.Module, modules: Mapping[str, Iterable[nn.Module]]) -> None:
    """Refuse parts that share a parameter, or that leave one out."""
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    owner: dict[int, str] = {}
    for part, members in modules.items():
        for parameter in trainable(members):
            if id(parameter) in owner:
                raise ValueError(
                    f"parts() of {type(model).__name__}: '{names.get(id(parameter), '?')}' is in "
                    f"'{owner[id(parameter)]}' and in '{part}'; parts must not share parameters"
                )
            owner[id(parameter)] = part
    missing = [name for key, name in names.items() if key not in owner]
    if missing:
        raise ValueError(f"parts() of {type(model).__name__}: no part holds {', '.join(missing)}")


def _parameters(module: nn.Module) -> Iterable[Parameter]:
    return [module] if isinstance(module, Parameter) else module.parameters()
