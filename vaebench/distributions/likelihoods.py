"""Likelihoods p(x|z): from a decoder's output to a distribution over data.

Each is a module without shapes. `params_shape(shape)` says what the decoder must return for data of that shape, and
`forward(params, event_ndim)` returns a distribution whose last `event_ndim` dimensions are one example, so that
`log_prob` sums over them. `is_discrete` says that it is a probability mass on the grid of the data, for which bits per
dimension have a meaning.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as TorchNormal

from vaebench.core import at_least_float32
from vaebench.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from vaebench.hardware import collective
from vaebench.messages import NamedArguments, check_range, did_you_mean


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x). torch's default calls it linear above 20, which in float64 loses 2e-9."""
    return F.softplus(x, threshold=40)


class Likelihood(NamedArguments, nn.Module):
    """Base of the likelihoods: one parameter for each data dimension unless said otherwise.

    Attributes:
        is_discrete: Whether it is a probability mass on the grid of the data.
        num_levels: Levels of this grid, or None.
        log_prob_is: "exact"; "unbiased" where it is drawn anew in each call and its exponential has p(x|z) as its mean;
            "a bound" where it is drawn anew and its own mean is below log p(x|z).
    """

    is_discrete: bool = False
    num_levels: int | None = None
    log_prob_is: Literal["exact", "unbiased", "a bound"] = "exact"

    def setup(self, shape: tuple[int, ...]) -> None:
        """Create what depends on the shape of an example; a model calls this once, before anything else."""

    def params_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder's output for one example of `shape`."""
        return tuple(shape)

    def caution(self, x: Tensor) -> str | None:
        """Say in one clause why nats of these data do not mean what they seem to, or None."""
        return None

    def distribution(self, params: Tensor, event_ndim: int) -> Distribution:
        """The distribution of each data dimension; params of shape (..., *params_shape)."""
        raise NotImplementedError

    def forward(self, params: Tensor, event_ndim: int) -> Independent:
        """Return p(x|z) with an event of `event_ndim` dimensions, computed in float32 or better."""
        return Independent(self.distribution(at_least_float32(params), event_ndim), event_ndim, validate_args=False)

    def score(self, params: Tensor, x: Tensor) -> Tensor:
        """Gradient of log p(x|z) in the decoder's output, in closed form where there is one; differentiable.

        Args:
            params: What the decoder returned, shape (B, *params_shape).
            x: Shape (B, *shape).
        """
        with torch.enable_grad():
            params = params if params.requires_grad else params.detach().requires_grad_()
            log_prob = self(params, x.ndim - 1).log_prob(x).sum()
            return torch.autograd.grad(log_prob, params, create_graph=True)[0]


class Bernoulli(Likelihood):
    """Binary data, parameters are logits.

    Grey data in (0, 1) have no Bernoulli likelihood: binarise them, or use ContinuousBernoulli.
    """

    is_discrete = True
    num_levels = 2

    def distribution(self, params: Tensor, event_ndim: int) -> Distribution:
        """Bernoulli with these logits."""
        return _Bernoulli(logits=params, validate_args=False)

    def score(self, params: Tensor, x: Tensor) -> Tensor:
        """x - p."""
        return x - torch.sigmoid(params)


class _Bernoulli(TorchBernoulli):
    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - _softplus(self.logits)  # fewer passes than torch's own


class ContinuousBernoulli(Likelihood):
    """Grey values in [0, 1] with a normalised density, parameters are logits.

    At values of exactly 0 and 1 the density grows without bound with the logit, so that a background of zeros can add
    any number of nats: compare only models of the same data, likelihood and training.

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders (Loaiza-Ganem and Cunningham,
        2019), https://arxiv.org/abs/1907.06845
    """

    def caution(self, x: Tensor) -> str | None:
        """Tell which share of the values is exactly 0 or 1."""
        share = ((x == 0) | (x == 1)).double().mean().item()
        if share == 0:
            return None
        return f"{share:.0%} of the values are exactly 0 or 1, where the continuous Bernoulli's density has no bound"

    def distribution(self, params: Tensor, event_ndim: int) -> Distribution:
        """Continuous Bernoulli with these logits."""
        return _ContinuousBernoulli(params)


class _Elementwise(Distribution):
    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(self, like: Tensor) -> None:
        super().__init__(like.shape, validate_args=False)


