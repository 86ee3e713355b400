"""How far two distributions are apart."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.distributions import kl_divergence

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.hardware import collective

RateEstimator = Literal["in closed form", "one sample", "in closed form for each group, at one draw of those above"]


def rate(q: Any, p: Any, z: Tensor) -> tuple[Tensor, RateEstimator]:
    r"""Return KL(q || p), and how it was found.

    In closed form where torch knows one for the pair of distributions, and otherwise from one draw,

    .. math:: \log q(z) - \log p(z), \quad z \sim q

    which has the right expectation, and may be negative for one example.

    Args:
        q: Distribution over (B, D).
        p: Distribution over (D,) or (B, D).
        z: Draws from q, with gradients, shape (B, D).

    Returns: nats, shape (B,).
    """
    try:
        return kl_divergence(q, p), "in closed form"
    except NotImplementedError:
        return q.log_prob(z) - p.log_prob(z), "one sample"


def rate_per_dimension(q: Any, p: Any) -> Tensor:
    r"""Return KL(q_d || p_d) of each dimension of two diagonal Gaussians; nats, shape (B, D).

    .. math:: \tfrac12 \Big( \frac{(\mu_d - m_d)^2 + \sigma_d^2}{s_d^2} - 1 - \log \frac{\sigma_d^2}{s_d^2} \Big)

    Args:
        q: N(mu, diag(sigma^2)) over (B, D).
        p: N(m, diag(s^2)) over (D,) or (B, D).

    Raises:
        ValueError: if one of them is of another kind, whose dimensions may depend on each other.
    """
    if not isinstance(q, DiagonalGaussian) or not isinstance(p, DiagonalGaussian):
        raise ValueError(
            f"a rate per dimension needs Gaussians with diagonal covariance, got {type(q).__name__} and "
            f"{type(p).__name__}"
        )
    squared = (q.mean - p.mean).square() + q.variance
    return 0.5 * (squared * (-p.log_var).exp() - 1 - q.log_var + p.log_var)


def free_bits_rate(rate_BD: Tensor, free_bits: float, over: Literal["batch", "example"]) -> Tensor:
    r"""Return a rate whose first nats in each dimension cost nothing.

    .. math:: \sum_d \max(\lambda, \frac1B \sum_b R_{bd}) \quad \text{or} \quad \sum_d \max(\lambda, R_{bd})

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934 (appendix C.8); A Surprisingly Effective Fix for Deep Latent Variable Modeling
        of Text (Li et al., 2019), https://arxiv.org/abs/1909.00868
    Args:
        rate_BD: R, nats, shape (B, D).
        free_bits: lambda, nats.
        over: What lambda bounds from below: the mean over the batch (of all processes), or each example.

    Returns: a scalar for the batch, shape (B,) for examples.
    """
    if over == "batch":
        return collective.gather(rate_BD).mean(0).clamp_min(free_bits).sum()
    return rate_BD.clamp_min(free_bits).sum(-1)
