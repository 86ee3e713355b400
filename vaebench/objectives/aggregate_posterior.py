"""Estimates of the aggregate posterior's density, q(z) = (1 / N) sum_n q(z|x_n), from one batch."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vaebench.distributions.diagonal_gaussian import LOG_2PI, DiagonalGaussian
from vaebench.hardware import collective

Estimator = Literal["weighted", "stratified"]


class AggregateDensities(NamedTuple):
    """Log-densities at each draw of a batch; nats, shape (B,).

    Attributes:
        log_q: log q(z).
        log_q_product: sum over dimensions of log q(z_d).
    """

    log_q: Tensor
    log_q_product: Tensor


def aggregate_densities(
    z: Tensor, q: DiagonalGaussian, num_examples: int, estimator: Estimator = "weighted"
) -> AggregateDensities:
    r"""Estimate log q(z) and the log-densities of its marginals at draws z_i ~ q(z|x_i) of a batch of M examples.

    .. math:: \log q(z_i) \approx \log \sum_j W_{ij} \, q(z_i|x_j)

    `weighted` has W_ij = 1 / (N M) (eq. 7 of the paper), which is biased by a constant. `stratified` gives the own
    example weight 1 / N, one other (N - M') / (N M'), and the rest 1 / M', where M' = M - 1, so that each row sums to
    one (appendix C.2).

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942
    Args:
        z: Draws, shape (B, D): this process's rows.
        q: Their posteriors, over (B, D).
        num_examples: N, examples of the training split.
        estimator: weighted or stratified.

    Raises:
        ValueError: if a stratified batch is one example.
    """
    means, log_vars = collective.gather(q.mean), collective.gather(q.log_var)
    squared = (z[:, None] - means).square() * (-log_vars).exp()
    log_q_IJD = -0.5 * (squared + log_vars + LOG_2PI)
    log_W = log_weights(len(means), num_examples, estimator, z)
    shard = collective.current_shard()
    if shard is not None:
        own = collective.gather(torch.arange(len(z), device=z.device) + shard.start)
        first = int((own < shard.start).sum())
        log_W = log_W[first : first + len(z)]
    joint = (log_q_IJD.sum(-1) + log_W).logsumexp(1)
    return AggregateDensities(joint, (log_q_IJD + log_W[..., None]).logsumexp(1).sum(-1))


def log_weights(batch_size: int, num_examples: int, estimator: Estimator, like: Tensor) -> Tensor:
    """Return log W, shape (M, M), for a batch of M examples of N; see `aggregate_densities`."""
    M, N = batch_size, num_examples
    if estimator == "weighted":
        return like.new_full((M, M), -math.log(N * M))
    if M < 2:
        raise ValueError("a stratified estimate of q(z) needs at least two examples in every batch, got one")
    rest = M - 1
    weights = like.new_full((M, M), 1 / rest)
    rows = torch.arange(M, device=like.device)
    weights[rows, rows] = 1 / N
    weights[rows, (rows + 1) % M] = max(N - rest, 0) / (N * rest)
    return weights.log()
