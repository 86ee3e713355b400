"""An inverse autoregressive flow fitted to the latents after training."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from typing_extensions import Unpack

from vaebench.samplers.flows import FlowSampler, FlowSettings

MANY_DIMENSIONS = 64  # of passes that take long


class IAFSampler(FlowSampler):
    r"""Ex-post density estimation with an inverse autoregressive flow: draws in one pass, likelihood in D passes.

    .. math:: z_i = \mu_i(u_{<i}) + e^{\alpha_i(u_{<i})} u_i

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
    Deviations:
        The flow is a density over latents after training, and not a part of the posterior; settings are those of
        `sampler=maf`.
    Args:
        **settings: Those of `FlowSampler`.
    """

    instead: ClassVar[str] = "choose sampler=maf, or lower sampler.batch_size"

    def __init__(self, **settings: Unpack[FlowSettings]) -> None:
        super().__init__(**settings)

    def fit_bytes(self, num_features: int) -> int:
        """Each of D passes keeps for the backward pass its activations, and the masked weights."""
        hidden, widest = sum(self.hidden_features), max(self.hidden_features, default=2 * num_features)
        weights = widest * (3 * num_features + hidden)
        per_pass = self.batch_size * (7 * num_features + 3 * hidden) + weights
        return 4 * self.num_transforms * num_features * per_pass

    def too_slow(self, num_dims: int) -> str | None:
        """Say what many dimensions cost."""
        if num_dims <= MANY_DIMENSIONS:
            return None
        return (
            f"takes {num_dims} passes through its networks for each likelihood, forward and backward: the fit may take "
            "hours; sampler=maf takes one pass"
        )

    def flow(self, num_features: int, num_context: int) -> nn.Module:
        """Return the flow: the inverses of the transforms of a masked autoregressive flow."""
        from zuko.flows import MAF, Flow
        from zuko.lazy import LazyInverse

        forward = MAF(num_features, num_context, transforms=self.num_transforms, hidden_features=self.hidden_features)
        return Flow([LazyInverse(transform) for transform in forward.transform.transforms], forward.base)
