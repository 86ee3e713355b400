"""What a run shows of an energy: the density that it has learned, and draws from it."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.runs.images import to_image
from vaebench.trainers.callbacks.figures import density
from vaebench.trainers.training import Training

NUM_POINTS = 500  # of the data and of the chains, each
NUM_WARMUP = 60  # transitions, for chains started for the picture


def energy_images(training: Training, num_images: int) -> dict[str, Image.Image]:
    """Draw density.png of points in the plane, samples.png of pictures; nothing of other vectors.

    The draws are the persistent chains where the trainer has them: what the energy is trained against. Otherwise they
    are the ends of short tuned chains, which have not forgotten the Gaussian that they began in where modes are far
    apart; `vaebench sample` says how far chains can be trusted.

    Args:
        training: Of a model with an energy.
        num_images: Pictures in samples.png.
    """
    model: Any = training.model
    is_planar, is_image = model.shape == (2,), len(model.shape) == 3
    if not (is_planar or is_image):
        return {}
    with training.evaluating(), fixed_rng(training.seed, Stream.IMAGES):
        draws = model.decode(_draws(training, NUM_POINTS if is_planar else num_images))
        if is_image:
            return {"samples": to_image(draws)}
        split = training.validation if len(training.validation) else training.train
        data = split.batch(torch.arange(min(NUM_POINTS, len(split)))).x
        return {"density": density(lambda x: model.energy(x.to(draws)), data.cpu(), draws.cpu())}


def _draws(training: Training, num: int) -> Tensor:
    model: Any = training.model
    if "chains" in training.carried:
        return training.carried["chains"][:num]
    start = model.energy_function.start(num)
    chains = run_chains(HMCKernel(), model.energy_function, start, num_draws=1, num_warmup=NUM_WARMUP, keep=False)
    return chains.state.position
