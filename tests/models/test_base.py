"""What a user does with any model."""

import inspect
import math
from dataclasses import dataclass

import pytest
import torch
from torch.distributions import Independent, Laplace
from typing_extensions import Unpack

from vaebench.core import Batch
from vaebench.distributions.diagonal_gaussian import DiagonalGaussian
from vaebench.distributions.likelihoods import Bernoulli, ContinuousBernoulli, DiscretizedLogistic, Gaussian
from vaebench.hardware import collective
from vaebench.models.base import Backbone, Components, LatentVariableModel
from vaebench.models.vae import VAE
from vaebench.networks import MLP, Conv

SHAPE = (1, 4, 5)


@pytest.fixture
def model():
    return VAE(SHAPE, likelihood=Bernoulli(), latent_dim=3, network=MLP(hidden_dims=(16,)))


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


def _picture(model, z):
    """The decoder's pictures, without the methods under test."""
    return torch.sigmoid(model.decoder(z))


def test_encode_unpacks_as_mean_and_log_variance(model, x):
    mean, log_var = model.encode(x)
    raw_mean, raw = model.posterior_head.linear(model.encoder(x)).chunk(2, -1)
    torch.testing.assert_close(mean, raw_mean)
    torch.testing.assert_close(log_var, 10 * torch.tanh(raw / 10))


def test_decode_is_the_mean_picture_for_any_leading_dimensions(model):
    z = torch.randn(2, 7, 3)
    pictures = model.decode(z)
    assert pictures.shape == (2, 7, *SHAPE)
    torch.testing.assert_close(pictures[1, 4], _picture(model, z[1, 4:5])[0])


def test_likelihood_and_prior_are_distributions_over_examples_and_latents(model, x):
    z = torch.randn(4, 6, 3)
    log_prob = model.likelihood(z).log_prob(x)
    by_hand = -torch.nn.functional.binary_cross_entropy_with_logits(model.decoder(z[2]), x, reduction="none").sum(
        (1, 2, 3)
    )
    torch.testing.assert_close(log_prob[2], by_hand)
    standard_normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(model.prior().log_prob(z), standard_normal)


def test_reparameterize_is_mean_plus_sigma_eps(model):
    mean, log_var = torch.randn(5, 3), torch.randn(5, 3)
    torch.manual_seed(1)
    z = model.reparameterize(mean, log_var)
    torch.manual_seed(1)
    torch.testing.assert_close(z, mean + (log_var / 2).exp() * torch.randn(5, 3))


def test_calling_returns_the_names_of_the_interface_with_their_aliases(model, x):
    torch.manual_seed(1)
    outputs = model(x)
    assert outputs.keys() == {"reconstruction", "reconstructed", "mean", "log_var", "logvar", "z"}
    assert outputs["reconstructed"] is outputs["reconstruction"]
    assert outputs["logvar"] is outputs["log_var"]
    torch.manual_seed(1)
    torch.testing.assert_close(outputs["z"], model.reparameterize(*model.encode(x)))
    torch.testing.assert_close(outputs["reconstruction"], _picture(model, outputs["z"]))


