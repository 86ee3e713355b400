"""U-Nets and the mixture of discretized logistics against what a careful person writes for the same networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from bench_measure import Row, Settings, Spread, interleaved, rows
from bench_training import LATENT_DIM, SHAPE, bare_loop, binary_images, negative_elbo, trainer
from torch import Tensor, nn

from vaebench.distributions.likelihoods import Bernoulli, LogisticMixture
from vaebench.models.unet_vae import UNetVAE
from vaebench.networks import UNet

NETWORK = UNet(base_channels=8)
NUM_MIXTURES, NUM_LEVELS = 10, 256
NOTES = {
    "trainer, no run": "aim: at least 0.95 of the bare loop",
    "vaebench": "and all default callbacks, whose pictures at the end weigh in so short a run",
}


class BareUNet(nn.Module):
    """The networks of `unet_vae`, and its loss written out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = NETWORK.encoder(SHAPE)
        self.head = nn.Linear(self.encoder.num_features, 2 * LATENT_DIM)
        self.decoder = NETWORK.decoder(LATENT_DIM, SHAPE)

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO, nats per example."""
        return negative_elbo(self.encoder, self.head, self.decoder, x)


def unet_vae(settings: Settings) -> list[Row]:
    """`unet_vae` on binary pictures 28x28, batch 100: its networks in a bare loop, the trainer, and with pictures."""
    data = binary_images(settings.size(2_500, 200), settings.size(200, 100))
    bare = BareUNet()
    ours = UNetVAE(SHAPE, likelihood=Bernoulli(), latent_dim=LATENT_DIM, network=NETWORK)
    jobs = {
        "bare loop": bare_loop(bare, bare.parameters(), data, 1),
        "trainer, no run": trainer(ours, data, 1),
        "vaebench": trainer(ours, data, 1, with_run=True),
    }
    return rows(
        "unet_vae",
        interleaved(jobs, settings.repeats),
        against="bare loop",
        unit="examples/s",
        value=lambda t: len(data.train) / t,
        notes=NOTES,
    )


def written_out(params: Tensor, x: Tensor) -> Tensor:
    """PixelCNN++'s log-likelihood of colour pictures as its authors write it, by autograd; nats, shape (B,)."""
    grouped = params.unflatten(1, (10, NUM_MIXTURES))
    logits, means, log_scales, coeffs = grouped[:, 0], grouped[:, 1:4], grouped[:, 4:7].clamp_min(-7), grouped[:, 7:]
    u, c = (2 * x - 1)[:, :, None], coeffs.tanh()
    green = means[:, 1] + c[:, 0] * u[:, 0]
    blue = means[:, 2] + c[:, 1] * u[:, 0] + c[:, 2] * u[:, 1]
    centred, inverse_scale = u - torch.stack([means[:, 0], green, blue], 1), torch.exp(-log_scales)
    plus, minus = inverse_scale * (centred + 1 / 255), inverse_scale * (centred - 1 / 255)
    mass = torch.sigmoid(plus) - torch.sigmoid(minus)
    middle = inverse_scale * centred
    density = middle - log_scales - 2 * F.softplus(middle) - torch.tensor(127.5).log()
    inner = torch.where(mass > 1e-5, mass.clamp_min(1e-12).log(), density)
    log_mass = torch.where(u < -0.999, plus - F.softplus(plus), torch.where(u > 0.999, -F.softplus(minus), inner))
    return (log_mass.sum(1) + F.log_softmax(logits, 1)).logsumexp(1).sum((1, 2))


def likelihood(settings: Settings) -> list[Row]:
    """Forward and backward pass of the mixture for colour pictures 64x64 with 10 components: speed and memory."""
    batch = settings.size(4, 1)
    x = torch.randint(0, NUM_LEVELS, (batch, 3, 64, 64)) / (NUM_LEVELS - 1)
    ours = LogisticMixture(NUM_LEVELS, NUM_MIXTURES)

    def job(log_prob: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            params = torch.zeros(batch, 100, 64, 64, requires_grad=True)
            log_prob(params).sum().backward()

        return run

    jobs = {
        "written out": job(lambda params: written_out(params, x)),
        "logistic_mixture": job(lambda params: ours(params, 3).log_prob(x)),
    }
    speed = rows(
        "likelihood",
        interleaved(jobs, settings.repeats),
        against="written out",
        unit="pictures/s",
        value=lambda t: batch / t,
        notes={"logistic_mixture": "aim: at least 0.95; its mass is exact where the other's is an approximation"},
    )
    tensor = batch * 3 * NUM_MIXTURES * 64 * 64 * 4
    peaks = {name: peak_bytes(run) / tensor for name, run in jobs.items()}
    memory = [
        Row("likelihood", f"{name}, peak memory", Spread.of([peak]), "tensors (B, 3, 10, 64, 64)")
        for name, peak in peaks.items()
    ]
    return speed + memory


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors alive at one time that `work` allocated, by the profiler's record."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    found = profile.profiler
    assert found is not None
    events = [e for e in found.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))