class _ContinuousBernoulli(_Elementwise):
    r"""Density exp(x l - softplus(l)) C(l), with C = l / tanh(l / 2): eq. (5) of the paper written in the logit."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits)

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - _softplus(self.logits) + self.log_normaliser()

    def log_normaliser(self) -> Tensor:
        l = self.logits  # noqa: E741 - the paper's symbol is lambda; this is its logit
        is_small = l.abs() < 0.1
        far = torch.where(is_small, torch.ones_like(l), l.abs())
        near = torch.where(is_small, l, torch.zeros_like(l)).square()
        # Taylor series of log((l/2) coth(l/2)) at 0; the next term is below 1e-9 here.
        return torch.where(
            is_small, math.log(2) + near / 12 - near * near * 7 / 1440, far.log() - torch.tanh(far / 2).log()
        )

    @property
    def mean(self) -> Tensor:
        l = self.logits  # noqa: E741
        is_small = l.abs() < 0.1
        far = torch.where(is_small, torch.ones_like(l), l)
        return torch.where(is_small, 0.5 + l / 12 - l**3 / 720, torch.sigmoid(far) / torch.tanh(far / 2) - 1 / far)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        shape = (*sample_shape, *self.logits.shape)
        u = collective.uniform(shape, like=self.logits, dim=len(sample_shape)).clamp(1e-6, 1 - 1e-6)
        # Invert the distribution function for -|l|, whose exponentials cannot overflow, then reflect.
        l = self.logits.abs().expand(shape)  # noqa: E741
        is_small = l < 1e-3
        far = torch.where(is_small, torch.ones_like(l), l)
        x = torch.where(is_small, u, -torch.log1p(u * torch.expm1(-far)) / far).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - x, x)


class Gaussian(Likelihood):
    """Real data with one standard deviation for all dimensions.

    References:
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202, for the learned scale: with the defaults it starts where the paper's does.
    Deviations:
        The log-scale has no soft floor at -6, as in the authors' code. Their other choice, the scale that is optimal
        for a batch (the root of its mean squared error), is left out: log p(x|z) would depend on the batch.
    Args:
        scale: Standard deviation, or its start where it is learned; > 0.
        learn_scale: Whether the scale is a parameter of the model.
    """

    def __init__(self, scale: float = 1.0, learn_scale: bool = False) -> None:
        super().__init__()
        check_range("scale", scale, above=0, below=math.inf)
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def distribution(self, params: Tensor, event_ndim: int) -> Distribution:
        """Normal around the decoder's output."""
        return TorchNormal(params, self.log_scale.exp(), validate_args=False)

    def score(self, params: Tensor, x: Tensor) -> Tensor:
        """(x - mean) / variance."""
        return (x - params) * (-2 * self.log_scale).exp()


class Binomial(Likelihood):
    """Counts k of `total_count`, given as x = k / total_count in [0, 1]; parameters are logits.

    Args:
        total_count: The largest count, >= 1.
    """

    is_discrete = True

    def __init__(self, total_count: int) -> None:
        super().__init__()
        check_range("total_count", total_count, at_least=1, whole=True)
        self.total_count = total_count
        self.num_levels = total_count + 1

    def distribution(self, params: Tensor, event_ndim: int) -> Distribution:
        """Binomial with these logits."""
        return _Binomial(params, self.total_count)

    def score(self, params: Tensor, x: Tensor) -> Tensor:
        """k - n p."""
        return self.total_count * (x - torch.sigmoid(params))


class _Binomial(_Elementwise):
    def __init__(self, logits: Tensor, n: int) -> None:
        self.logits, self.n = logits, n
        super().__init__(logits)

    def log_prob(self, value: Tensor) -> Tensor:
        k = value * self.n
        log_choose = math.lgamma(self.n + 1) - torch.lgamma(k + 1) - torch.lgamma(self.n - k + 1)
        return log_choose + k * self.logits - self.n * _softplus(self.logits)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        shape = (*sample_shape, *self.logits.shape)
        probs = torch.sigmoid(self.logits).expand(shape)
        return torch.binomial(torch.full_like(probs, float(self.n)), probs) / self.n