@pytest.mark.parametrize("beta", [1.0, 0.0, 4.0])
def test_loss_fn_is_distortion_plus_beta_rate(model, x, beta):
    torch.manual_seed(1)
    losses = model.loss_fn(x, model(x), beta=beta)
    assert losses.keys() == {"reconstruction_loss", "recon_loss", "kl_loss", "total_loss", "loss"}
    torch.manual_seed(1)
    distortion, rate = model.distortion_and_rate(x)
    torch.testing.assert_close(losses["reconstruction_loss"], distortion.mean())
    torch.testing.assert_close(losses["recon_loss"], distortion.mean())
    torch.testing.assert_close(losses["kl_loss"], rate.mean())
    torch.testing.assert_close(losses["total_loss"], distortion.mean() + beta * rate.mean())
    assert losses["loss"] is losses["total_loss"]
    losses["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_loss_fn_computes_outputs_itself_and_equals_the_training_loss(model, x):
    torch.manual_seed(1)
    total = model.loss_fn(x)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(total, model.loss(Batch(x), 0).total)


def test_loss_fn_takes_a_reconstruction_loss(model, x):
    outputs = model(x)
    losses = model.loss_fn(
        x, outputs, reconstruction_loss_fn=lambda predictions, targets: (predictions - targets).abs().sum()
    )
    torch.testing.assert_close(losses["recon_loss"], (outputs["reconstruction"] - x).abs().sum())
    torch.testing.assert_close(losses["loss"], losses["recon_loss"] + losses["kl_loss"])


def test_loss_fn_of_one_unbatched_example(model, x):
    torch.manual_seed(1)
    one = model.loss_fn(x[0])["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(one, model.loss_fn(x[:1])["loss"])


def test_sample_decodes_prior_draws(model):
    torch.manual_seed(1)
    pictures = model.sample(5)
    torch.manual_seed(1)
    torch.testing.assert_close(pictures, _picture(model, torch.randn(5, 3)))
    torch.manual_seed(1)
    assert torch.equal(model.generate(5), pictures)
    assert not pictures.requires_grad
    assert model.sample().shape == (1, *SHAPE)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_scales_the_latents(model, temperature):
    torch.manual_seed(1)
    pictures = model.sample(5, temperature=temperature)
    torch.manual_seed(1)
    torch.testing.assert_close(pictures, _picture(model, temperature * torch.randn(5, 3)))


def test_reconstruct_through_the_mean_or_a_draw(model, x):
    mean, log_var = model.encode(x)
    torch.testing.assert_close(model.reconstruct(x, deterministic=True), _picture(model, mean))
    torch.manual_seed(1)
    drawn = model.reconstruct(x)
    torch.manual_seed(1)
    torch.testing.assert_close(drawn, _picture(model, mean + (log_var / 2).exp() * torch.randn(6, 3)))
    assert not drawn.requires_grad


def test_unbatched_inputs(model, x):
    assert torch.equal(model.encode(x[0]).mean, model.encode(x[:1]).mean)
    assert model.reconstruct(x[0]).shape == (1, *SHAPE)
    assert model(x[0])["z"].shape == (1, 3)


@dataclass(frozen=True)
class LaplacePrior:
    """A prior for which torch knows no KL divergence."""

    def build(self, latent_dim):
        class Module(torch.nn.Module):
            def forward(self):
                return Independent(Laplace(torch.zeros(latent_dim), torch.ones(latent_dim)), 1)

        return Module()


def test_without_a_closed_form_the_rate_is_that_of_the_draw_and_is_named_so(model, x):
    assert model.rate_estimator == "in closed form"
    other = VAE(SHAPE, likelihood="bernoulli", latent_dim=3, prior=LaplacePrior())
    assert other.rate_estimator == "one sample"
    torch.manual_seed(1)
    q, p, z, distortion, rate = other.elbo_terms(x)
    torch.testing.assert_close(rate, q.log_prob(z) - p.log_prob(z))
    torch.manual_seed(1)
    torch.testing.assert_close(other.distortion_and_rate(x), (distortion, rate))
    torch.manual_seed(1)
    torch.testing.assert_close(other.log_weights(x, 1)[0], -(distortion + rate))


def test_asking_for_the_estimator_changes_nothing(model):
    model.train()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert model.rate_estimator
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_the_joint_density_is_likelihood_times_prior(model, x):
    z = torch.randn(4, 6, 3)
    log_joint = model.log_joint(x, z)
    assert log_joint.shape == (4, 6)
    torch.testing.assert_close(log_joint, model.likelihood(z).log_prob(x) + model.prior().log_prob(z))


def test_a_posterior_indexes_as_it_unpacks(model, x):
    q = model.encode(x)
    mean, log_var = q
    assert q[0] is mean
    assert q[1] is log_var
    assert q[-1] is log_var
    with pytest.raises(IndexError):
        q[2]


def test_a_likelihood_may_be_named():
    for name, kind in {
        "bernoulli": Bernoulli,
        "gaussian": Gaussian,
        "continuous_bernoulli": ContinuousBernoulli,
    }.items():
        assert type(VAE(SHAPE, likelihood=name).likelihood_head) is kind
    with pytest.raises(ValueError, match="likelihood: unknown name 'bernouli'; did you mean 'bernoulli'"):
        VAE(SHAPE, likelihood="bernouli")
    with pytest.raises(ValueError, match="likelihood: a binomial needs its largest count"):
        VAE(SHAPE, likelihood="binomial")


def test_log_weights_average_to_the_evidence_bound(model, x):
    with torch.no_grad():
        log_w = model.log_weights(x, 4_000)
        distortion, rate = (t.reshape(4_000, 6) for t in model.distortion_and_rate(x.repeat(4_000, 1, 1, 1)))
    assert log_w.shape == (4_000, 6)
    elbo = -(distortion + rate)
    standard_error = ((log_w.var(0) + elbo.var(0)) / 4_000).sqrt()
    assert ((log_w.mean(0) - elbo.mean(0)).abs() < 4 * standard_error).all()


def test_validation_loss_is_the_negative_elbo_whatever_the_training_loss(x):
    class Odd(VAE):
        def loss(self, batch, step):
            raise AssertionError("not the training loss")

    model = Odd(SHAPE, likelihood=Bernoulli(), latent_dim=3)
    torch.manual_seed(1)
    loss = model.validation_loss(Batch(x), 5)
    torch.manual_seed(1)
    distortion, rate = model.distortion_and_rate(x)
    torch.testing.assert_close(loss.total, (distortion + rate).mean())
    assert loss.terms.keys() == {"distortion", "rate"}


def test_without_a_rate_the_validation_loss_is_the_training_loss(x):
    class Autoencoder(VAE):
        capabilities = frozenset({"posterior", "likelihood"})
        why_not = {"rate": "its posterior is a point"}  # noqa: RUF012

        def loss(self, batch, step):
            return super().loss(batch, step) if step < 0 else "its own"

    model = Autoencoder(SHAPE, likelihood=Bernoulli(), latent_dim=3)
    assert model.validation_loss(Batch(x), 5) == "its own"
    for call in (lambda: model.distortion_and_rate(x), lambda: model.log_weights(x, 2), lambda: model.loss_fn(x)):
        with pytest.raises(ValueError, match="model Autoencoder has no rate: its posterior is a point"):
            call()
    with pytest.raises(ValueError, match=r"model Autoencoder has no prior: it defines no p\(z\)"):
        model.sample()


def test_parts_hold_every_parameter_once(model):
    held = [p for modules in model.parts().values() for m in modules for p in m.parameters()]
    assert len({id(p) for p in held}) == len(held) == len(list(model.parameters()))


def test_a_single_loss_is_the_part_named_model(model, x):
    torch.manual_seed(1)
    losses = model.losses(Batch(x), 0)
    torch.manual_seed(1)
    assert losses.keys() == model.parts().keys() == {"model"}
    torch.testing.assert_close(losses["model"].total, model.loss(Batch(x), 0).total)


def test_every_parameter_gets_a_gradient(model, x):
    model.loss(Batch(x), 0).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_shard_computes_its_rows_of_the_global_loss(model, x):
    torch.manual_seed(1)
    whole, _ = model.distortion_and_rate(x)
    parts = []
    for start, stop in [(0, 2), (2, 6)]:
        torch.manual_seed(1)
        with collective.shard(start, stop, 6):
            parts.append(model.distortion_and_rate(x[start:stop])[0])
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("likelihood", [ContinuousBernoulli(), DiscretizedLogistic(17), Gaussian()])
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 4)])
def test_any_likelihood_on_pictures_that_are_not_square(likelihood, shape):
    model = VAE(shape, likelihood=likelihood, latent_dim=2, network=Conv((3,), 8))
    x = torch.rand(4, *shape).mul(16).round().div(16)
    distortion, rate = model.distortion_and_rate(x)
    assert distortion.shape == rate.shape == (4,)
    assert model.sample(2).shape == (2, *shape)
    torch.manual_seed(0)
    model.double()
    model.loss(Batch(x.double()), 0).total.backward()
    assert model.encode(x.double()).mean.dtype == torch.float64


