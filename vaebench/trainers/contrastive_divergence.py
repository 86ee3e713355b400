r"""Contrastive divergence: an energy follows the difference between data and draws from itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.core import Batch, Loss
from vaebench.mcmc.chains import Chains
from vaebench.mcmc.kernels.kernel import Kernel
from vaebench.mcmc.kernels.mala import MALAKernel
from vaebench.messages import check_range
from vaebench.objectives.contrastive_divergence import NegativePhase, contrast, returned
from vaebench.trainers.trainer import Trainer
from vaebench.trainers.training import Training

FIRST_STEP_SIZE, GAIN = 0.1, 0.05  # of the tuning
POINTS, PICTURES = 0.1, 0.001  # weights of squared energies


@dataclass(kw_only=True)
class ContrastiveDivergenceTrainer(Trainer):
    r"""Contrastive divergence with k steps (Hinton, 2002) or persistent chains (Tieleman, 2008).

    .. math:: \theta \leftarrow \theta - \eta \nabla_\theta \Big[ \frac1B \sum_b U(x_b) - \frac1B \sum_b U(\bar x_b) +
        \alpha \frac1B \sum_b \big( U(x_b)^2 + U(\bar x_b)^2 \big) \Big]

    The draws from the model are the ends of chains of k transitions of any kernel, in the model's standardised
    coordinates. With `persistent`, a step takes a random choice of chains out of a buffer, each of which returns to its
    place; otherwise chains begin at the data. The buffer is part of every checkpoint.

    An energy becomes sharper as it is trained, so that no one step size suits all of its training. Where step_size is
    null, the acceptance rate a of each step moves it towards the rate a* that suits the kernel:

    .. math:: \log \epsilon \leftarrow \log \epsilon + 0.05 (a - a^*)

    References:
        Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002),
        https://doi.org/10.1162/089976602760128018
        Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient (Tieleman, 2008),
        https://doi.org/10.1145/1390156.1390290
        Implicit Generation and Modeling with Energy-Based Models (Du & Mordatch, 2019),
        https://arxiv.org/abs/1903.08689, for the buffer, its size and the rate of new chains
        A tutorial on adaptive MCMC (Andrieu & Thoms, 2008), https://doi.org/10.1007/s11222-008-9110-y, for the step
        size
    Args: those of `Trainer`, and
        kernel: The transition of the chains. Langevin dynamics, as in the papers, is biased by its step size, which
            must then be smaller than the variance of the data across their thinnest ridge.
        step_size: Of the kernel, > 0, in standardised coordinates; null tunes it.
        k_steps: Transitions of a chain in a step, >= 1.
        persistent: Whether chains persist; otherwise they begin at the data.
        buffer_size: Persistent chains, at least as many as there are examples in a step.
        new_sample_ratio: Probability that a persistent chain begins anew, in [0, 1].
        init_scale: Standard deviation of the Gaussian that persistent chains begin in, > 0.
        energy_reg_weight: Weight alpha of the squared energies, >= 0. Without it the constant of the energy drifts, and
            energies of data and chains may run apart; but it flattens what is learned, with exact chains to
            p(x) = p_data(x) (1 + 2 alpha U(x)) / (1 - 2 alpha U(x)). Energies of data spread by about sqrt(D / 2) nats,
            so that pictures need a much smaller weight than points: null is 0.001 for pictures, else 0.1 (ours, for
            two moons and for digits of 8x8).
    """

    name: ClassVar[str] = "contrastive_divergence"

    learning_rate: float = 3e-4
    kernel: Kernel = MALAKernel()  # noqa: RUF009 - a frozen description
    step_size: float | None = None
    k_steps: int = 10
    persistent: bool = True
    buffer_size: int = 10_000
    new_sample_ratio: float = 0.05
    init_scale: float = 1.0
    energy_reg_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.phase = NegativePhase(
            self.kernel,
            self.step_size,
            self.k_steps,
            new_sample_ratio=self.new_sample_ratio,
            init_scale=self.init_scale,
        )
        if self.step_size is None and self.kernel.target_acceptance is None:
            raise ValueError(
                f"step_size must be above 0 for kernel={self.kernel.name}, which has no acceptance rate to tune it "
                "for; got null; for dataset=two_moons 0.005 is small enough"
            )
        check_range("energy_reg_weight", self.energy_reg_weight, at_least=0, below=math.inf, or_null=True)
        check_range("buffer_size", self.buffer_size, at_least=1, whole=True)
        if self.persistent and self.buffer_size < self.batch_size * self.accumulate:
            raise ValueError(
                f"buffer_size must be at least the {self.batch_size * self.accumulate} examples of a step, for each "
                f"moves a chain; got {self.buffer_size}"
            )

    def carry(self, model: Any, device: torch.device) -> dict[str, Tensor]:
        """Return the persistent chains, shape (buffer_size, D), and the step size that is tuned, as they begin."""
        model.require("energy")
        carried = {}
        if self.persistent:
            like = next(model.parameters())
            shape = (self.buffer_size, model.energy_function.num_dims)
            carried["chains"] = self.init_scale * torch.randn(shape, device=device, dtype=like.dtype)
        if self.step_size is None:
            carried["step_size"] = torch.tensor(FIRST_STEP_SIZE, dtype=torch.float64, device=device)
        return carried

    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Move chains, put them back, and follow the contrast."""
        updates, energy = training.updates, _energy_of(training)
        for piece, weight in updates.pieces(batch):
            x, chains, slots = self._drawn(training, piece)
            negatives = chains.state.position
            with training.hardware.autocast():
                loss = contrast(energy, x, negatives, self.weight_for(training.model.shape))
            updates.record({"loss": loss.total, **loss.terms}, weight)
            if self.step_size is None:
                updates.record({"acceptance_rate": chains.acceptance_probability.mean()}, weight)
            updates.backward(loss.total, weight)
            if slots is not None:
                returned(training.carried["chains"], negatives, slots)
        updates.apply(*training.parts.values())
        values = updates.recorded()
        target = self.kernel.target_acceptance
        if self.step_size is None and target is not None:
            step_size = training.carried["step_size"]
            values["step_size"] = step_size.float()
            step_size.mul_((GAIN * (values["acceptance_rate"].double() - target)).exp())
        return values

    def eval_step(self, training: Training, batch: Batch) -> Loss:
        """Return the contrast between examples and chains, which stay where they were."""
        x, chains, _ = self._drawn(training, batch)
        weight = self.weight_for(training.model.shape)
        return contrast(_energy_of(training), x, chains.state.position, weight)

    def weight_for(self, shape: Sequence[int]) -> float:
        """Return alpha for examples of a shape."""
        if self.energy_reg_weight is not None:
            return self.energy_reg_weight
        return PICTURES if len(shape) == 3 else POINTS

    def fingerprint(self) -> dict[str, Any]:
        """The options that a continued run must share, the kernel in words."""
        return {**super().fingerprint(), "trainer.kernel": str(self.kernel)}

    def _drawn(self, training: Training, batch: Batch) -> tuple[Tensor, Chains, Tensor | None]:
        """Examples in standardised coordinates, chains that end in draws, and the places of these in the buffer."""
        model: Any = training.model
        with torch.no_grad(), torch.autocast(batch.x.device.type, enabled=False):  # chains need full precision
            start = x = model.noisy(batch.x)
            slots = None
            if self.persistent:
                start, slots = self.phase.taken(training.carried["chains"], len(x))
            step_size = float(training.carried["step_size"]) if self.step_size is None else None
            return x, self.phase.run(model.energy_function, start, step_size), slots


def _energy_of(training: Training) -> Any:
    model: Any = training.model
    return model.energy_function
