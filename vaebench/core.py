"""The types that every package shares: batches, splits, losses, draws, models, and what a model can be asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from vaebench.messages import NamedArguments

MOST_NUMBERS = 2**20  # of examples that pass through a network at once without gradients

ProgressFunction = Callable[[int, int], None]
"""Called during long work with what is done and the total."""

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "posterior": "it does not encode examples",
        "likelihood": "it defines no p(x|z)",
        "prior": "it defines no p(z)",
        "rate": "it has no normalised q(z|x) and p(z)",
        "codes": "its latents are not codes of a finite set",
        "manifold": "it has no Riemannian metric",
        "groups": "its latents do not form a hierarchy of groups",
        "energy": "it defines no energy of x",
    }
)
"""What a model can be asked for, each with the default reason of a model that lacks it: a clause that completes
"VAE has no manifold: …". "rate" is a normalised posterior and prior, so that KL(q || p) and log-weights exist; "energy"
is an unnormalised density of the data, which chains can draw from."""


@dataclass(frozen=True)
class Batch:
    """Examples that travel together.

    Attributes:
        x: Data, shape (B, *shape).
        y: Labels, shape (B,), or None where the data set has none.
        context: What the model is told about each example, shape (B, ...), or None.
        factors: Ground-truth factors of variation, int64, shape (B, F), or None.
        index: Positions of the examples in their split, shape (B,), or None.
    """

    x: Tensor
    y: Tensor | None = None
    context: Tensor | None = None
    factors: Tensor | None = None
    index: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return self.map(lambda tensor: tensor[rows])

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with `function` applied to every tensor that is there."""
        present = {item.name: getattr(self, item.name) for item in fields(self)}
        return Batch(**{name: function(value) for name, value in present.items() if value is not None})

    @classmethod
    def cat(cls, batches: Sequence[Batch]) -> Batch:
        """Concatenate batches along their first dimension; all of them have the same fields."""
        first = batches[0]
        names = [item.name for item in fields(cls) if getattr(first, item.name) is not None]
        return cls(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the same examples on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def with_x(self, x: Tensor) -> Batch:
        """Return the same batch with other data, shape (B, *shape)."""
        return replace(self, x=x)


class Split(Protocol):
    """A part of a data set, as far as models, samplers, energies and metrics read it."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at these positions."""
        ...


@dataclass
class Loss:
    """A model's loss.

    Attributes:
        total: Scalar to minimise, nats per example.
        terms: Named scalars for the logs, detached.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def mean(cls, per_example: Tensor, **terms: Tensor) -> Loss:
        """Average over the batch.

        Args:
            per_example: What is minimised, nats, shape (B,).
            **terms: Its parts, each of shape (B,) or scalar.
        """
        return cls(per_example.mean(), {name: value.detach().mean() for name, value in terms.items()})


def as_loss(value: object) -> Loss:
    """Return what a model's loss function returned.

    Raises:
        ValueError: if it is not a `Loss`.
    """
    if isinstance(value, Loss):
        return value
    raise ValueError(
        f"expected a model's loss to be a vaebench.core.Loss, got {type(value).__name__}; "
        "return Loss.mean(per_example), where per_example has shape (B,) and is in nats"
    )


@dataclass(frozen=True)
class Draws:
    """Latents from a sampler, and the labels that belong to them.

    Attributes:
        z: Shape (N, *latent_shape).
        y: Labels, shape (N,) or (N, num_classes), or None for a model without labels.
    """

    z: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        return self.z.shape[0]


class Model(NamedArguments, nn.Module):
    """Base of everything that can be trained: the interface that training and the commands rely on.

    A model sets `loss`, or `losses` and `parts` where it has several optimisers.

    Attributes:
        shape: Shape of one example, (C, H, W) or (D,).
        capabilities: Which of `CAPABILITIES` it has.
        why_not: For a capability that it lacks, a reason of its own: a clause that completes "VAE has no prior: …".
        trainer: Name of the trainer whose update rule it needs.
        best_criterion: Validation metric by which weights are compared, and whether "min" or "max" is better; None
            where no validation metric says which weights are best.
        couples_batch: Whether an example's loss depends on the others of its batch: then several small batches in an
            optimiser step are not one large batch.
        min_batch: Fewest examples that a batch of training may hold, over all processes.
        cautions: For a term of the training loss, the largest mean over an epoch that needs no comment, and the
            comment above it, with the key to change.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    why_not: ClassVar[Mapping[str, str]] = MappingProxyType({})
    trainer: ClassVar[str] = "base"
    best_criterion: ClassVar[tuple[str, str] | None] = ("loss", "min")
    couples_batch: ClassVar[bool] = False
    min_batch: ClassVar[int] = 1
    cautions: ClassVar[Mapping[str, tuple[float, str]]] = MappingProxyType({})
    shape: tuple[int, ...]

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return what one optimiser minimises, nats per example."""
        raise NotImplementedError(f"{type(self).__name__} has several losses; train it with trainer={self.trainer}")

    def losses(self, batch: Batch, step: int, part: str | None = None) -> dict[str, Loss]:
        """Return one loss for each part, or only that of `part`; a model with a single loss has the part "model"."""
        return {"model": self.loss(batch, step)}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each part; together they hold every parameter once."""
        return {"model": [self]}

    def validation_loss(self, batch: Batch, step: int) -> Loss:
        """Return the loss by which weights are compared, nats per example; by default the training loss."""
        return self.loss(batch, step)

    def before_training(self, train: Split) -> None:
        """Initialise from the training split, before the first step of a new training; not after a resume."""

    def after_step(self, batch: Batch) -> None:
        """Update what no gradient reaches (averaged codes, persistent chains), after each optimiser step.

        Args:
            batch: This process's examples of the step; statistics over examples go through `hardware.collective`.
        """

    def end_epoch(self, train: Split, batch_size: int) -> None:
        """Refresh statistics of the whole training split; called after each epoch, before validation."""

    def reason_against(self, capability: str) -> str | None:
        """Say in one clause why the model lacks a capability, or None where it has it."""
        if capability in self.capabilities:
            return None
        return self.why_not.get(capability, CAPABILITIES.get(capability, "the model does not define it"))

    def require(self, capability: str) -> None:
        """Refuse what the model cannot answer.

        Raises:
            ValueError: if the capability is missing, with the reason.
        """
        reason = self.reason_against(capability)
        if reason is not None:
            raise ValueError(f"model {type(self).__name__} has no {capability}: {reason}")


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it has that: log-densities are never computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def rows_at_once(shape: Sequence[int], most: int = 1000) -> int:
    """How many examples of a shape pass through a network at once where no gradient is taken, so that memory suffices.

    >>> rows_at_once((1, 28, 28)), rows_at_once((3, 64, 64))
    (1000, 85)
    """
    return max(1, min(most, MOST_NUMBERS // math.prod(shape)))