class DiscretizedLogistic(Likelihood):
    r"""Values on a grid of `num_levels` in [0, 1]: the mass of a logistic in each value's bin.

    The decoder returns a location and a log-scale for each dimension, as the VampPrior's decoders do. The mixture of
    `LogisticMixture` with one component, for each dimension by itself.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934 (section 5.1); PixelCNN++ (Salimans et al., 2017),
        https://arxiv.org/abs/1701.05517 (section 2.1, for the tails)
    Args:
        num_levels: Number of grey levels, >= 2; 256 for 8-bit images.
    """

    is_discrete = True
    num_levels: int

    def __init__(self, num_levels: int = 256) -> None:
        super().__init__()
        check_range("num_levels", num_levels, at_least=2, whole=True)
        self.num_levels = num_levels

    def params_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Twice the channels: locations, then log-scales."""
        return (2 * shape[0], *shape[1:])

    def distribution(self, params: Tensor, event_ndim: int) -> Distribution:
        """Discretized logistic with the location 0.5 + first half, log-scale -2 + second half, bounded below at -7."""
        location, log_scale = params.chunk(2, dim=-event_ndim)
        return _DiscretizedLogistic(2 * location, log_scale + (math.log(2) - 2), self.num_levels)


class _DiscretizedLogistic(_Elementwise):
    """The mixture for pictures of one pixel, one channel and one component."""

    def __init__(self, mean: Tensor, log_scale: Tensor, num_levels: int) -> None:
        super().__init__(mean)
        mean, log_scale = (t[..., None, None, None, None] for t in (mean, log_scale))
        logits = mean.new_zeros(()).expand(mean.shape[:-1])
        # The floor is -7 in the data's own units, a quarter of a bin of 256 levels: narrower gains nothing.
        self.mixture = DiscretizedLogisticMixture(logits, mean, log_scale, None, num_levels, math.log(2) - 7)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.mixture.log_prob(value[..., None, None, None])

    @property
    def mean(self) -> Tensor:
        return self.mixture.mean[..., 0, 0, 0]

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.mixture.sample(sample_shape)[..., 0, 0, 0]


class LogisticMixture(Likelihood):
    r"""Pixels on a grid of `num_levels` in [0, 1]: a mixture of discretized logistics, its channels coupled.

    The distribution of PixelCNN++: one component for each pixel, shared by its channels, and the mean of a channel
    linear in the channels before it; see `distributions.discretized_logistic_mixture`. For C channels and M components
    the decoder returns M (1 + 2 C + C (C - 1) / 2) channels, 10 M for colour.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans et al., 2017), https://arxiv.org/abs/1701.05517 (section 2.1 and 2.2)
    Deviations:
        Log-scales have a soft floor, and begin at -1.3 where the decoder returns 0, as those of DiscretizedLogistic.
    Args:
        num_levels: Number of levels of each channel, >= 2; 256 for 8-bit images.
        num_mixtures: M, >= 1; 10, the paper's.
    """

    is_discrete = True
    num_levels: int

    def __init__(self, num_levels: int = 256, num_mixtures: int = 10) -> None:
        super().__init__()
        check_range("num_levels", num_levels, at_least=2, whole=True)
        check_range("num_mixtures", num_mixtures, at_least=1, whole=True)
        self.num_levels, self.num_mixtures = num_levels, num_mixtures

    def params_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(..., M (1 + 2 C + C (C - 1) / 2), H, W) for (..., C, H, W).

        Raises:
            ValueError: if an example has no channels, or more than 4.
        """
        if len(shape) < 3 or not 1 <= shape[-3] <= 4:
            raise ValueError(
                f"likelihood: logistic_mixture orders the 1 to 4 channels of pictures (C, H, W), got examples of shape "
                f"{tuple(shape)}; use likelihood=discretized_logistic"
            )
        channels = shape[-3]
        return (*shape[:-3], self.num_mixtures * (1 + 2 * channels + channels * (channels - 1) // 2), *shape[-2:])

    def split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Name the decoder's channels: params (..., P, H, W) -> logits, means, log_scales, coeffs.

        Returns:
            Logits (..., M, H, W); means and log-scales (..., C, M, H, W); coefficients (..., C (C - 1) / 2, M, H, W):
            what `DiscretizedLogisticMixture` takes.
        """
        per_component = params.shape[-3] // self.num_mixtures
        (channels,) = (c for c in range(1, 5) if 1 + 2 * c + c * (c - 1) // 2 == per_component)
        grouped = params.unflatten(-3, (per_component, self.num_mixtures))
        sizes = (1, channels, channels, channels * (channels - 1) // 2)
        logits, means, log_scales, coeffs = grouped.split(sizes, -4)
        return logits.squeeze(-4), means, log_scales + (math.log(2) - 2), coeffs

    def distribution(self, params: Tensor, event_ndim: int) -> DiscretizedLogisticMixture:
        """The mixture, an event of which is a picture (C, H, W)."""
        return DiscretizedLogisticMixture(*self.split(params), self.num_levels)

    def forward(self, params: Tensor, event_ndim: int) -> Independent:
        """Return p(x|z) with an event of `event_ndim` dimensions, computed in float32 or better."""
        p = self.distribution(at_least_float32(params), event_ndim)
        return Independent(p, event_ndim - 3, validate_args=False)


LikelihoodName = Literal["bernoulli", "continuous_bernoulli", "discretized_logistic", "gaussian", "logistic_mixture"]
_BY_NAME: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "discretized_logistic": DiscretizedLogistic,
    "gaussian": Gaussian,
    "logistic_mixture": LogisticMixture,
}


def as_likelihood(likelihood: Likelihood | str) -> Likelihood:
    """Return a likelihood as it is, and a new one with its defaults for a name.

    >>> as_likelihood("bernoulli")
    Bernoulli()

    Raises:
        ValueError: if there is none of that name that can do without settings.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood == "binomial":
        raise ValueError("likelihood: a binomial needs its largest count; give Binomial(total_count=…)")
    if likelihood not in _BY_NAME:
        raise ValueError(f"likelihood: unknown name {likelihood!r}{did_you_mean(str(likelihood), _BY_NAME)}")
    return _BY_NAME[likelihood]()
