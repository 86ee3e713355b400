r"""Mixtures of discretized logistics over pixels whose channels depend on each other.

Everything here is computed for u = 2 x - 1 in [-1, 1], the coordinates of the paper, of data x in [0, 1] on a grid of n
levels: neighbours are 2 h apart, h = 1 / (n - 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from vaebench.hardware import collective

_PIECE = 2**14  # entries per block of the mean: fits a processor's cache
_FEW_LEVELS = 32  # up to here, summing the mean over levels is cheap
_LEAST_WEIGHT = 1e-5  # of a component whose mean is worth the cost: the rest is worth less than a fifth of a level
_REACH = (16, 10)  # scales from a mean to an end that nothing lies beyond: e^-16 for one channel, which is exact
_NUM_NODES = {2: 16, 3: 6}  # number of channels -> quadrature nodes per earlier channel; otherwise 4


class DiscretizedLogisticMixture(Distribution):
    r"""The mass of a mixture of logistics in the bin of each level, the outermost bins taking the tails.

    .. math:: p(x) = \prod_{pixels} \sum_i \pi_i \prod_c
              [\sigma(\tfrac{u_c - m_{ci} + h}{s_{ci}}) - \sigma(\tfrac{u_c - m_{ci} - h}{s_{ci}})]

    One component i is drawn for each pixel and shared by its channels; the mean of a channel depends on the levels of
    the channels before it: m_R = mu_R, m_G = mu_G + c_0 u_R, m_B = mu_B + c_1 u_R + c_2 u_G, and so on (eq. 3). The
    mass of an inner bin is sigma(a) sigma(-b) (1 - exp(b - a)) with a - b = 2 h / s: exact at any distance, so there is
    no threshold and no gradient vanishes. `log_prob` keeps nothing but its arguments for the backward pass.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    Deviations:
        The log-scale has a soft floor, floor + softplus(v - floor), where the paper's code has a hard one. A channel is
        rounded to its level before the next one is drawn, so that draws follow the mass exactly.
    Args:
        logits: Of the components, shape (..., M, H, W).
        means: mu, shape (..., C, M, H, W).
        log_scales: v, logarithms of the scales before the floor, shape (..., C, M, H, W).
        coeffs: Coefficients before their tanh, shape (..., C (C - 1) / 2, M, H, W), ordered G from R, B from R, B from
            G, …; None for one channel.
        num_levels: n, >= 2.
        min_log_scale: The floor; the paper's -7 is a quarter of a bin of 256.
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(
        self,
        logits: Tensor,
        means: Tensor,
        log_scales: Tensor,
        coeffs: Tensor | None,
        num_levels: int = 256,
        min_log_scale: float = -7.0,
    ) -> None:
        channels = means.shape[-4]
        if coeffs is None:
            coeffs = means.new_zeros(()).expand(*means.shape[:-4], 0, *means.shape[-3:])
        needed = (*means.shape[:-4], channels * (channels - 1) // 2, *means.shape[-3:])
        given = (tuple(logits.shape), tuple(log_scales.shape), tuple(coeffs.shape))
        if given != ((*means.shape[:-4], *means.shape[-3:]), tuple(means.shape), needed):
            raise ValueError(
                f"for means (B, C, M, H, W) of shape {tuple(means.shape)}, expected logits (B, M, H, W), log-scales of "
                f"the means' shape and coefficients (B, C(C-1)/2, M, H, W) of shape {needed}; got {given[0]}, "
                f"{given[1]} and {given[2]}"
            )
        self.logits, self.means, self.log_scales, self.coeffs = logits, means, log_scales, coeffs
        self.num_levels, self.min_log_scale = num_levels, min_log_scale
        super().__init__(means.shape[:-4], torch.Size((channels, *means.shape[-2:])), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass of `value` (..., C, H, W) in [0, 1], nats, summed over pixels; shape (...)."""
        return self.log_prob_of_pixels(value).sum((-2, -1))

    def log_prob_of_pixels(self, value: Tensor) -> Tensor:
        """Log-mass of each pixel of `value` (..., C, H, W); nats, shape (..., H, W)."""
        leading = torch.broadcast_shapes(value.shape[:-3], self.means.shape[:-4])
        u = (2 * value - 1).expand(*leading, *value.shape[-3:])
        means, log_scales, coeffs = (
            t.expand(*leading, *t.shape[-4:]) for t in (self.means, self.log_scales, self.coeffs)
        )
        given_component = _LogMass.apply(u, means, log_scales, coeffs, 1 / (self.num_levels - 1), self.min_log_scale)
        return (F.log_softmax(self.logits, -3) + given_component).logsumexp(-3)

    @property
    def mean(self) -> Tensor:
        """E[x], shape (..., C, H, W): that of each component, its couplings and clamped tails included, then mixed.

        Exact for one channel, and for several where there are at most 32 levels. Otherwise an integral stands for the
        sum over levels and a quadrature for the expectation over earlier channels: wrong by less than a fifth of a
        level at the smallest scale, and far less where scales are wider than a level.
        """
        weights = F.softmax(self.logits, -3)
        given_component = _component_means(
            list(self.means.unbind(-4)),
            [_log_scale(v, self.min_log_scale).exp() for v in self.log_scales.unbind(-4)],
            list(self.coeffs.tanh().unbind(-4)),
            weights,
            self.num_levels,
        )
        u = torch.stack([(weights * m).sum(-3) for m in given_component], -3)
        return ((u + 1) / 2).clamp(0, 1)  # the sum may round past the ends

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = (), temperature: float = 1.0) -> Tensor:
        """Draw x, shape (*sample_shape, ..., C, H, W): a component for each pixel, then channel after channel.

        Args:
            sample_shape: Leading dimensions.
            temperature: Factor on scales, and divisor of logits, > 0; 1 samples the distribution.
        """
        dim = len(sample_shape)
        shape = (*sample_shape, *self.means.shape)
        noise = _open_uniform((*sample_shape, *self.logits.shape), self.logits, dim)
        gumbel = -torch.log(-torch.log(noise))
        chosen = (self.logits / temperature + gumbel).argmax(-3, keepdim=True).unsqueeze(-4)

        def of_the_chosen(t: Tensor) -> Tensor:
            t = t.expand(*sample_shape, *t.shape)
            return t.gather(-3, chosen.expand(*t.shape[:-3], 1, *t.shape[-2:])).squeeze(-3)

        means, coeffs = of_the_chosen(self.means), of_the_chosen(self.coeffs).tanh()
        scales = temperature * _log_scale(of_the_chosen(self.log_scales), self.min_log_scale).exp()
        logistic = scales * torch.logit(_open_uniform((*shape[:-3], *shape[-2:]), self.means, dim))
        drawn: list[Tensor] = []
        for c in range(shape[-4]):
            m = _conditional_mean(means.select(-3, c), list(coeffs.unbind(-3)), drawn)
            x = ((m + logistic.select(-3, c)).clamp(-1, 1) + 1) / 2
            drawn.append(2 * (x * (self.num_levels - 1)).round() / (self.num_levels - 1) - 1)
        return (torch.stack(drawn, -3) + 1) / 2


class _LogMass(torch.autograd.Function):
    """log P(u | component), summed over channels: (..., C, H, W) and parameters (..., C, M, H, W) to (..., M, H, W).

    Autograd would keep a dozen tensors of the parameters' size; this keeps none, and its backward works channel by
    channel. The backward pass consists of differentiable operations, so that it can be differentiated again.
    """

    @staticmethod
    def forward(u: Tensor, means: Tensor, v: Tensor, coeffs: Tensor, h: float, floor: float) -> Tensor:
        total = None
        for c in range(means.shape[-4]):
            a, b, width, u_c = _bin(c, u, means, v, coeffs, h, floor)
            below, above = F.logsigmoid(a), F.logsigmoid(-b)
            inner = below + above + torch.log(-torch.expm1(-width))
            log_mass = torch.where(u_c < h - 1, below, torch.where(u_c > 1 - h, above, inner))
            total = log_mass if total is None else total + log_mass
        assert total is not None
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.constants = inputs[4:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, means, v, coeffs = ctx.saved_tensors
        (g,), (h, floor) = gradients, ctx.constants
        num_channels = means.shape[-4]
        of_means: list[Tensor] = []
        of_v: list[Tensor] = []
        of_coeffs: list[Tensor] = []
        of_u: list[Tensor] = []
        for c in range(num_channels):
            of_mean, of_log_scale = _channel_gradients(c, g, u, means, v, coeffs, h, floor)
            of_means.append(of_mean)
            of_v.append(of_log_scale)
            of_u.append(-of_mean.sum(-3))
            for j in range(c):
                t = coeffs.select(-4, c * (c - 1) // 2 + j).tanh()
                of_coeffs.append(of_mean * u.select(-3, j).unsqueeze(-3) * (1 - t * t))
                of_u[j] = of_u[j] + (of_mean * t).sum(-3)
        coupled = _stacked(of_coeffs, -4) if of_coeffs else torch.zeros_like(coeffs)
        return _stacked(of_u, -3), _stacked(of_means, -4), _stacked(of_v, -4), coupled, None, None


def _channel_gradients(
    c: int, g: Tensor, u: Tensor, means: Tensor, v: Tensor, coeffs: Tensor, h: float, floor: float
) -> tuple[Tensor, Tensor]:
    """Gradients in the mean and in v of channel c, each (..., M, H, W)."""
    a, b, width, u_c = _bin(c, u, means, v, coeffs, h, floor)
    upper = torch.sigmoid(-a).where(u_c <= 1 - h, 0)  # d log P / da
    lower = torch.sigmoid(b).where(u_c >= h - 1, 0)  # -d log P / db
    of_mean = g * (width / (2 * h)) * (lower - upper)
    from_edges = b * lower - a * upper
    edge = (width * torch.exp(-width) / -torch.expm1(-width)).where((u_c >= h - 1) & (u_c <= 1 - h), 0)
    return of_mean, g * (from_edges - edge) * torch.sigmoid(v.select(-4, c) - floor)


def _stacked(tensors: list[Tensor], dim: int) -> Tensor:
    """Stack tensors and free them."""
    stack = torch.stack(tensors, dim)
    tensors.clear()
    return stack


def _bin(
    c: int, u: Tensor, means: Tensor, v: Tensor, coeffs: Tensor, h: float, floor: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges a and b of the bins of channel c in units of the scale, their width a - b, and the levels."""
    channels = [u_j.unsqueeze(-3) for u_j in u.unbind(-3)]
    first = c * (c - 1) // 2
    m = means.select(-4, c)
    for j in range(c):
        m = m + coeffs.select(-4, first + j).tanh() * channels[j]
    inverse_scale = torch.exp(-_log_scale(v.select(-4, c), floor))
    centre, half = (channels[c] - m) * inverse_scale, h * inverse_scale
    return centre + half, centre - half, 2 * half, channels[c]


def _log_scale(v: Tensor, floor: float) -> Tensor:
    return floor + F.softplus(v - floor)


def _open_uniform(shape: tuple[int, ...], like: Tensor, dim: int) -> Tensor:
    return collective.uniform(shape, like=like, dim=dim).clamp(1e-6, 1 - 1e-6)


def _conditional_mean(mean: Tensor, coeffs: list[Tensor], earlier: list[Tensor]) -> Tensor:
    """m_c = mu_c + sum of c_cj u_j over the earlier channels; coefficients after their tanh, of all channels."""
    first = len(earlier) * (len(earlier) - 1) // 2
    for j, u_j in enumerate(earlier):
        mean = torch.addcmul(mean, coeffs[first + j], u_j)
    return mean


# The mean


def _component_means(
    means: list[Tensor], scales: list[Tensor], coeffs: list[Tensor], weights: Tensor, n: int
) -> list[Tensor]:
    """E[u_c] of each component, one (..., M, H, W) for each channel.

    Where a component keeps clear of both ends, this is its conditional mean at the means of the earlier channels; the
    costly rest is left to the others, and of those to the ones with a weight.
    """
    plain, is_clear = _means_without_ends(means, scales, coeffs, n)
    if n <= _FEW_LEVELS and len(means) > 1:
        is_clear = torch.zeros_like(is_clear)  # rounding to few levels moves means too
    elif len(means) > 1:
        is_clear = is_clear | (weights < _LEAST_WEIGHT)
    costly = (~is_clear).flatten().nonzero()[:, 0]
    pieces = zip(*[t.reshape(-1)[costly].split(_PIECE) for t in (*means, *scales, *coeffs)], strict=True)
    c, found = len(means), []
    for piece in pieces:
        found.append(_means_of_piece(list(piece[:c]), list(piece[c : 2 * c]), list(piece[2 * c :]), n))
    if not len(costly):
        return plain
    exact = [torch.cat(parts) for parts in zip(*found, strict=True)]
    return [p.flatten().index_put((costly,), e).view_as(p) for p, e in zip(plain, exact, strict=True)]


def _means_without_ends(
    means: list[Tensor], scales: list[Tensor], coeffs: list[Tensor], n: int
) -> tuple[list[Tensor], Tensor]:
    """E[u_c] as if nothing lay beyond -1 and 1, and where that is so; each (..., M, H, W)."""
    u: list[Tensor] = []
    spreads: list[Tensor] = []
    is_clear = torch.ones_like(means[0], dtype=torch.bool)
    for c, (mean, scale) in enumerate(zip(means, scales, strict=True)):
        m = _conditional_mean(mean, coeffs, u)
        first = c * (c - 1) // 2
        spread = scale + sum(coeffs[first + j].abs() * s for j, s in enumerate(spreads))
        is_clear &= m.abs() + _REACH[len(means) > 1] * spread < 1
        u.append(m.clamp(-1, 1))
        spreads.append(spread)
    if len(means) == 1:
        is_clear &= scales[0] >= 2 / (n - 1)  # narrower than two bins, rounding moves the mean
    return u, is_clear


def _means_of_piece(means: list[Tensor], scales: list[Tensor], coeffs: list[Tensor], n: int) -> tuple[Tensor, ...]:
    def visit(*earlier: Tensor) -> tuple[Tensor, ...]:
        """Conditional means of the remaining channels, given the earlier ones."""
        c = len(earlier)
        m = _conditional_mean(means[c], coeffs, list(earlier))
        own = _clamped_mean(m, scales[c], n, exactly=len(means) == 1 or n <= _FEW_LEVELS)
        if c == len(means) - 1:
            return (own,)
        rest = [torch.zeros_like(m) for _ in means[c + 1 :]]
        for node, weight in _nodes(m, scales[c], n, len(means)):
            if c == 0 and torch.is_grad_enabled():
                found = checkpoint(visit, node, use_reentrant=False, preserve_rng_state=False)
            else:
                found = visit(*earlier, node)
            rest = [torch.addcmul(total, weight, value) for total, value in zip(rest, found, strict=True)]
        return own, *rest

    return visit()


def _clamped_mean(m: Tensor, scale: Tensor, n: int, exactly: bool) -> Tensor:
    """E[u] of one channel: a sum over its levels, or the integral that the sum approaches."""
    if not exactly:
        inverse = 1 / scale
        upper = torch.addcmul(inverse, m, inverse)  # (m + 1) / scale
        return scale * (F.softplus(upper, threshold=40) - F.softplus(upper - 2 * inverse, threshold=40)) - 1
    total = torch.zeros_like(m)
    for j in range(1, n):  # E[k] is the sum of P(k >= j)
        total = total + torch.sigmoid((m - (2 * j - 1) / (n - 1) + 1) / scale)
    return 2 * total / (n - 1) - 1


def _nodes(m: Tensor, scale: Tensor, n: int, num_channels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Points and weights for an expectation over one channel: its levels where they are few.

    Otherwise the two ends, with the mass of their bins, and Gauss-Legendre nodes in w between them, where the
    distribution function is 3 w^2 - 2 w^3, which tames its ends.
    """
    h = 1 / (n - 1)
    below, above = torch.sigmoid((h - 1 - m) / scale), torch.sigmoid((m - 1 + h) / scale)
    ends = [(torch.full_like(m, -1), below), (torch.full_like(m, 1), above)]
    yield from ends
    if n <= _FEW_LEVELS:
        for k in range(1, n - 1):
            u = 2 * k * h - 1
            a, b = (u - m + h) / scale, (u - m - h) / scale
            yield torch.full_like(m, u), torch.sigmoid(a) * torch.sigmoid(-b) * -torch.expm1(b - a)
        return
    between = (1 - below - above).clamp_min(0)
    nodes, weights = np.polynomial.legendre.leggauss(_NUM_NODES.get(num_channels, 4))
    for w, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
        quantile = (below + between * (w * w * (3 - 2 * w))).clamp(1e-7, 1 - 1e-7)
        inner = (m + scale * torch.logit(quantile)).clamp(-1, 1)
        yield inner, between * (weight * 6 * w * (1 - w))
