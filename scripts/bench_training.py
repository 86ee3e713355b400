"""Training against the loop that a careful person writes for the same network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from bench_measure import Row, Settings, Stopwatch, interleaved, rows
from torch import Tensor, nn

from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.hardware.device import Hardware
from vaebench.models.base import LatentVariableModel
from vaebench.models.rhvae import RHVAE
from vaebench.models.vae import VAE
from vaebench.networks import MLP, Conv
from vaebench.runs.run import Run
from vaebench.trainers.base import BaseTrainer
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training

SHAPE, LATENT_DIM, BATCH_SIZE, LEARNING_RATE = (1, 28, 28), 10, 100, 1e-3
NETWORKS = {"mlp": MLP(hidden_dims=(512,)), "conv": Conv(channels=(16, 32), hidden_dim=128)}


@dataclass(frozen=True)
class Data:
    """The splits that a trainer reads."""

    train: DataSplit
    validation: DataSplit


def binary_images(num_train: int, num_validation: int) -> Data:
    """Synthetic binary images in memory."""
    x = (torch.rand(num_train + num_validation, *SHAPE) < 0.3).float()
    return Data(DataSplit(x[:num_train]), DataSplit(x[num_train:]))


def negative_elbo(encoder: nn.Module, head: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """The loss of a VAE of binary pictures as a careful person writes it, nats per example."""
    mean, log_var = head(encoder(x)).chunk(2, -1)
    z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    distortion = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
    rate = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
    return (distortion + rate) / len(x)


class BareVAE(nn.Module):
    """The same layers as `VAE` with `NETWORKS`, written out."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        relu = nn.ReLU
        if kind == "mlp":
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), relu())
            self.head = nn.Linear(512, 2 * LATENT_DIM)
            self.decoder = nn.Sequential(
                nn.Linear(LATENT_DIM, 512), relu(), nn.Linear(512, 784), nn.Unflatten(-1, SHAPE)
            )
        else:
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 16, 3, 2, 1), relu(), nn.Conv2d(16, 32, 3, 2, 1), relu(), nn.Flatten(),
                nn.Linear(32 * 49, 128), relu(),
            )  # fmt: skip
            self.head = nn.Linear(128, 2 * LATENT_DIM)
            self.decoder = nn.Sequential(
                nn.Linear(LATENT_DIM, 128), relu(), nn.Linear(128, 32 * 49), nn.Unflatten(-1, (32, 7, 7)),
                relu(), nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), relu(), nn.ConvTranspose2d(16, 1, 3, 2, 1, 1),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO, nats per example."""
        return negative_elbo(self.encoder, self.head, self.decoder, x)


class BareFlow(BareVAE):
    """The networks of `rhvae` at work as in its flow, but on a flat space: no metric, no momentum.

    A latent point takes 3 steps along the gradient of log p(x, z), through which the loss is differentiated, and the
    trunk and head of the metric are trained on something trivial.
    """

    def __init__(self) -> None:
        super().__init__("mlp")
        self.metric = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, LATENT_DIM * (LATENT_DIM + 1) // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Something of the size of a negative ELBO, nats per example."""
        mean, log_var = self.head(self.encoder(x)).chunk(2, -1)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        entropy = 0.5 * log_var.sum()
        for _ in range(4):  # gradients at z_0 to z_3
            logits = self.decoder(z)
            score = x - torch.sigmoid(logits)
            (force,) = torch.autograd.grad(logits, z, score, create_graph=True)
            z = z + 1e-3 * (force - z)
        log_joint = -F.binary_cross_entropy_with_logits(logits, x, reduction="sum") - 0.5 * z.square().sum()
        return (self.metric(x).square().sum() - log_joint - entropy) / len(x)


def bare_loop(
    loss: Callable[[Tensor], Tensor],
    parameters: Iterator[nn.Parameter],
    data: Data,
    num_epochs: int,
    validates: bool = True,
) -> Callable[[], float]:
    """Fused Adam, one index per batch, the mean loss logged and the validation loss computed once an epoch."""
    train, validation = data.train.x, data.validation.x
    optimiser = torch.optim.Adam(list(parameters), lr=LEARNING_RATE, fused=True)

    def run() -> float:
        for _ in range(num_epochs):
            total = torch.zeros(())
            for rows_ in torch.randperm(len(train)).split(BATCH_SIZE):
                x = train.index_select(0, rows_)
                value = loss(x)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                optimiser.step()
                total += value.detach() * len(x)
            if validates:
                with torch.no_grad():
                    sum(loss(x) * len(x) for x in validation.split(BATCH_SIZE))
        return total.item() / len(train)

    return run


