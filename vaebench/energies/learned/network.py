"""An energy that a network computes, held together by a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaebench.core import at_least_float32
from vaebench.energies.base import BaseEnergyFunction
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.networks.network import Network, StackEncoder


class NetworkEnergy(BaseEnergyFunction):
    r"""U(x) = f(x) + |x|^2 / (2 s^2), with f a network that ends in one number.

    The density is that of N(0, s^2 I) tilted by exp(-f). A network of bounded slope cannot outweigh the square, so that
    exp(-U) can be normalised whatever the weights are; f alone would leave chains a way to infinity.

    Plain layers begin with weights of variance 2 / fan-in (He et al.). With torch's own, a sixth of that, f is nearly
    linear at first, and learns thin ridges and many modes very slowly.

    References:
        A Theory of Generative ConvNet (Xie et al., 2016), https://arxiv.org/abs/1602.03264 (eq. 2), for the tilting
        Delving Deep into Rectifiers (He et al., 2015), https://arxiv.org/abs/1502.01852 (eq. 10), for the weights
    Args:
        shape: Shape of one point before it is flattened.
        network: Description of the trunk; what it computes for one row must not depend on the others.
        reference_scale: s > 0.
    """

    num_dims: int

    def __init__(self, shape: Sequence[int], network: Network, reference_scale: float = 2.0) -> None:
        super().__init__()
        check_range("reference_scale", reference_scale, above=0, below=math.inf)
        self.shape, self.reference_scale = tuple(shape), reference_scale
        self.num_dims = math.prod(self.shape)
        self.trunk = network.encoder(self.shape)
        self.head = nn.Linear(self.trunk.num_features, 1, bias=False)  # a constant does not change the density
        if any(isinstance(module, _BatchNorm) for module in self.modules()):
            raise ValueError(
                "network normalises over the batch, and the energy of one point would depend on the others; set its "
                "norm to none or group"
            )
        plain = list(self.trunk.layers) if isinstance(self.trunk, StackEncoder) else []  # others know their own start
        for layer in [*plain, self.head]:
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """U in nats, x (B, D) -> (B,)."""
        return self.tilt(x) + at_least_float32(x).square().sum(-1) / (2 * self.reference_scale**2)

    def tilt(self, x: Tensor) -> Tensor:
        """f in nats, x (B, D) -> (B,)."""
        return at_least_float32(self.head(self.trunk(x.reshape(-1, *self.shape))).squeeze(-1))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U, shape (B,), and its gradient, shape (B, D): in closed form where the trunk is plain layers."""
        if not self._is_plain(x):
            return super().value_and_grad(x)
        with torch.no_grad():
            features, gradient = self._features_and_gradient(x)
            return self.head(features).squeeze(-1) + x.square().sum(-1) / (2 * self.reference_scale**2), gradient

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient alone, shape (B, D)."""
        if not self._is_plain(x):
            return super().gradient(x)
        with torch.no_grad():
            return self._features_and_gradient(x)[1]

    def _is_plain(self, x: Tensor) -> bool:
        layers = list(self.trunk.layers) if isinstance(self.trunk, StackEncoder) and self.trunk.is_flat else []
        return (
            bool(layers)
            and type(layers[0]) is nn.Linear
            and all(type(layer) in (nn.Linear, *SLOPES) for layer in layers)
            and (type(self).forward, type(self).tilt) == (NetworkEnergy.forward, NetworkEnergy.tilt)
            and x.dtype == self.head.weight.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _features_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, passed = x, []
        for layer in self.trunk.layers:  # type: ignore[union-attr]
            if isinstance(layer, nn.Linear):
                h = layer(h)
                passed.append(layer.weight)
            else:
                h, slope = SLOPES[type(layer)](h)
                passed.append(slope)
        gradient = self.head.weight
        for layer, factor in zip(reversed(self.trunk.layers), reversed(passed), strict=True):  # type: ignore
            gradient = gradient @ factor if isinstance(layer, nn.Linear) else factor.mul_(gradient)
        return h, torch.add(gradient, x, alpha=self.reference_scale**-2)

    def start(self, num_chains: int) -> Tensor:
        """Draw from the Gaussian N(0, s^2 I), shape (S, D)."""
        check_range("num_chains", num_chains, at_least=1, whole=True)
        like = next(self.parameters())
        return self.reference_scale * collective.standard_normal((num_chains, self.num_dims), like)


def _silu(a: Tensor) -> tuple[Tensor, Tensor]:
    sigmoid = a.sigmoid()
    h = a.mul_(sigmoid)
    return h, (1 - sigmoid).mul_(h).add_(sigmoid)


def _relu(a: Tensor) -> tuple[Tensor, Tensor]:
    return a.relu_(), (a > 0).to(a.dtype)


def _tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    return a.tanh_(), 1 - a.square()


# What an activation makes of its input, which it overwrites, and the slope there.
SLOPES: dict[type[nn.Module], Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    nn.SiLU: _silu,
    nn.ReLU: _relu,
    nn.Tanh: _tanh,
}
