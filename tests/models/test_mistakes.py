"""Mistakes in Python get a sentence, as those on the command line do."""

import numpy as np
import pytest
import torch

from vaebench.data.digits import Digits
from vaebench.models.vae import VAE
from vaebench.trainers import BaseTrainer

SHAPE = (1, 4, 5)


def make():
    return VAE(SHAPE, likelihood="bernoulli")


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda: VAE(64, likelihood="gaussian"), r"shape: .* for vectors write \(64,\)"),
        (lambda: VAE(decoder=torch.nn.Linear(3, 4)), r"decoder: Linear cannot take latents of shape \(1, 10\)"),
        (lambda: make().encode(np.zeros((2, *SHAPE))), "x as a tensor, got a ndarray"),
        (lambda: make().encode(torch.zeros(2, *SHAPE).byte()), "x of floats, got torch.uint8"),
        (lambda: BaseTrainer().train(torch.nn.Linear(2, 2), Digits()), "model: expected one of .* got a Linear"),
        (lambda: BaseTrainer().train(make(), torch.rand(2, 2)), r"got a Tensor; Dataset.from_tensors"),
    ],
)
def test_a_mistake_gets_a_sentence(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        mistake()
