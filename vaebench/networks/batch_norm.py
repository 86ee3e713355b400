"""Batch normalisation over the whole batch, however many processes share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.core import at_least_float32
from vaebench.hardware import collective

_keeps_statistics = False


class BatchNorm(nn.Module):
    """Batch normalisation of features (B, C) or pictures (B, C, H, W).

    In training by mean and variance of the batch over all processes, otherwise by their running means.

    References:
        Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift (Ioffe and Szegedy,
        2015), https://arxiv.org/abs/1502.03167
    Args:
        num_features: C.
        momentum: Weight of a new batch in the running means, in (0, 1].
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x; same shape."""
        mean, var = self.running_mean, self.running_var
        if _keeps_statistics:
            mean, var = mean.clone(), var.clone()
        if not (self.training and collective.is_distributed() and collective.current_shard() is not None):
            return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)
        return self._over_processes(x, mean, var)

    def _over_processes(self, x: Tensor, running_mean: Tensor, running_var: Tensor) -> Tensor:
        """The moments that one process with all rows would compute, from each example's sums."""
        wide = at_least_float32(x).flatten(2) if x.ndim > 2 else at_least_float32(x)[..., None]
        mean = collective.gather(wide.mean(-1)).mean(0)
        rows = collective.gather((wide - mean[:, None]).square().mean(-1))
        var = rows.mean(0)
        n = len(rows) * wide.shape[-1]
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), self.momentum)
            running_var.lerp_((var * n / (n - 1)).to(running_var), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        wide = (wide - mean[:, None]) * scale[:, None] + self.bias[:, None]
        return wide.view_as(x).to(x.dtype)


def statistics_kept() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a pass and of its repetition under gradient checkpointing: running means move in the first only."""
    return nullcontext(), _without_statistics()


@contextmanager
def _without_statistics() -> Iterator[None]:
    global _keeps_statistics
    before, _keeps_statistics = _keeps_statistics, True
    try:
        yield
    finally:
        _keeps_statistics = before
