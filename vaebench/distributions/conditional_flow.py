"""The likelihood by a normalising flow that the decoder's output conditions, on dequantised data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vaebench.distributions.context_likelihood import ContextDistribution, ContextLikelihood
from vaebench.messages import check_range, did_you_mean
from vaebench.networks.coupling import conditional_flow

Dequantization = Literal["uniform", "variational"]
ALPHA = 0.05  # for the logit transform (Dinh et al., 2017, section 4.1)


class ConditionalFlow(ContextLikelihood):
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
        super().__init__(num_levels, context_dim)
        if dequantization not in get_args(Dequantization):
            near = did_you_mean(str(dequantization), get_args(Dequantization))
            raise ValueError(f"dequantization: unknown name '{dequantization}'{near}")
        check_range("num_transforms", num_transforms, at_least=1, whole=True)
        if not hidden_features:
            raise ValueError("hidden_features must name at least one layer, got []")
        for width in hidden_features:
            check_range("hidden_features", width, at_least=1, whole=True)
        self.log_prob_is = "unbiased" if self.is_discrete else "exact"
        self.is_variational = self.is_discrete and dequantization == "variational"
        self._sizes = (num_transforms, tuple(hidden_features))

    def setup(self, shape: tuple[int, ...]) -> None:
        """Create the flows for examples of this shape."""
        self.shape = tuple(shape)
        self.flow = conditional_flow(shape, self.context_dim, *self._sizes)
        self.noise_flow = conditional_flow(shape, shape[0], *self._sizes) if self.is_variational else None

    def caution(self, x: Tensor) -> str | None:
        """Say that the number is a bound."""
        if not self.is_discrete:
            return None
        return f"log p(x|z) is a lower bound, by {'variational' if self.is_variational else 'uniform'} dequantisation"

    def given(self, context: Tensor) -> FlowDistribution:
        """Return p(x|z) for contexts of shape (..., context_dim, …)."""
        return FlowDistribution(self, context)

    def to_real(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return v for y in [0, 1], shape kept, and log |det dv/dy|, nats, shape (N,)."""
        s = ALPHA + (1 - 2 * ALPHA) * y
        log_slope = math.log(1 - 2 * ALPHA) - s.log() - torch.log1p(-s)
        return torch.logit(s), log_slope.flatten(1).sum(1)

    def from_real(self, v: Tensor) -> Tensor:
        """Return y for v; it may leave [0, 1] by a little."""
        return (torch.sigmoid(v) - ALPHA) / (1 - 2 * ALPHA)


class FlowDistribution(ContextDistribution):
    """p(x|z) by the flows of `head`; see `ContextDistribution`."""

    def __init__(self, head: ConditionalFlow, context: Tensor) -> None:
        super().__init__(head.shape, context)
        self._head = head

    def log_prob(self, value: Tensor) -> Tensor:
        """Bound on log P(x|z) at one u, or log p(x|z) of real data; value (..., *event_shape), nats, shape (...)."""
        head, n = self._head, self._head.num_levels
        x, context, batch_shape = self.rows(value)
        with torch.autocast(x.device.type, enabled=False):
            if n is None:
                return self._log_density(x, context).view(batch_shape)
            u, log_q = self._dequantised(x, batch_shape)
            v, log_slope = head.to_real(((x * (n - 1)).round() + u) / n)
            log_prob = self._log_density(v, context) + log_slope - log_q - math.prod(head.shape) * math.log(n)
            return log_prob.view(batch_shape)

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean, shape (*batch_shape, *event_shape)."""
        noise, context, _ = self.rows(self.context.new_zeros(self.event_shape))
        return self._decoded(noise, context).view(self._extended_shape())

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw x, on its levels where it has them; shape (*sample_shape, *batch_shape, *event_shape)."""
        shape, n = self._extended_shape(torch.Size(sample_shape)), self._head.num_levels
        noise = self.normal(torch.Size((*sample_shape, *self.batch_shape)))
        noise, context, _ = self.rows(noise.view(shape))
        y = self._decoded(noise, context).view(shape)
        return y if n is None else (y * n).floor().clamp(0, n - 1) / (n - 1)

    def _log_density(self, v: Tensor, context: Tensor) -> Tensor:
        """log p(v | context), nats, shape (N,)."""
        noise, log_det = self._head.flow(v, context)
        return -0.5 * (noise.square() + math.log(2 * math.pi)).flatten(1).sum(1) + log_det

    def _dequantised(self, x: Tensor, batch_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Draw u of the shape of x (N, *event_shape), and log q(u|x), nats, shape (N,) or 0.

        Logistic noise goes through a flow and a sigmoid, so that a flow that is still the identity gives uniform u.
        """
        uniform = self.uniform(batch_shape, tuple(self.event_shape))
        if self._head.noise_flow is None:
            return uniform, x.new_zeros(())
        noise = torch.logit(uniform.clamp(min=torch.finfo(x.dtype).tiny))  # uniform draws can be exactly 0
        r, log_det = self._head.noise_flow(noise, 2 * x - 1)
        return torch.sigmoid(r), (_logistic(noise) - _logistic(r)).flatten(1).sum(1) - log_det

    def _decoded(self, noise: Tensor, context: Tensor) -> Tensor:
        """Decode noise (N, *event_shape); same shape, in [0, 1] where x has levels."""
        with torch.autocast(noise.device.type, enabled=False):
            v = self._head.flow.inverse(noise, context)  # type: ignore[operator]
            return v if self._head.num_levels is None else self._head.from_real(v).clamp(0, 1)


def _logistic(r: Tensor) -> Tensor:
    """Log-density of the logistic distribution, which is also the log-slope of the sigmoid; shape kept."""
    return F.logsigmoid(r) + F.logsigmoid(-r)
