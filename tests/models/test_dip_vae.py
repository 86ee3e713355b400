"""DIP-VAE: the penalties by hand, for means and for draws."""

import pytest
import torch

from vaebench.core import Batch
from vaebench.models.dip_vae import DIPVAE

SHAPE = (1, 4, 5)


def make(**arguments):
    torch.manual_seed(0)
    return DIPVAE(SHAPE, likelihood="bernoulli", latent_dim=3, **arguments)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_loss_by_hand(kind):
    x = torch.rand(6, *SHAPE).round()
    model = make(kind=kind, lambda_od=3.0, lambda_d=7.0)
    torch.manual_seed(1)
    loss = model.loss(Batch(x), 0)
    torch.manual_seed(1)
    q, _, _, distortion, rate = model.elbo_terms(x)
    C = torch.cov(q.mean.T, correction=0) + (torch.diag(q.variance.mean(0)) if kind == "II" else 0)
    off = sum(C[i, j] ** 2 for i in range(3) for j in range(3) if i != j)
    on = sum((C[i, i] - 1) ** 2 for i in range(3))
    torch.testing.assert_close(loss.total, (distortion + rate).mean() + 3 * off + 7 * on)
    torch.testing.assert_close(loss.terms["off_diagonal"], off)
    torch.testing.assert_close(loss.terms["on_diagonal"], on)


def test_the_covariance_of_draws_is_that_of_kind_two():
    mean, variance = torch.randn(500, 2) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.rand(500, 2)
    C = make(kind="II")._covariance(mean, variance)
    z = mean + variance.sqrt() * torch.randn(400, 500, 2)
    draws = torch.cov(z.reshape(-1, 2).T)
    assert ((draws - C).abs() < 0.02).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "III"}, "kind must be I or II; got 'III'"),
        ({"lambda_od": -1.0}, "lambda_od must be at least 0 and finite; got -1"),
        ({"lambda_d": -1.0}, "lambda_d must be at least 0 and finite; got -1"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**arguments)
