r"""Contrastive divergence: an energy follows the difference between data and draws from itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import Batch, Loss
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.kernels.langevin import LangevinKernel
from vaebench.messages import check_range
from vaebench.objectives.contrastive_divergence import NegativePhase, contrast, returned
from vaebench.trainers.trainer import Trainer
from vaebench.trainers.training import Training


@dataclass(kw_only=True)
class ContrastiveDivergenceTrainer(Trainer):
    r"""Contrastive divergence with k steps (Hinton, 2002) or persistent chains (Tieleman, 2008).

    .. math:: \theta \leftarrow \theta - \eta \nabla_\theta \Big[ \frac1B \sum_b U(x_b) - \frac1B \sum_b U(\bar x_b) +
        \alpha \frac1B \sum_b \big( U(x_b)^2 + U(\bar x_b)^2 \big) \Big]

    The draws from the model are the ends of chains of k transitions of any kernel, in the model's standardised
    coordinates. With `persistent`, a step takes a random choice of chains out of a buffer, each of which returns to its
    place; otherwise chains begin at the data. The buffer is part of every checkpoint.

    References:
        Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002),
        https://doi.org/10.1162/089976602760128018
        Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient (Tieleman, 2008),
        https://doi.org/10.1145/1390156.1390290
        Implicit Generation and Modeling with Energy-Based Models (Du & Mordatch, 2019),
        https://arxiv.org/abs/1903.08689, for the buffer, its size and the rate of new chains
    Args: those of `Trainer`, and
        kernel: The transition of the chains.
        step_size: Of the kernel, > 0, in standardised coordinates.
        k_steps: Transitions of a chain in a step, >= 1.
        persistent: Whether chains persist; otherwise they begin at the data.
        buffer_size: Persistent chains, at least as many as there are examples in a step.
        new_sample_ratio: Probability that a persistent chain begins anew, in [0, 1].
        init_scale: Standard deviation of the Gaussian that persistent chains begin in, > 0.
        energy_reg_weight: Weight alpha of the squared energies, >= 0; without it the constant of the energy drifts.
    """

    name: ClassVar[str] = "contrastive_divergence"

    learning_rate: float = 3e-4
    kernel: Kernel = LangevinKernel()  # noqa: RUF009 - a frozen description
    step_size: float = 0.03
    k_steps: int = 10
    persistent: bool = True
    buffer_size: int = 10_000
    new_sample_ratio: float = 0.05
    init_scale: float = 1.0
    energy_reg_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phase = NegativePhase(
            self.kernel,
            self.step_size,
            self.k_steps,
            new_sample_ratio=self.new_sample_ratio,
            init_scale=self.init_scale,
        )
        check_range("energy_reg_weight", self.energy_reg_weight, at_least=0, below=math.inf)
        check_range("buffer_size", self.buffer_size, at_least=1, whole=True)
        if self.persistent and self.buffer_size < self.batch_size * self.accumulate:
            raise ValueError(
                f"buffer_size must be at least the {self.batch_size * self.accumulate} examples of a step, for each "
                f"moves a chain; got {self.buffer_size}"
            )

    def carry(self, model: Any, device: torch.device) -> dict[str, Tensor]:
        """Return the persistent chains, shape (buffer_size, D), as they begin."""
        model.require("energy")
        if not self.persistent:
            return {}
        like = next(model.parameters())
        shape = (self.buffer_size, model.energy_function.num_dims)
        return {"chains": self.init_scale * torch.randn(shape, device=device, dtype=like.dtype)}

    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Move chains, put them back, and follow the contrast."""
        updates, energy = training.updates, _energy_of(training)
        for piece, weight in updates.pieces(batch):
            x, negatives, slots = self._drawn(training, piece)
            with training.hardware.autocast():
                loss = contrast(energy, x, negatives, self.energy_reg_weight)
            updates.record({"loss": loss.total, **loss.terms}, weight)
            updates.backward(loss.total, weight)
            if slots is not None:
                returned(training.carried["chains"], negatives, slots)
        updates.apply(*training.parts.values())
        return updates.recorded()

    def eval_step(self, training: Training, batch: Batch) -> Loss:
        """Return the contrast between examples and chains, which stay where they were."""
        x, negatives, _ = self._drawn(training, batch)
        return contrast(_energy_of(training), x, negatives, self.energy_reg_weight)

    def fingerprint(self) -> dict[str, Any]:
        """The options that a continued run must share, the kernel in words."""
        return {**super().fingerprint(), "trainer.kernel": str(self.kernel)}

    def _drawn(self, training: Training, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Examples in standardised coordinates, draws from the model, and the places of these in the buffer."""
        model: Any = training.model
        with torch.no_grad(), torch.autocast(batch.x.device.type, enabled=False):  # chains need full precision
            x = model.standardize(batch.x)
            if not self.persistent:
                return x, self.phase.moved(model.energy_function, x), None
            return x, *self.phase.replayed(model.energy_function, training.carried["chains"], len(x))


def _energy_of(training: Training) -> Any:
    model: Any = training.model
    return model.energy_function
