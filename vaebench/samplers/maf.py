"""A masked autoregressive flow fitted to the latents after training."""

from __future__ import annotations

from torch import nn
from typing_extensions import Unpack

from vaebench.samplers.flows import FlowSampler, FlowSettings


class MAFSampler(FlowSampler):
    r"""Ex-post density estimation with a masked autoregressive flow: exact likelihood in one pass, draws in D passes.

    .. math:: u_i = (z_i - \mu_i(z_{<i})) e^{-\alpha_i(z_{<i})}

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017),
        https://arxiv.org/abs/1705.07057, for five transforms with two hidden layers of 100 units, batches of 100 and an
        end after 30 epochs without improvement, as for its smaller data sets.
    Deviations:
        No batch normalisation between transforms, and a learning rate of 1e-3 instead of 1e-4: latents are
        standardised and few.
    Args:
        **settings: Those of `FlowSampler`.
    """

    def __init__(self, **settings: Unpack[FlowSettings]) -> None:
        super().__init__(**settings)

    def flow(self, num_features: int, num_context: int) -> nn.Module:
        """Return the flow; transforms alternate the order of the dimensions."""
        from zuko.flows import MAF

        return MAF(num_features, num_context, transforms=self.num_transforms, hidden_features=self.hidden_features)
