"""Top-down networks: groups of latents, each drawn given those above it, on the way from nothing to a picture.

A latent of a hierarchy is one vector, the groups' standardised values one behind the other, the top group first. With
mean m and standard deviation s of a group's prior given what is above it, the value z of the group is

.. math:: z_l = m_l(z_{<l}) + s_l(z_{<l}) \\epsilon_l

and the latent holds every epsilon. Its prior is N(0, I), whatever the network; a change of the top group moves all
below it; and since the map from epsilon to z is one to one, rates and log-weights are those of z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vaebench.core import at_least_float32
from vaebench.networks.batch_norm import statistics_kept


class LatentGroup(nn.Module):
    """One group of latents: p(z|above), q(z|above, x), and what z does to what lies below.

    A state, shape (B, ...), goes from group to group. Moments have the shape (B, *shape).

    Attributes:
        shape: Shape of the group's latents, (D,) or (C, H, W).
    """

    shape: tuple[int, ...]

    def begin(self, state: Tensor) -> Tensor:
        """Return the state that `prior` and `posterior` see, shape (B, ...): that from above, enlarged for instance."""
        return state

    def prior(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and log-variance of p(z|above), and the state to which z is added, shape (B, ...)."""
        raise NotImplementedError

    def posterior(self, state: Tensor, evidence: Tensor, mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|above, x), each of shape (B, *shape).

        Args:
            state: That which `prior` took.
            evidence: What the bottom-up network says to this group, shape (B, ...).
            mean: Of the prior.
            log_var: Of the prior.
        """
        raise NotImplementedError

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        """Return the state below the group, shape (B, ...), for the state from `prior` and z (B, *shape)."""
        raise NotImplementedError


class BottomUp(nn.Module):
    """From an example to what is said to each group: x (B, *shape) -> one tensor (B, ...) each, the top group first.

    Attributes:
        is_checkpointed: Whether training computes its blocks anew in the backward pass instead of keeping them.
    """

    num_features = 0  # a hierarchy has no features for an ordinary posterior
    is_checkpointed: bool = False

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return what is said to each group, each of shape (B, ...)."""
        raise NotImplementedError


class Descent(NamedTuple):
    """One pass from the top to the bottom.

    Attributes:
        state: What the last group left, shape (B, ...).
        z: The latent, shape (B, D).
        mean: Means of each group's posterior given the groups above, of the standardised values, shape (B, D); empty
            without evidence.
        log_var: Likewise their log-variances.
    """

    state: Tensor
    z: Tensor
    mean: Tensor
    log_var: Tensor


class TopDown(nn.Module):
    """The groups in order, and what makes the likelihood's parameters of the last state.

    Args:
        groups: The top group first.
        output: State (B, ...) -> the likelihood's parameters.
        start: The state above the top group, for one example.

    Attributes:
        shapes: Of each group's latents.
        sizes: How many latents each group has.
        is_checkpointed: Whether training computes each group anew in the backward pass instead of keeping it.
    """

    start: Tensor

    def __init__(self, groups: Sequence[LatentGroup], output: nn.Module, start: Tensor) -> None:
        super().__init__()
        self.groups = nn.ModuleList(groups)
        self.output = output
        if isinstance(start, nn.Parameter):
            self.start = start
        else:
            self.register_buffer("start", start, persistent=False)
        self.shapes = [group.shape for group in groups]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.is_checkpointed = False

    def forward(self, z: Tensor) -> Tensor:
        """Return the likelihood's parameters for latents of shape (B, D), shape (B, ...)."""
        return self.output(self.descend(z).state)

    def descend(self, values: Tensor, evidence: Sequence[Tensor] | None = None, *, draws: bool = False) -> Descent:
        """Pass through all groups.

        Args:
            values: Shape (B, D): latents, or where `draws`, the noise with which they are drawn from the posterior.
            evidence: What the bottom-up network says to each group; None where no posterior is asked for.
            draws: Whether the latents are drawn.
        """
        state = self.start.expand(len(values), *self.start.shape)
        found = []
        for number, (group, part) in enumerate(zip(self.groups, values.split(self.sizes, -1), strict=True)):
            told = None if evidence is None else evidence[number]
            state, *rest = self._maybe_checkpointed(_pass_through, group, state, part, told, draws)
            found.append(rest)
        z, mean, log_var = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
        return Descent(state, z, mean, log_var)

    def _maybe_checkpointed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return checkpointed(function, *arguments) if self.is_checkpointed else function(*arguments)


def checkpointed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function without keeping what its backward pass needs, which computes it anew.

    References:
        Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016), https://arxiv.org/abs/1604.06174
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=statistics_kept)


def _pass_through(
    group: LatentGroup, state: Tensor, values: Tensor, evidence: Tensor | None, draws: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """State below a group, its latents, and mean and log-variance of their posterior; all but the state (B, size)."""
    state = group.begin(state)
    p_mean, p_log_var, below = group.prior(state)
    mean = log_var = values[:, :0]
    if evidence is not None:
        q_mean, q_log_var = group.posterior(state, evidence, p_mean, p_log_var)
        q_mean, q_log_var = at_least_float32(q_mean).flatten(1), at_least_float32(q_log_var).flatten(1)
    p_mean, p_log_var = at_least_float32(p_mean).flatten(1), at_least_float32(p_log_var).flatten(1)
    scale = (0.5 * p_log_var).exp()
    if evidence is not None:
        mean, log_var = (q_mean - p_mean) / scale, q_log_var - p_log_var
        values = mean + (0.5 * log_var).exp() * values if draws else values
    z = p_mean + scale * values
    return group(below, z.to(state.dtype).unflatten(1, group.shape)), values, mean, log_var


class HierarchicalNetwork(Protocol):
    """A description of the two networks of a hierarchy."""

    def bottom_up(self, shape: tuple[int, ...]) -> BottomUp:
        """Return a module x (B, *shape) -> what is said to each group, the top group first."""
        ...

    def top_down(self, shape: tuple[int, ...], params_shape: tuple[int, ...]) -> TopDown:
        """Return the groups for examples of `shape`, ending with the likelihood's parameters."""
        ...
