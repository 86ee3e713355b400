"""The likelihood by a normalising flow that the decoder's output conditions, on dequantised data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaebench.core import at_least_float32
from vaebench.distributions.likelihoods import Likelihood
from vaebench.hardware import collective
from vaebench.messages import check_range, did_you_mean
from vaebench.networks.coupling import conditional_flow

Dequantization = Literal["uniform", "variational"]
ALPHA = 0.05  # of the logit transform, Dinh et al. (2017), section 4.1


class ConditionalFlow(Likelihood):
    r"""p(x|z) by a normalising flow f with the decoder's output c(z) as its context.

    Data with levels are dequantised: x in {0, 1/(n-1), …, 1} stands for the bin of width 1/n that begins at k/n, and

    .. math:: \log P(x|z) \ge E_{q(u|x)} \left[ \log p(y|z) - \log q(u|x) \right] - D \log n, \quad y = (k + u) / n

    where u is uniform on [0, 1), or drawn from a flow of its own (`variational`), which tightens the bound. `log_prob`
    is this bound at one u; its exponential has P(x|z) as its mean, so importance bounds stay bounds. The density is

    .. math:: \log p(y|z) = \log N(f(v; c); 0, I) + \log |\det df/dv| + \log |\det dv/dy|, \quad
              v = logit(\alpha + (1 - 2 \alpha) y), \quad \alpha = 0.05

    For data without levels (`num_levels=null`), which are real numbers, v = x and log_prob is the exact log-density.
    Pictures (C, H, W) go through affine couplings, vectors (D,) through spline couplings.

    `mean` is the image of the base's mean, as it is shown in pictures, and not the mean of x, which has no closed form.

    References:
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803;
        A note on the evaluation of generative models (Theis et al., 2016), https://arxiv.org/abs/1511.01844
        (section 3.1, uniform dequantisation);
        Flow++ (Ho et al., 2019), https://arxiv.org/abs/1902.00275 (section 3.1, variational dequantisation)
    Deviations:
        The variational dequantiser starts from logistic noise instead of Gaussian, and so from uniform u.
        No published model has this decoder with these sizes; numbers of layers and widths are ours.
    Args:
        num_levels: n, >= 2, or null for real data; `auto` is the data set's.
        dequantization: Where u comes from, `uniform` or `variational`.
        context_dim: Channels, or entries, of c(z), >= 1.
        num_transforms: Couplings, >= 1.
        hidden_features: Widths of the hidden layers of a coupling's network; pictures take the first.
    """

    def __init__(
        self,
        num_levels: int | Literal["auto"] | None = "auto",
        dequantization: Dequantization = "uniform",
        context_dim: int = 16,
        num_transforms: int = 6,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        if num_levels == "auto":
            raise ValueError("num_levels must be the number of levels of the data, or null for real data; got auto")
        check_range("num_levels", num_levels, at_least=2, whole=True, or_null=True)
        if dequantization not in get_args(Dequantization):
            near = did_you_mean(str(dequantization), get_args(Dequantization))
            raise ValueError(f"dequantization: unknown name '{dequantization}'{near}")
        check_range("context_dim", context_dim, at_least=1, whole=True)
        check_range("num_transforms", num_transforms, at_least=1, whole=True)
        if not hidden_features:
            raise ValueError("hidden_features must name at least one layer, got []")
        for width in hidden_features:
            check_range("hidden_features", width, at_least=1, whole=True)
        self.num_levels = num_levels
        self.is_discrete = num_levels is not None
        self.log_prob_is = "exact" if num_levels is None else "unbiased"
        self.is_variational = num_levels is not None and dequantization == "variational"
        self.context_dim = context_dim
        self._sizes = (num_transforms, tuple(hidden_features))

    def setup(self, shape: tuple[int, ...]) -> None:
        """Create the flows for examples of this shape."""
        self.shape = tuple(shape)
        self.flow = conditional_flow(shape, self.context_dim, *self._sizes)
        self.noise_flow = conditional_flow(shape, shape[0], *self._sizes) if self.is_variational else None

    def params_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The context: (context_dim, H, W) for pictures, (context_dim,) for vectors."""
        return (self.context_dim, *shape[1:])

    def caution(self, x: Tensor) -> str | None:
        """Say that the number is a bound."""
        if not self.is_discrete:
            return None
        return f"log p(x|z) is a lower bound, by {'variational' if self.is_variational else 'uniform'} dequantisation"

    def forward(self, params: Tensor, event_ndim: int) -> Independent:
        """Return p(x|z) with an event of `event_ndim` dimensions, computed in float32 or better."""
        return Independent(FlowDistribution(self, at_least_float32(params)), 0, validate_args=False)

    def to_real(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return v for y in [0, 1], shape kept, and log |det dv/dy|, nats, shape (N,)."""
        s = ALPHA + (1 - 2 * ALPHA) * y
        log_slope = math.log(1 - 2 * ALPHA) - s.log() - torch.log1p(-s)
        return torch.logit(s), log_slope.flatten(1).sum(1)

    def from_real(self, v: Tensor) -> Tensor:
        """Return y for v; it may leave [0, 1] by a little."""
        return (torch.sigmoid(v) - ALPHA) / (1 - 2 * ALPHA)


class FlowDistribution(Distribution):
    """p(x|z) for contexts of shape (..., context_dim, …).

    Args:
        head: The likelihood that holds the flows.
        context: c(z), with the batch dimensions first.
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, head: ConditionalFlow, context: Tensor) -> None:
        self._head = head
        batch_shape = context.shape[: context.ndim - len(head.shape)]
        self._context = context.reshape(-1, *context.shape[len(batch_shape) :])
        super().__init__(batch_shape, torch.Size(head.shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Bound on log P(x|z) at one u, or log p(x|z) of real data; value (..., *event_shape), nats, shape (...)."""
        head, n = self._head, self._head.num_levels
        batch_shape = torch.broadcast_shapes(value.shape[: value.ndim - len(self.event_shape)], self.batch_shape)
        x = value.expand(*batch_shape, *self.event_shape).to(self._context)
        context = self._context.view(*self.batch_shape, *self._context.shape[1:])
        context = context.expand(*batch_shape, *context.shape[len(self.batch_shape) :]).flatten(0, len(batch_shape) - 1)
        with torch.autocast(x.device.type, enabled=False):
            if n is None:
                log_prob = self._log_density(x.flatten(0, len(batch_shape) - 1), context)
            else:
                u, log_q = self._dequantised(x)
                y = ((x * (n - 1)).round() + u).flatten(0, len(batch_shape) - 1) / n
                v, log_slope = head.to_real(y)
                log_prob = self._log_density(v, context) + log_slope - log_q - y[0].numel() * math.log(n)
        return log_prob.view(batch_shape)

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean, shape (*batch_shape, *event_shape)."""
        return self._decoded(self._context.new_zeros(len(self._context), *self.event_shape)).view(
            self._extended_shape()
        )

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw x, on its levels where it has them; shape (*sample_shape, *batch_shape, *event_shape)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        batch_dim = len(sample_shape) + max(0, len(self.batch_shape) - 1)
        noise = collective.standard_normal(tuple(shape), self._context, dim=batch_dim)
        repeats = math.prod(sample_shape)
        with torch.no_grad():
            y = self._decoded(noise.reshape(-1, *self.event_shape), repeats)
            n = self._head.num_levels
            x = y if n is None else (y * n).floor().clamp(0, n - 1) / (n - 1)
        return x.view(shape)

    def _log_density(self, v: Tensor, context: Tensor) -> Tensor:
        """log p(v | context), nats, shape (N,)."""
        noise, log_det = self._head.flow(v, context)
        return -0.5 * (noise.square() + math.log(2 * math.pi)).flatten(1).sum(1) + log_det

    def _dequantised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Draw u of the shape of x (..., *event_shape), and log q(u|x), nats, shape (N,) or 0.

        Logistic noise goes through a flow and a sigmoid, so that a flow that is still the identity gives uniform u.
        """
        head, batch_ndim = self._head, x.ndim - len(self.event_shape)
        uniform = collective.uniform(tuple(x.shape), x, dim=max(0, batch_ndim - 1))
        if head.noise_flow is None:
            return uniform, x.new_zeros(())
        tiny = torch.finfo(x.dtype).tiny  # a uniform number may be exactly 0
        noise = torch.logit(uniform.clamp(min=tiny)).flatten(0, batch_ndim - 1)
        r, log_det = head.noise_flow(noise, 2 * x.flatten(0, batch_ndim - 1) - 1)
        log_q = (_logistic(noise) - _logistic(r)).flatten(1).sum(1) - log_det
        return torch.sigmoid(r).view(x.shape), log_q

    def _decoded(self, noise: Tensor, repeats: int = 1) -> Tensor:
        """Decode noise (repeats * N, *event_shape); same shape, in [0, 1] where x has levels."""
        with torch.autocast(noise.device.type, enabled=False):
            context = self._context.repeat(repeats, *[1] * (self._context.ndim - 1))
            v = self._head.flow.inverse(noise, context)  # type: ignore[operator]
            return v if self._head.num_levels is None else self._head.from_real(v).clamp(0, 1)


def _logistic(r: Tensor) -> Tensor:
    """Log-density of the logistic distribution, which is also the log-slope of the sigmoid; shape kept."""
    return F.logsigmoid(r) + F.logsigmoid(-r)
