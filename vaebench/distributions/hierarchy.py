"""The posterior of a hierarchy: each group of latents given those above it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaebench.core import at_least_float32
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.hardware import collective
from vaebench.networks.hierarchy import Descent, TopDown


class HierarchicalPosterior(Distribution):
    r"""q(z|x) over latents of a hierarchy, vectors of standardised values, the top group first.

    .. math:: q(z|x) = \prod_l q(z_l | z_{<l}, x)

    Unpacks and indexes as `mean, log_var`: the moments of each group with all groups above it at their means. They are
    what a picture is described by, and not the moments of q.

    Args:
        top_down: The groups.
        evidence: What the bottom-up network says to each group, the top group first, each of shape (B, ...).
    """

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, top_down: TopDown, evidence: Sequence[Tensor]) -> None:
        self.top_down, self.evidence = top_down, evidence
        super().__init__(evidence[0].shape[:1], torch.Size([sum(top_down.sizes)]), validate_args=False)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.mean, self.log_var))

    def __getitem__(self, index: int) -> Tensor:
        return (self.mean, self.log_var)[index]

    @property
    def _like(self) -> Tensor:
        return at_least_float32(self.evidence[0][:0])

    @cached_property
    def _middle(self) -> Descent:
        noise = self._like.new_zeros(*self.batch_shape, *self.event_shape)
        return self.top_down.descend(noise, self.evidence, draws=True)

    @property
    def mean(self) -> Tensor:
        """Each group's mean given the means above it, shape (B, D)."""
        return self._middle.mean

    @property
    def log_var(self) -> Tensor:
        """Each group's log-variance given the means above it, shape (B, D)."""
        return self._middle.log_var

    @property
    def variance(self) -> Tensor:
        """Each group's variance given the means above it, shape (B, D)."""
        return self.log_var.exp()

    def draw(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Descent:
        """Draw with gradients, and keep the pass; all leading dimensions are one, (prod(sample_shape) * B, ...)."""
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = collective.standard_normal(shape, like=self._like, dim=len(sample_shape)).flatten(0, -2)
        return self.top_down.descend(noise, self._repeated(len(noise)), draws=True)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw with gradients; shape (*sample_shape, B, D)."""
        return self.draw(sample_shape).z.view(*sample_shape, *self.batch_shape, *self.event_shape)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw without gradients; shape (*sample_shape, B, D)."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def given(self, z: Tensor) -> DiagonalGaussian:
        """Return each group's posterior given the groups above it as they are in z (..., B, D): over (..., B, D)."""
        descent = self.top_down.descend(z.reshape(-1, *self.event_shape), self._repeated(z.numel() // z.shape[-1]))
        return DiagonalGaussian(descent.mean.view_as(z), descent.log_var.view_as(z))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of `value` (..., B, D), nats, summed over D."""
        return self.given(value).log_prob(value)

    def _repeated(self, num: int) -> list[Tensor]:
        times = num // len(self.evidence[0])
        return [part if times == 1 else part.repeat(times, *[1] * (part.ndim - 1)) for part in self.evidence]
