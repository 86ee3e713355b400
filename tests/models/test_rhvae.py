"""RHVAE on a linear-Gaussian decoder, where log p(x) is exact: a bound, whose weights average to p(x)."""

import math

import pytest
import torch

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.models import RHVAE, VAE
from vaebench.networks import MLP
from vaebench.objectives.riemannian_metric import RiemannianMetric, pack

D, X = 3, 6
SIGMA = 0.6


def linear_gaussian(seed=0, **options):
    """A model with p(x|z) = N(Wz + b, SIGMA^2 I), a metric of a few centroids, and an encoder that is off."""
    torch.manual_seed(seed)
    model = RHVAE((X,), likelihood=Gaussian(scale=SIGMA), latent_dim=D, network=MLP(hidden_dims=()), **options).double()
    model.centroids = torch.randn(4, D, dtype=torch.float64)
    factor = 0.7 * torch.randn(4, D, D, dtype=torch.float64).tril()
    model.matrices = pack(factor @ factor.mT)
    return model


def exact_log_prob(model, x):
    linear = model.decoder[-2]
    covariance = linear.weight @ linear.weight.mT + SIGMA**2 * torch.eye(X, dtype=x.dtype)
    return torch.distributions.MultivariateNormal(linear.bias, covariance).log_prob(x)


def log_mean_exp(log_w):
    """Estimate log E[w] and its standard error from draws along dimension 0."""
    n = len(log_w)
    top = log_w.max(0).values
    w = (log_w - top).exp()
    return top + w.mean(0).log(), w.std(0) / w.mean(0) / math.sqrt(n)


@pytest.mark.parametrize("beta_zero", [1.0, 0.3, 0.09])
@pytest.mark.parametrize(("regularization", "step_size"), [(0.01, 0.01), (0.5, 0.05)])
def test_bound_is_below_and_weights_average_to_the_exact_likelihood(beta_zero, regularization, step_size):
    model = linear_gaussian(beta_zero=beta_zero, regularization=regularization, step_size=step_size, temperature=1.5)
    with torch.no_grad():
        x = torch.randn(2, X, dtype=torch.float64)
        exact = exact_log_prob(model, x)
        n = 20_000
        log_w = model.log_weights(x.repeat_interleave(n, 0), 1)[0].reshape(2, n).T
        bound, error = log_w.mean(0), log_w.std(0) / math.sqrt(n)
        estimate, relative = log_mean_exp(log_w)
    assert (bound <= exact + 4.5 * error).all()
    assert (bound < exact - 0.05).all()  # the encoder is off, so the bound is not tight
    assert ((estimate - exact).abs() < 4.5 * relative).all(), (estimate, exact, relative)
    assert (relative < 0.1).all()


def test_untempered_weights_are_those_of_the_vae_up_to_the_integrators_energy_error():
    # With beta_zero = 1, log w = -H(z_K, rho_K) - log q(z_0) - log N(rho_0), and the dynamics keep H.
    def difference(step_size, num_leapfrog):
        options = {"beta_zero": 1.0, "temperature": 1.5, "regularization": 0.5}
        model = linear_gaussian(step_size=step_size, num_leapfrog=num_leapfrog, **options)
        plain = VAE((X,), likelihood=Gaussian(scale=SIGMA), latent_dim=D, network=MLP(hidden_dims=())).double()
        plain.load_state_dict(model.state_dict(), strict=False)
        x = torch.randn(50, X, dtype=torch.float64)
        torch.manual_seed(8)
        flowed = model.log_weights(x, 1)
        torch.manual_seed(8)
        direct = plain.log_weights(x, 1)
        torch.manual_seed(8)
        rate = model.distortion_and_rate(x)[0] - plain.distortion_and_rate(x)[0]
        return (flowed - direct).abs().mean().item(), rate.abs().mean().item()

    coarse, moved = difference(0.04, 10)
    fine, _ = difference(0.02, 20)
    assert moved > 0.5
    assert coarse < 0.02
    assert fine == pytest.approx(coarse / 4, rel=0.1)


def test_distortion_and_rate_add_up_to_the_bound():
    model = linear_gaussian(temperature=1.5)
    x = torch.randn(4, X, dtype=torch.float64)
    torch.manual_seed(5)
    distortion, rate = model.distortion_and_rate(x)
    torch.manual_seed(5)
    torch.testing.assert_close(-(distortion + rate), model.log_weights(x, 1)[0])
    assert (distortion > 0).all()


def test_training_loss_uses_the_metric_of_the_batch():
    model = linear_gaussian(temperature=1.5)
    x = torch.randn(5, X, dtype=torch.float64)
    torch.manual_seed(6)
    loss = model.loss(Batch(x), 0).total
    with torch.no_grad():
        model.centroids, model.matrices = model.posterior(x).mean, model._matrices(x)
    torch.manual_seed(6)
    torch.testing.assert_close(loss, -model.log_weights(x, 1).mean())