def trainer(
    model: LatentVariableModel,
    data: Data,
    num_epochs: int,
    with_run: bool = False,
    validate_every: int | None = 1,
    compile: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Callable[[], object]:
    """`BaseTrainer` for as many epochs: with a run directory it has all default callbacks."""
    options = BaseTrainer(
        num_epochs=num_epochs,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        validate_every=validate_every,
        keep_best=None if validate_every is None else "loss",
    )
    hardware = Hardware(device="cpu", threads=torch.get_num_threads(), compile=compile)

    def run() -> None:
        with new_run() if with_run else nullcontext() as directory:
            options.train(model, data, run=directory, hardware=hardware, callbacks=callbacks)

    return run


@contextmanager
def new_run() -> Iterator[Run]:
    """An empty run directory that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        yield Run(Path(folder) / "run")


def new_vae(kind: str) -> VAE:
    """The model that is compared with `BareVAE(kind)`."""
    return VAE(SHAPE, likelihood=Bernoulli(), latent_dim=LATENT_DIM, network=NETWORKS[kind])


def new_rhvae(kind: str) -> RHVAE:
    """Likewise, with the default metric network."""
    return RHVAE(SHAPE, likelihood=Bernoulli(), latent_dim=LATENT_DIM, network=NETWORKS[kind])


def training_jobs(kind: str, data: Data, num_epochs: int) -> dict[str, Callable[[], object]]:
    """The bare loop, the same loop around our model, and the trainer."""
    from vaebench.core import Batch

    bare, ours = BareVAE(kind), new_vae(kind)
    return {
        "bare loop": bare_loop(bare, bare.parameters(), data, num_epochs),
        "bare loop, our model": bare_loop(lambda x: ours.loss(Batch(x), 0).total, ours.parameters(), data, num_epochs),
        "trainer, no run": trainer(new_vae(kind), data, num_epochs),
        "vaebench": trainer(new_vae(kind), data, num_epochs, with_run=True),
    }


def vae(settings: Settings) -> list[Row]:
    """`vae` 784-512-10 at batch 100: the bare loop, and the trainer with and without its default callbacks."""
    return _eager("vae", "mlp", settings, num_examples=10_000)


def conv(settings: Settings) -> list[Row]:
    """A small convolutional `vae` at batch 100, likewise."""
    return _eager("conv", "conv", settings, num_examples=10_000)


def _eager(name: str, kind: str, settings: Settings, num_examples: int) -> list[Row]:
    data = binary_images(settings.size(num_examples, 200), settings.size(1_000, 100))
    num_epochs = settings.size(6, 1)  # as many steps as an epoch of MNIST
    times = interleaved(training_jobs(kind, data, num_epochs), settings.repeats)
    return rows(
        name,
        times,
        against="bare loop",
        unit="examples/s",
        value=lambda t: num_epochs * len(data.train) / t,
        notes={"vaebench": "all default callbacks; aim: at least 0.9 of the bare loop"},
    )


def rhvae(settings: Settings) -> list[Row]:
    """`rhvae` 784-512-10 with 3 leapfrog steps against `vae`, both by the trainer, the metric's refresh included."""
    data = binary_images(settings.size(10_000, 200), settings.size(1_000, 100))
    num_epochs = settings.size(3, 1)
    flat = BareFlow()
    jobs = {
        "vae": trainer(new_vae("mlp"), data, num_epochs, with_run=True, validate_every=None),
        "rhvae": trainer(new_rhvae("mlp"), data, num_epochs, with_run=True, validate_every=None),
        f"rhvae, validated on {len(data.validation):,}": trainer(new_rhvae("mlp"), data, num_epochs, with_run=True),
        "flat flow, bare loop": bare_loop(flat, flat.parameters(), data, num_epochs, validates=False),
    }
    return rows(
        "rhvae",
        interleaved(jobs, max(1, settings.repeats // 2)),
        against="vae",
        unit="examples/s",
        value=lambda t: num_epochs * len(data.train) / t,
        notes={
            "vae": "quoted: 13,000 examples/s by the best-known implementation, elsewhere on one core",
            "rhvae": "quoted: 1,000 examples/s, 1/13 of its vae; aim: at least 1/4",
            "flat flow, bare loop": "what the networks of rhvae cost by themselves: what no metric can undercut",
        },
    )


class LaterEpochs(Callback):
    """Times what comes after the first epoch, in which compilation happens."""

    def on_epoch_start(self, training: Training) -> None:
        if training.epoch == 1:
            self.watch = Stopwatch()

    def on_epoch_end(self, training: Training) -> None:
        if training.epoch > 1:
            self.watch.stop()


def compiled(settings: Settings) -> list[Row]:
    """Both networks under torch.compile, without the time of compilation."""
    result = []
    for kind in ("mlp", "conv"):
        data = binary_images(settings.size(5_000, 200), settings.size(1_000, 100))
        bare, num_epochs = BareVAE(kind), settings.size(3, 1)
        num_examples = num_epochs * len(data.train)
        jobs = {
            f"{kind}: bare loop": bare_loop(torch.compile(bare), bare.parameters(), data, num_epochs),
            f"{kind}: vaebench": _later_epochs(new_vae(kind), data, 1 + num_epochs),
        }
        result += rows(
            "compiled",
            interleaved(jobs, settings.repeats),
            against=f"{kind}: bare loop",
            unit="examples/s",
            value=lambda t, n=num_examples: n / t,
            notes={f"{kind}: vaebench": "all default callbacks; aim: at least 0.9 of the bare loop"},
        )
    return result


def _later_epochs(model: VAE, data: Data, num_epochs: int) -> Callable[[], Stopwatch]:
    def run() -> Stopwatch:
        timer = LaterEpochs()
        trainer(model, data, num_epochs, with_run=True, compile=True, callbacks=[timer])()
        return timer.watch

    return run
