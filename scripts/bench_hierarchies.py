"""Hierarchies against the loop that a careful person writes for the same networks, and what checkpointing saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bench_measure import Row, Settings, Spread, interleaved, rows
from bench_pictures import NOTES, peak_bytes
from bench_training import SHAPE, bare_loop, binary_images, trainer
from torch import Tensor, nn

from vaebench.core import Batch
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.models.vdvae import VDVAE
from vaebench.networks.vdvae import VDVAENetwork

NETWORK = VDVAENetwork()  # 12 groups
DEEP = VDVAENetwork(
    channels=(32, 32), groups=(12, 12), encoder_blocks=(6, 6), strides=(2,), latent_channels=8
)  # so that the groups, and not the likelihood, fill the memory


class BareVDVAE(nn.Module):
    """The networks of `vdvae`, and its loss written out."""

    def __init__(self) -> None:
        super().__init__()
        self.above, self.below = NETWORK.bottom_up(SHAPE), NETWORK.top_down(SHAPE, SHAPE)

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO, nats per example."""
        state = self.below.start.expand(len(x), *self.below.start.shape)
        rate, groups = x.new_zeros(()), self.below.groups
        group: Any
        for group, told in zip(groups, self.above(x), strict=True):
            state = group.begin(state)
            p_mean, p_log_var, below = group.prior(state)
            mean, log_var = group.posterior(state, told, p_mean, p_log_var)
            z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
            squared = ((mean - p_mean).square() + log_var.exp()) * (-p_log_var).exp()
            rate = rate + 0.5 * (squared - 1 - log_var + p_log_var).sum()
            state = group(below, z)
        distortion = F.binary_cross_entropy_with_logits(self.below.output(state), x, reduction="sum")
        return (distortion + rate) / len(x)


def vdvae(settings: Settings) -> list[Row]:
    """`vdvae` of 12 groups on binary pictures 28x28, batch 100: as `unet_vae`, and memory by checkpointing."""
    data = binary_images(settings.size(500, 200), 100)
    bare = BareVDVAE()
    ours = VDVAE(SHAPE, likelihood=Bernoulli(), network=NETWORK)
    jobs = {
        "bare loop": bare_loop(bare, bare.parameters(), data, 1),
        "trainer, no run": trainer(ours, data, 1),
        "vaebench": trainer(ours, data, 1, with_run=True),
    }
    speed = rows(
        "vdvae",
        interleaved(jobs, settings.repeats),
        against="bare loop",
        unit="examples/s",
        value=lambda t: len(data.train) / t,
        notes=NOTES,
    )
    x = data.train.x[: settings.size(50, 10)]
    kept, anew = (peak_bytes(_gradient(x, is_checkpointed)) / 2**20 for is_checkpointed in (False, True))
    aim = "24 groups; aim: at most half"
    return [
        *speed,
        Row("vdvae", "peak memory of a gradient", Spread.of([kept]), "MiB"),
        Row(
            "vdvae",
            "with model.gradient_checkpointing",
            Spread.of([anew]),
            "MiB",
            Spread.of([anew / kept]),
            "peak memory of a gradient",
            aim,
        ),
    ]


def _gradient(x: Tensor, is_checkpointed: bool) -> Callable[[], None]:
    model = VDVAE(SHAPE, likelihood=Bernoulli(), network=DEEP, gradient_checkpointing=is_checkpointed)
    return lambda: model.loss(Batch(x), 0).total.backward()
