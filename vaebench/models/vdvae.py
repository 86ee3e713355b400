r"""The very deep variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from vaebench.models.hierarchy import HierarchicalModel, HierarchyComponents
from vaebench.networks.hierarchy import HierarchicalNetwork
from vaebench.networks.vdvae import VDVAENetwork
from vaebench.schedules import ConstantScheduler, Schedule


class VDVAE(HierarchicalModel):
    r"""Very deep VAE (Child, 2021).

    A long chain of groups over pictures of growing size (see `networks.vdvae`), trained by the plain bound:

    .. math:: L = -E_q[\log p(x|z)] + \sum_l E_q[KL(q(z_l|z_{<l}, x) \| p(z_l|z_{<l}))]

    Rare steps have gradients of a huge norm; the paper leaves them out (`trainer.skip_gradient_above`), clips the
    others (`trainer.gradient_clip_norm`) and averages the weights (`trainer.ema_decay`): `experiment=vdvae_cifar10`.

    References:
        Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images (Child, 2021),
        https://arxiv.org/abs/2011.10650
    Args: those of `HierarchicalModel`, and
        network: Description of the blocks; 12 groups, ours, for small pictures and few cores. The paper's are
            `model/network=vdvae_cifar10` and `vdvae_imagenet64`; `vdvae_64` has 12 groups for 64x64 on few cores.
        beta: Weight of the rate.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        network: HierarchicalNetwork = VDVAENetwork(),  # noqa: B008 - a frozen description
        beta: float | Schedule = ConstantScheduler(),  # noqa: B008
        **components: Unpack[HierarchyComponents],
    ) -> None:
        super().__init__(shape, network=network, beta=beta, **components)
