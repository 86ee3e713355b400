"""How far two distributions are apart."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.distributions import kl_divergence

from vaebench.distributions.diagonal_gaussian import DiagonalGaussian

RateEstimator = Literal["in closed form", "one sample"]


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
