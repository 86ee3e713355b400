"""The fully connected ladder: two layers between any two neighbours of x, z_1, z_2, …."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.messages import NamedArguments
from vaebench.networks.batch_norm import BatchNorm
from vaebench.networks.hierarchy import BottomUp, LatentGroup, TopDown, checkpointed
from vaebench.networks.network import activation, check_widths, gates

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Ladder(NamedArguments):
    r"""The networks of the ladder VAE (Sønderby et al., 2016, section 3.1).

    Upwards d_l = MLP(d_{l-1}) with d_0 = x; downwards p(z_l|z_{l+1}) from an MLP of z_{l+1}, and N(0, I) at the top.
    Every MLP has two layers, each a linear map, batch normalisation and an activation; mean and variance of a group are
    linear in the last, the variance through a softplus. What is seen in the example and what is expected from above
    meet by their precisions:

    .. math:: \sigma_q^{-2} = \hat\sigma^{-2} + \sigma_p^{-2}, \quad
              \mu_q = \sigma_q^2 (\hat\mu \hat\sigma^{-2} + \mu_p \sigma_p^{-2})      (eq. 17, 18)

    and at the top q is what was seen.

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016), https://arxiv.org/abs/1602.02282
    Deviations:
        A variance has 1e-6 added to it; the leaky rectifier is torch's, of slope 0.01.
    Args:
        hidden_dims: Widths of the MLPs between x and z_1, z_1 and z_2, and so on, upwards.
        latent_dims: Latents of z_1, z_2, …, upwards; as many as `hidden_dims`.
        activation: One of elu, gelu, leaky_relu, none, relu, selu, silu, softplus, tanh.
        batch_norm: Whether layers are normalised over the batch.
    """

    hidden_dims: Sequence[int] = (512, 256, 128, 64, 32)
    latent_dims: Sequence[int] = (64, 32, 16, 8, 4)
    activation: str = "leaky_relu"
    batch_norm: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden_dims", "latent_dims"):
            check_widths(name, tuple(getattr(self, name)))
        if not self.latent_dims or len(self.hidden_dims) != len(self.latent_dims):
            raise ValueError(
                f"latent_dims must have one entry for each of hidden_dims, {len(self.hidden_dims)}, and at least one; "
                f"got {list(self.latent_dims)}"
            )
        activation(self.activation)
        if gates(self.activation) > 1:
            raise ValueError(f"activation: Ladder takes no '{self.activation}', whose gate halves the features")

    def bottom_up(self, shape: tuple[int, ...]) -> BottomUp:
        """Return a module (B, *shape) -> d_L (B, hidden_dims[-1]), …, d_1."""
        widths = [math.prod(shape), *self.hidden_dims]
        return _BottomUp([self._layers(before, after) for before, after in itertools.pairwise(widths)])

    def top_down(self, shape: tuple[int, ...], params_shape: tuple[int, ...]) -> TopDown:
        """Return the groups z_L, …, z_1, and the layers to (B, *params_shape)."""
        groups = []
        for number, (size, seen) in enumerate(zip(self.latent_dims, self.hidden_dims, strict=True)):
            is_top = number + 1 == len(self.latent_dims)
            above = (
                None
                if is_top
                else _Moments(
                    self._layers(self.latent_dims[number + 1], self.hidden_dims[number + 1]),
                    self.hidden_dims[number + 1],
                    size,
                )
            )
            groups.append(_LadderGroup(above, _Moments(nn.Identity(), seen, size), size))
        output = nn.Sequential(
            self._layers(self.latent_dims[0], self.hidden_dims[0]),
            nn.Linear(self.hidden_dims[0], math.prod(params_shape)),
            nn.Unflatten(-1, params_shape),
        )
        return TopDown(groups[::-1], output, torch.zeros(0))

    def _layers(self, before: int, after: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in (before, after):
            layers.append(nn.Linear(width, after, bias=not self.batch_norm))
            layers += [BatchNorm(after)] * self.batch_norm
            layers.append(activation(self.activation))
        return nn.Sequential(*layers)


class _BottomUp(BottomUp):
    def __init__(self, steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> list[Tensor]:
        seen, d = [], x.flatten(1)
        for step in self.steps:
            d = checkpointed(step, d) if self.is_checkpointed else step(d)
            seen.append(d)
        return seen[::-1]


class _Moments(nn.Module):
    """Mean and log-variance, linear in the layers' output but for the softplus."""

    def __init__(self, layers: nn.Module, num_features: int, size: int) -> None:
        super().__init__()
        self.layers, self.linear = layers, nn.Linear(num_features, 2 * size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.linear(self.layers(x)).chunk(2, -1)
        return mean, (F.softplus(raw) + LEAST_VARIANCE).log()


class _LadderGroup(LatentGroup):
    """The state is the group above."""

    def __init__(self, above: _Moments | None, seen: _Moments, size: int) -> None:
        super().__init__()
        self.above, self.seen, self.shape = above, seen, (size,)

    def prior(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.above is None:
            zeros = state.new_zeros(len(state), *self.shape)
            return zeros, zeros, state
        return *self.above(state), state

    def posterior(self, state: Tensor, evidence: Tensor, mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
        seen, seen_log_var = self.seen(evidence)
        if self.above is None:
            return seen, seen_log_var
        return precision_weighted(seen, seen_log_var, mean, log_var)

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        return z


def precision_weighted(
    mean: Tensor, log_var: Tensor, other_mean: Tensor, other_log_var: Tensor
) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of the product of two Gaussians, each (B, D): their precisions add."""
    share = torch.sigmoid(other_log_var - log_var)  # the first Gaussian's share of the total precision
    return other_mean + share * (mean - other_mean), log_var + F.logsigmoid(other_log_var - log_var)
