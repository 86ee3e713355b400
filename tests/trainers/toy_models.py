"""The smallest models that exercise the trainers: noise, dropout, buffers, several parts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import nn

from vaebench.core import Loss, Model
from vaebench.data.split import DataSplit
from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.trainers import BaseTrainer
from vaebench.trainers.callbacks.callback import Callback

DIM = 6


class Toy(Model):
    """A noisy linear autoencoder, with batch normalisation and dropout unless it is plain."""

    shape = (DIM,)

    def __init__(self, plain=False):
        super().__init__()
        self.plain = plain
        norm, dropout = (nn.Identity(), nn.Identity()) if plain else (nn.BatchNorm1d(4), nn.Dropout(0.1))
        self.encoder = nn.Sequential(nn.Linear(DIM, 4), norm, nn.Tanh())
        self.decoder = nn.Sequential(dropout, nn.Linear(4, DIM))
        self.register_buffer("centre", torch.zeros(DIM))

    def loss(self, batch, step):
        z = self.encoder(batch.x)
        z = z + 0.1 * collective.standard_normal(z.shape, like=z)
        error = (self.decoder(z) - batch.x).square().sum(1)
        rate = 0.01 * z.square().sum(1)
        return Loss.mean(error + rate, distortion=error, rate=rate)

    def end_epoch(self, train, batch_size):
        self.centre.copy_(train.batch(torch.arange(len(train))).x.mean(0) + torch.randn(DIM))


class ToyParts(Toy):
    """Two parts, one loss."""

    def parts(self):
        return {"encoder": [self.encoder], "decoder": [self.decoder]}


class ToyBatchCoupled(Toy):
    """Its loss couples all examples of a batch, over processes too."""

    couples_batch = True

    def loss(self, batch, step):
        plain = super().loss(batch, step)
        z_all = collective.gather(self.encoder(batch.x))
        spread = (z_all.T @ z_all / len(z_all) - torch.eye(4)).square().sum()
        return Loss(plain.total + spread, {**plain.terms, "spread": spread.detach()})


class ToyCoupled(ToyParts):
    """Two parts, each with a loss of its own on one forward pass."""

    trainer = "coupled"

    def losses(self, batch, step, part=None):
        z = self.encoder(batch.x)
        z = z + 0.1 * collective.standard_normal(z.shape, like=z)
        error = (self.decoder(z) - batch.x).square().sum(1)
        rate = z.square().sum(1)
        return {
            "encoder": Loss.mean(error + 0.1 * rate, rate=rate),
            "decoder": Loss.mean(error, distortion=error),
        }


class ToyAdversarial(Toy):
    """An autoencoder whose latents a critic with batch normalisation tells from noise."""

    trainer = "adversarial"

    def __init__(self, plain=False):
        super().__init__(plain)
        norm = nn.Identity() if plain else nn.BatchNorm1d(4)
        self.critic = nn.Sequential(nn.Linear(4, 4), norm, nn.Tanh(), nn.Linear(4, 1))

    def parts(self):
        return {"autoencoder": [self.encoder, self.decoder], "discriminator": [self.critic]}

    def losses(self, batch, step, part=None):
        z = self.encoder(batch.x)
        losses = {}
        if part in (None, "autoencoder"):
            error = (self.decoder(z) - batch.x).square().sum(1)
            fooled = nn.functional.softplus(-self.critic(z)[:, 0])
            losses["autoencoder"] = Loss.mean(error + fooled, distortion=error)
        if part in (None, "discriminator"):
            real = collective.standard_normal(z.shape, like=z)
            score = nn.functional.softplus(-self.critic(real)) + nn.functional.softplus(self.critic(z.detach()))
            losses["discriminator"] = Loss.mean(score[:, 0])
        return losses


class ToyCoupledAdversarial(ToyAdversarial):
    """Three parts, the critic last."""

    trainer = "coupled_adversarial"

    def parts(self):
        return {"encoder": [self.encoder], "decoder": [self.decoder], "discriminator": [self.critic]}

    def losses(self, batch, step, part=None):
        losses = super().losses(batch, step, part)
        if "autoencoder" in losses:
            losses["encoder"] = losses["decoder"] = losses.pop("autoencoder")
        return losses


def toy_data(num_train=50, num_validation=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_train + num_validation, DIM, generator=generator)
    return SimpleNamespace(
        name="toy", shape=(DIM,), train=DataSplit(x[:num_train]), validation=DataSplit(x[num_train:])
    )


CPU = Hardware(device="cpu", threads=1)


def train(model=None, data=None, callbacks=(), run=None, hardware=CPU, **options):
    options = {"num_epochs": 2, "batch_size": 10, "learning_rate": 0.01, **options}
    model, rows = model if model is not None else toy(), History()
    training = BaseTrainer(**options).train(
        model, data or toy_data(), callbacks=[*callbacks, rows], run=run, hardware=hardware
    )
    training.history = rows.rows
    return training


def toy(kind=Toy, **options):
    torch.manual_seed(0)
    return kind(**options)


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def average(path, decay):
    """The moving average over weights, those before the first step in front."""
    found = path[0].clone()
    for t, after in enumerate(path[1:], start=1):
        d = min(decay, (1 + t) / (10 + t))
        found = d * found + (1 - d) * after
    return found


class History(Callback):
    """Keeps every row that is logged."""

    on_every_rank = True

    def __init__(self):
        self.rows = []

    def on_log(self, training, row):
        self.rows.append(row)


class Spy(Callback):
    """Notes every step's gradient-free facts."""

    def __init__(self):
        self.weights, self.norms, self.batches = [], [], []

    def on_train_start(self, training):
        self.weights.append(weights(training.model))

    def on_step_end(self, training):
        self.weights.append(weights(training.model))
        self.norms.append([part.gradient_norm for part in training.parts.values()])


class Exploding(Toy):
    """Its rate is infinite at some steps."""

    def __init__(self, steps=(3,)):
        super().__init__(plain=True)
        self.steps = steps

    def loss(self, batch, step):
        plain = super().loss(batch, step)
        rate = plain.terms["rate"] * (math.inf if step + 1 in self.steps else 1.0)
        return Loss(plain.total + 0 * plain.total * rate, {**plain.terms, "rate": rate})

    def validation_loss(self, batch, step):
        return Toy.loss(self, batch, step)
