r"""The ladder variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from vaebench.models.hierarchy import HierarchicalModel, HierarchyComponents
from vaebench.networks.hierarchy import HierarchicalNetwork
from vaebench.networks.ladder import Ladder
from vaebench.schedules import Schedule, WarmupScheduler


class LadderVAE(HierarchicalModel):
    r"""Ladder VAE (Sønderby et al., 2016).

    Several layers of latents, whose posterior runs top-down like the prior: each layer merges the evidence of the
    example with the expectation from above, weighted by precision (see `networks.ladder`), and

    .. math:: L = -E_q[\log p(x|z_1)] + \beta(t) \sum_l E_q[KL(q(z_l|z_{l+1}, x) \| p(z_l|z_{l+1}))]

    with a warm-up of beta from 0 to 1 (section 2.3). A latent is the groups' standardised values, z_L first.

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016), https://arxiv.org/abs/1602.02282
    Args: those of `HierarchicalModel`, and
        network: Description of the layers; five, of the paper's sizes.
        beta: Weight of the rate; a line from 0.01 to 1 over 1,000 steps, so that short runs end at 1. The paper's
            takes 200 epochs with batches of 256, which are 46,900 steps of MNIST.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        network: HierarchicalNetwork = Ladder(),  # noqa: B008 - a frozen description
        beta: float | Schedule = WarmupScheduler(),  # noqa: B008
        **components: Unpack[HierarchyComponents],
    ) -> None:
        super().__init__(shape, network=network, beta=beta, **components)