def test_losses_are_float32_under_autocast(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distortion, rate = model.distortion_and_rate(x)
        log_w = model.log_weights(x, 2)
    assert {distortion.dtype, rate.dtype, log_w.dtype} == {torch.float32}


def test_the_default_model_is_the_documented_one():
    model = VAE((1, 8, 8), likelihood=Bernoulli())
    assert model.latent_dim == 10
    assert isinstance(model.encode(torch.zeros(1, 8, 8)), DiagonalGaussian)
    assert sum(p.numel() for p in model.parameters()) == (64 * 512 + 512) + (512 * 20 + 20) + (10 * 512 + 512) + (
        512 * 64 + 64
    )


def test_the_signature_spells_the_components_out():
    """`help(AAE)` shows what can be given, with the defaults that hold."""

    class Own(LatentVariableModel):
        def __init__(self, shape, *, weight=2.0, posterior=None, **components: Unpack[Components]):
            super().__init__(shape, **components)

    class Fixed(LatentVariableModel):
        def __init__(self, shape, **components: Unpack[Backbone]):
            super().__init__(shape, **components)

    base = inspect.signature(LatentVariableModel)
    assert inspect.signature(VAE) == base
    own = inspect.signature(Own).parameters
    assert list(own) == [
        "shape",
        "weight",
        "posterior",
        "likelihood",
        "latent_dim",
        "network",
        "encoder",
        "decoder",
        "prior",
    ]
    assert (own["posterior"].default, own["latent_dim"].default) == (None, 10)
    assert own["likelihood"].default is None
    assert list(inspect.signature(Fixed).parameters) == [
        "shape", "likelihood", "latent_dim", "network", "encoder", "decoder",
    ]  # fmt: skip


def test_a_model_with_several_losses_has_no_single_one():
    with pytest.raises(NotImplementedError, match="LatentVariableModel has several losses"):
        LatentVariableModel((4,), likelihood=Gaussian()).loss(Batch(torch.zeros(1, 4)), 0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda m, x: VAE(SHAPE, likelihood=Bernoulli(), latent_dim=0),
            "latent_dim must be a whole number of at least 1",
        ),
        (lambda m, x: m.sample(0), "num_samples must be a whole number of at least 1; got 0"),
        (lambda m, x: m.interpolate(x[0], x[1], steps=1), "steps must be a whole number of at least 2; got 1"),
        (lambda m, x: m.interpolate(x, x[0]), r"expected one example of shape \(1, 4, 5\), got a batch of 6"),
        (lambda m, x: m.latent_traversal(x[0], 3), r"dim must be in \[0, 3\), the latent dimensions; got 3"),
        (lambda m, x: m.latent_traversal(x[0], -1), r"dim must be in \[0, 3\), the latent dimensions; got -1"),
        (lambda m, x: m.latent_traversal(x[0], 0, steps=0), "steps must be a whole number of at least 1; got 0"),
        (lambda m, x: m.latent_traversal(x, 0), "expected one example"),
        (lambda m, x: m.encode(x[:, :, :3]), r"of shape \(1, 4, 5\) or \(B, 1, 4, 5\), got \(6, 1, 3, 5\)"),
        (lambda m, x: m.require("manifold"), "model VAE has no manifold: it has no Riemannian metric"),
    ],
)
def test_refusals(model, x, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(model, x)
