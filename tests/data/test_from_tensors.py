from __future__ import annotations

import pytest
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.digits import Digits
from vaebench.distributions.likelihoods import Binomial, DiscretizedLogistic
from vaebench.metrics.bounds import check_on_grid
from vaebench.models import VAE
from vaebench.networks import MLP
from vaebench.trainers import BaseTrainer


def test_examples_keep_what_belongs_to_them():
    x = torch.rand(50, 3)
    numbers = torch.arange(50)
    data = Dataset.from_tensors(
        x, y=numbers, context=numbers[:, None], factors=numbers[:, None], factor_names=["number"]
    )
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 5, 5)
    assert (data.num_classes, data.factor_names, data.factor_sizes) == (50, ("number",), (50,))
    for split in (data.train, data.validation, data.test):
        batch = split.batch(torch.arange(len(split)))
        assert torch.equal(x[batch.y], batch.x)
        assert torch.equal(batch.y[:, None], batch.factors)
        assert torch.equal(batch.y[:, None].float(), batch.context)
    assert torch.equal(Dataset.from_tensors(x).train.x, data.train.x)


def test_arrays_and_lists_are_taken_too():
    x, y = torch.rand(20, 3), torch.arange(20) % 2
    expected = Dataset.from_tensors(x, y=y).train.batch(torch.arange(16))
    for data in (Dataset.from_tensors(x.numpy(), y=y.numpy()), Dataset.from_tensors(x.tolist(), y=y.tolist())):
        batch = data.train.batch(torch.arange(16))
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.y, expected.y)


@pytest.mark.parametrize(
    ("x", "shape", "likelihood", "largest"),
    [
        (
            torch.arange(256, dtype=torch.uint8).repeat(20, 1).reshape(20, 16, 16),
            (1, 16, 16),
            "continuous_bernoulli",
            1,
        ),
        (torch.arange(256).repeat(20, 3).reshape(20, 3, 16, 16), (3, 16, 16), "discretized_logistic", 1),
        (torch.arange(64).repeat(20, 1).reshape(20, 1, 8, 8) % 2 == 0, (1, 8, 8), "bernoulli", 1),
        (torch.rand(20, 7).half(), (7,), "continuous_bernoulli", None),
        (torch.randn(20, 7, dtype=torch.float64), (7,), "gaussian", None),
    ],
)
def test_the_rule_is_that_of_files(x, shape, likelihood, largest):
    data = Dataset.from_tensors(x)
    assert data.shape == shape
    assert data.likelihood_name == likelihood
    assert type(data.likelihood).__name__.lower() == likelihood.replace("_", "")
    if largest is not None:
        assert data.train.x.max().item() == largest
    assert data.cautions == ()


def test_what_is_ambiguous_is_told():
    x = torch.randint(0, 256, (20, 8, 8)).float()
    assert "dataset.scale=255" in Dataset.from_tensors(x).cautions[0]
    data = Dataset.from_tensors(x, scale=255)
    assert data.cautions == ()
    assert data.train.x.max() <= 1
    assert Dataset.from_tensors(x, likelihood="gaussian").likelihood_name == "gaussian"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"x": "pictures"}, "x must be a tensor, or an array of numbers; got str"),
        ({"y": [[0], [1, 2]]}, "y must be a tensor, or an array of numbers; got list"),
        ({"x": torch.zeros(4)}, r"x must have shape \(N, D\)"),
        ({"x": torch.full((4, 2), torch.nan)}, "finite numbers in x, got nan"),
        ({"x": torch.zeros(4, 2, dtype=torch.complex64)}, "real numbers"),
        ({"y": torch.arange(3)}, r"y must have shape \(N,\) with N = 20.* got \(3,\)"),
        ({"y": torch.rand(20)}, "y must hold whole numbers from 0; got torch.float32"),
        ({"y": torch.arange(20) - 1}, "y must hold whole numbers from 0"),
        ({"factors": torch.arange(20)}, r"factors must have shape \(N, F\)"),
        ({"context": torch.zeros(3, 2)}, "context must have 20 rows"),
        ({"likelihood": "bernouli"}, "did you mean 'bernoulli'"),
        ({"validation_fraction": 0.95}, "lower dataset.validation_fraction"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Dataset.from_tensors(**{"x": torch.rand(20, 2), **arguments})


@pytest.mark.parametrize("levels", [2, 17, 256, 16384, 65536])
def test_exact_levels_in_float32_are_on_the_grid(levels):
    x = (torch.arange(levels) / (levels - 1)).float()[None]
    for likelihood in (DiscretizedLogistic(levels), Binomial(levels - 1)):
        check_on_grid(likelihood, x)
        with pytest.raises(ValueError, match="not on the grid"):
            check_on_grid(likelihood, x * (levels - 1.5) / (levels - 1))


def test_a_float64_model_trains_on_the_librarys_data():
    data = Digits(num_examples=40)
    model = VAE(data.shape, likelihood=data.likelihood, latent_dim=2, network=MLP(hidden_dims=(8,))).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    BaseTrainer(num_epochs=1, batch_size=20).train(model, data)
    assert all(value.dtype == torch.float64 for value in model.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