def test_gradient_of_the_loss_equals_a_finite_difference():
    model = linear_gaussian(temperature=1.5, step_size=0.1, beta_zero=0.3)
    x = torch.randn(5, X, dtype=torch.float64)

    def loss():
        torch.manual_seed(7)
        return model.loss(Batch(x), 0).total

    loss().backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        slope = (parameter.grad * direction).sum().item()
        with torch.no_grad():
            parameter += 1e-5 * direction
            above = loss().item()
            parameter -= 2e-5 * direction
            below = loss().item()
            parameter += 1e-5 * direction
        assert slope == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-7), name


def test_only_the_networks_run_in_half_precision():
    # The flow stays in float32: its equations are solved as well, and no more steps are refused.
    torch.manual_seed(0)
    model = RHVAE((1, 8, 8), likelihood=Bernoulli(), latent_dim=6, step_size=0.05)
    batch = Batch(torch.rand(40, 1, 8, 8).round())

    def losses(enabled):
        model.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert model._matrices(batch.x).dtype == torch.float32
            loss = model.loss(batch, 0)
        loss.total.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        return loss.total.item(), loss.terms["refused"].item()

    exact, refused = losses(False)
    rough, refused_rough = losses(True)
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.01)
    assert refused_rough == pytest.approx(refused, abs=0.05)


def test_matrices_are_symmetric_and_positive_definite():
    model = RHVAE((1, 4, 4), likelihood=Bernoulli(), latent_dim=4)
    x = torch.rand(6, 1, 4, 4)
    factor = model.metric_head(model.metric_encoder(x))
    assert torch.equal(factor, factor.tril())
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(model._matrices(x), pack(factor @ factor.mT))


class _Split:
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        return Batch(self.x[indices])


def test_after_an_epoch_the_centroids_are_those_of_the_whole_split_and_travel_in_the_state():
    model = RHVAE((1, 4, 4), likelihood=Bernoulli(), latent_dim=2)
    x = torch.rand(23, 1, 4, 4)
    model.end_epoch(_Split(x), batch_size=10)
    torch.testing.assert_close(model.centroids, model.posterior(x).mean)
    torch.testing.assert_close(model.matrices, model._matrices(x))
    other = RHVAE((1, 4, 4), likelihood=Bernoulli(), latent_dim=2)
    other.load_state_dict(model.state_dict())
    z = torch.randn(3, 2)
    assert torch.equal(other.metric.inverse(z), model.metric.inverse(z))
    assert isinstance(other.metric, RiemannianMetric)


def test_representatives_are_examples_and_cover_the_clusters():
    model = RHVAE((2,), likelihood=Gaussian(), latent_dim=2, max_centroids=3)
    with torch.no_grad():
        centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
        x = (centres[:, None] + torch.randn(3, 40, 2)).reshape(-1, 2)
        model.encoder = torch.nn.Identity()
        model.posterior_head.linear = torch.nn.Linear(2, 4)
        model.posterior_head.linear.weight.copy_(torch.eye(4)[:, :2])
        model.posterior_head.linear.bias.zero_()
        model.end_epoch(_Split(x), batch_size=50)
    assert model.centroids.shape == (3, 2)
    distances = torch.cdist(model.centroids, x, compute_mode="donot_use_mm_for_euclid_dist")
    assert (distances.min(-1).values < 1e-5).all()
    assert len(distances.argmin(-1).div(40, rounding_mode="floor").unique()) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_leapfrog", 0),
        ("step_size", 0.0),
        ("beta_zero", 0.0),
        ("beta_zero", 1.5),
        ("temperature", -1.0),
        ("regularization", 0.0),
        ("max_centroids", 0),
    ],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(ValueError, match=option):
        RHVAE((4,), likelihood=Gaussian(), **{option: value})


def test_beta_runs_from_beta_zero_to_one():
    model = RHVAE((4,), likelihood=Gaussian(), beta_zero=0.09, num_leapfrog=4)
    betas = [model._beta(k) for k in range(5)]
    assert betas[0] == pytest.approx(0.09)
    assert betas[-1] == pytest.approx(1.0)
    assert betas == sorted(betas)
    assert 1 / math.sqrt(betas[2]) == pytest.approx((1 - 1 / 0.3) * 0.25 + 1 / 0.3)


def test_the_default_bounds_the_centroids_and_tells_how_many_there_are(caplog):
    x = torch.randn(60, 2)
    train = DataSplit(x)
    small = RHVAE((2,), likelihood=Gaussian(), latent_dim=2, max_centroids=20)
    with caplog.at_level("INFO"):
        small.end_epoch(train, 30)
        first = list(caplog.messages)
        small.end_epoch(train, 30)
    assert 10 < len(small.centroids) <= 20
    kept = len(torch.cdist(small.posterior(x).mean, small.centroids).argmin(0).unique())
    assert first == [f"the metric keeps {kept} of 60 examples as centroids; model.max_centroids=null keeps all"]
    assert caplog.messages == first  # once
    assert RHVAE((2,), likelihood=Gaussian(), latent_dim=2).max_centroids == 500
    every = RHVAE((2,), likelihood=Gaussian(), latent_dim=2, max_centroids=None)
    every.end_epoch(train, 30)
    assert len(every.centroids) == 60
