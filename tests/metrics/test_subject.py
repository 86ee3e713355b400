from __future__ import annotations

import pytest
import torch

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result
from vaebench.metrics.elbo import ELBO
from vaebench.metrics.subject import Subject
from vaebench.models.vae import VAE
from vaebench.networks import MLP


def model(shape=(1, 2, 2)):
    torch.manual_seed(0)
    return VAE(shape, likelihood=Bernoulli(), latent_dim=2, network=MLP(hidden_dims=())).eval()


def split(n=7, **fields):
    return DataSplit((torch.rand(n, 1, 2, 2) < 0.5).float(), **fields)


class Needy(Metric):
    def __init__(self, *needs):
        self.needs = frozenset(needs)

    def measure(self, subject):
        return Result({"found": Estimate(1.0, None, 1, "")}, "")


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        ("labels", "no labels"),
        ("factors", "without their ground-truth factors"),
        ("manifold", "VAE has no manifold: it has no Riemannian metric"),
    ],
)
def test_what_is_missing_is_said(need, reason):
    with pytest.raises(NotApplicableError, match=reason):
        Needy(need)(model(), split())


def test_vectors_are_no_images():
    with pytest.raises(NotApplicableError, match="vectors"):
        Needy("images")(model((4,)), DataSplit(torch.zeros(3, 4)))
    Needy("images")(model(), split())


def test_what_is_there_is_found():
    data = split(y=torch.arange(7), factors=torch.zeros(7, 2))
    assert Needy("labels", "factors", "images", "samples", "rate")(model(), data).values["found"].value == 1


def test_samples_need_a_prior_unless_they_are_given():
    lacking = model()
    lacking.capabilities = frozenset({"likelihood", "posterior"})
    lacking.why_not = {"prior": "it was taken away"}
    with pytest.raises(NotApplicableError, match="VAE has no prior: it was taken away"):
        Needy("samples")(lacking, split())
    given = Subject(lacking, split(), draw=lambda n: torch.full((n, 1, 2, 2), 0.5))
    assert given.reason_against("samples") is None
    assert given.samples(3).shape == (3, 1, 2, 2)


def test_samples_are_decoded_draws_of_the_prior():
    subject = Subject(model(), split(), batch_size=400)
    torch.manual_seed(1)
    with torch.no_grad():
        found = subject.samples(1000)
    torch.manual_seed(1)
    expected = torch.cat([subject.model.sample(n) for n in (400, 400, 200)])
    assert torch.equal(found, expected)


def test_an_unknown_need_is_an_error_of_the_metric():
    with pytest.raises(KeyError, match="prier"):
        Needy("prier")(model(), split())


def test_codes_are_posterior_means_with_what_belongs_to_them():
    data = split(y=torch.arange(7), factors=torch.arange(14).reshape(7, 2))
    subject = Subject(model(), data, batch_size=3)
    with torch.no_grad():
        codes = subject.codes()
        expected = subject.model.posterior(data.x).mean
    torch.testing.assert_close(codes.z, expected.double())
    assert codes.y.tolist() == list(range(7))
    assert torch.equal(codes.factors, data.factors)


def test_other_examples_of_the_same_model():
    seen: list[int] = []
    subject = Subject(model(), split(4), batch_size=2, advance=seen.append)
    assert [len(batch) for batch in subject.on(split(5)).batches()] == [2, 2, 1]
    assert seen == []
    assert [len(batch) for batch in subject.batches()] == [2, 2]
    assert seen == [2, 2]


def test_per_example_values_are_kept_in_order_and_left_out_of_the_json():
    data = split(6)
    result = ELBO()(model(), data, batch_size=4)
    values = result.per_example()["distortion_nats"]
    assert values.shape == (6,)
    assert values.double().mean().item() == pytest.approx(result.values["distortion_nats"].value, rel=1e-6)
    assert "per_example" not in result.as_json()["values"]["distortion_nats"]


def test_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(40, dtype=torch.float64)
    left_out = [x[torch.arange(40) != i].mean().item() for i in range(40)]
    found = Estimate.jackknife(x.mean().item(), left_out, 40, "")
    assert found.standard_error == pytest.approx(x.std().item() / 40**0.5)


def test_a_float64_model_is_measured_in_float64():
    x = torch.rand(5, 4)
    batch = next(Subject(model((4,)).double(), DataSplit(x)).batches())
    assert isinstance(batch, Batch)
    assert batch.x.dtype == torch.float64
