"""What holds for every hierarchy: its rates add up, its log-weights average to the exact evidence."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.energies.latent.aggregate_posterior import AggregatePosteriorTarget
from vaebench.hardware.device import Hardware
from vaebench.metrics.elbo import ELBO
from vaebench.models.ladder_vae import LadderVAE
from vaebench.models.nvae import NVAE
from vaebench.models.vae import VAE
from vaebench.models.vdvae import VDVAE
from vaebench.networks.batch_norm import BatchNorm
from vaebench.networks.hierarchy import TopDown
from vaebench.networks.ladder import Ladder, precision_weighted
from vaebench.networks.nvae import NVAENetwork
from vaebench.networks.vdvae import VDVAENetwork
from vaebench.runs.run import Run
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.latents import encode
from vaebench.samplers.normal import NormalSampler
from vaebench.schedules import LinearScheduler
from vaebench.trainers import BaseTrainer

SIGMA = 1.0


def ladder(shape=(1, 4, 3), hidden=(9, 7, 5), latent=(4, 3, 2), **network):
    torch.manual_seed(0)
    return LadderVAE(shape, likelihood="bernoulli", network=Ladder(hidden, latent, **network), beta=1.0)


def pictures(n=6, shape=(1, 4, 3)):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)).round()


def very_deep(shape=(1, 4, 3), channels=(8, 8), **network):
    torch.manual_seed(0)
    small = {"channels": channels, "groups": (2, 1), "encoder_blocks": (1, 1), "strides": (2,), "latent_channels": 2}
    return moved(VDVAE(shape, likelihood="bernoulli", network=VDVAENetwork(**(small | network))))


def moved(model):
    """Away from the start, where some weights are zero and the rate is small."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def nouveau(shape=(1, 4, 3), **arguments):
    torch.manual_seed(0)
    network = NVAENetwork(channels=(4, 8), groups=(2, 1), strides=(2,), latent_channels=2, expansion=2)
    return moved(NVAE(shape, likelihood="bernoulli", network=network, beta=1.0, **arguments))


MODELS = {"ladder_vae": ladder, "vdvae": very_deep, "nvae": nouveau}


@pytest.fixture(params=MODELS, ids=str)
def model(request):
    return MODELS[request.param]().eval()


def noise_of(model, x, seed=3):
    """The posterior's draw, its groups' posteriors, and the pass."""
    torch.manual_seed(seed)
    q = model.posterior(x)
    return q, q.draw()


def test_the_rates_of_the_groups_sum_to_the_rate(model):
    x = pictures()
    torch.manual_seed(3)
    terms, rates = model.group_terms(x)
    torch.testing.assert_close(rates.sum(-1), terms.rate)
    assert rates.shape == (6, len(model.group_sizes))
    torch.testing.assert_close(model.rate(terms.q, terms.p, terms.z)[0], terms.rate, rtol=1e-4, atol=1e-5)
    loss = model.validation_loss(Batch(x), 0)
    logged = [value for name, value in loss.terms.items() if name.startswith("rate_group_")]
    torch.testing.assert_close(sum(logged), loss.terms["rate"])
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + loss.terms["rate"])


def test_the_rate_is_the_mean_of_the_log_ratio(model):
    """An independent evaluation: log q(z|x) - log p(z) at many draws, against the sum of the closed forms."""
    x = pictures(1).expand(4000, *model.shape)
    with torch.no_grad():
        torch.manual_seed(0)
        q, descent = noise_of(model, x)
        ratio = q.log_prob(descent.z) - model.prior().log_prob(descent.z)
        closed = model.rate(q, model.prior(), descent.z)[0]
    difference = ratio - closed
    assert abs(difference.mean()) < 4.5 * difference.std() / len(x) ** 0.5
    assert closed.mean() > 10 * difference.std() / len(x) ** 0.5


def test_a_draws_density_is_that_of_its_noise(model):
    """log q(z|x) of a draw, from the moments that it was drawn with."""
    q, descent = noise_of(model, pictures())
    eps = (descent.z - descent.mean) / (0.5 * descent.log_var).exp()
    expected = -0.5 * (eps.square() + math.log(2 * math.pi) + descent.log_var).sum(-1)
    torch.testing.assert_close(q.log_prob(descent.z), expected, rtol=1e-4, atol=1e-3)


def test_log_weights_are_those_of_the_unstandardised_values(model):
    """Densities of the values themselves, group by group, whose maps' derivatives must cancel."""
    x = pictures()
    torch.manual_seed(4)
    log_w = model.log_weights(x, 2)
    torch.manual_seed(4)
    z = model.posterior(x).rsample((2,))
    log_p_minus_log_q = torch.stack([_by_hand(model, x, row) for row in z])
    torch.testing.assert_close(log_w, model.likelihood(z).log_prob(x) + log_p_minus_log_q, rtol=1e-4, atol=1e-3)


def _by_hand(model, x, z):
    evidence, state, found = model.encoder(x), model.decoder.start.expand(len(x), *model.decoder.start.shape), 0.0
    for group, part, told in zip(model.decoder.groups, z.split(model.group_sizes, -1), evidence, strict=True):
        state = group.begin(state)
        p_mean, p_log_var, below = group.prior(state)
        q_mean, q_log_var = group.posterior(state, told, p_mean, p_log_var)
        value = p_mean + (0.5 * p_log_var).exp() * part.unflatten(1, group.shape)
        p, q = (torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in ((p_mean, p_log_var), (q_mean, q_log_var)))
        found = found + (p.log_prob(value) - q.log_prob(value)).flatten(1).sum(-1)
        state = group(below, value)
    return found


def test_a_picture_depends_on_every_group(model):
    torch.manual_seed(5)
    z = model.draw_from_prior(8)
    before = model.decode(z)
    for number, _ in enumerate(model.group_sizes):
        changed = z.clone()
        model.groups(changed)[number].add_(1.0)  # a view
        assert (model.decode(changed) - before).abs().amax() > 1e-6, f"group {number}"


def test_every_parameter_gets_a_gradient_that_is_not_zero(model):
    model.train()
    model.loss(Batch(pictures(20)), 0).total.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_temperatures_scale_each_group(model):
    sizes = model.group_sizes
    temperatures = [0.0] + [1.0] * (len(sizes) - 1)
    torch.manual_seed(6)
    z = NormalSampler().setup(model).sample(5).z
    torch.manual_seed(6)
    cooled = NormalSampler(temperatures).setup(model).sample(5).z
    assert torch.equal(cooled[:, : sizes[0]], torch.zeros(5, sizes[0]))
    assert torch.equal(cooled[:, sizes[0] :], z[:, sizes[0] :])
    torch.manual_seed(6)
    torch.testing.assert_close(model.sample(5, temperature=temperatures), model.decode(cooled))
    with pytest.raises(ValueError, match=f"one for each of {len(sizes)} groups"):
        model.sample(5, temperature=[1.0] * (len(sizes) + 1))
    with pytest.raises(ValueError, match=r"temperature\[1\] must be at least 0"):
        NormalSampler([1.0, -1.0])


def test_evaluation_names_the_rate_of_each_group(model):
    found = ELBO(2)(model, DataSplit(pictures())).values
    groups = [value.value for name, value in found.items() if name.startswith("rate_group_")]
    assert len(groups) == len(model.group_sizes)
    assert sum(groups) == pytest.approx(found["rate_nats"].value)


def test_checkpointing_changes_no_number(model):
    """Nor do running means move twice."""
    found = []
    for is_checkpointed in (False, True):
        model.train()
        state = {key: value.clone() for key, value in model.state_dict().items()}
        model.encoder.is_checkpointed = model.decoder.is_checkpointed = is_checkpointed
        torch.manual_seed(7)
        loss = model.loss(Batch(pictures(20)), 0).total
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        found.append((loss, gradients, list(model.state_dict().values())))
        model.load_state_dict(state)
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[0][2], found[1][2], strict=True))


def test_a_run_that_stopped_ends_with_the_weights_of_one_that_did_not(tmp_path):
    """Running means, vectors of the power iteration and warm-up included."""
    data = SimpleNamespace(train=DataSplit(pictures(20)), validation=DataSplit(pictures(4)))

    def train(name, *epochs):
        for num_epochs in epochs:
            model = nouveau(balances_rates=True)
            model.beta = LinearScheduler(n_steps=3)
            trainer = BaseTrainer(num_epochs=num_epochs, batch_size=7, learning_rate=1e-2)
            hardware = Hardware(device="cpu", threads=1)
            trainer.train(model, data, run=Run(tmp_path / name), hardware=hardware, seed=3)
        return model.state_dict()

    whole, stopped = train("whole", 3), train("stopped", 1, 3)
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)


def test_checkpointing_keeps_less_than_half():
    kept = {}
    x = pictures(20, (1, 12, 12))
    for is_checkpointed in (False, True):
        network = VDVAENetwork((8, 8), (6, 6), (4, 4), (2,), latent_channels=2)
        model = VDVAE((1, 12, 12), likelihood="bernoulli", network=network, gradient_checkpointing=is_checkpointed)
        found: dict[int, int] = {}

        def note(tensor, found=found):
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model.loss(Batch(x), 0).total
        kept[is_checkpointed] = sum(found.values())
        loss.backward()
    assert kept[True] < 0.5 * kept[False]


def test_samplers_refuse_latents_that_would_not_fit_into_memory():
    class Wide(LadderVAE):
        latent_shape = (60_000,)

    model = Wide((4,), likelihood="gaussian", network=Ladder((3,), (2,)))
    with pytest.raises(ValueError, match=r"covariance of 60000 x 60000 for each of 10 components, 268\.2 GiB"):
        GaussianMixtureSampler().setup(model)
    with pytest.raises(ValueError, match=r"latents of 50000 training examples, 60000 numbers each, take 11\.2 GiB"):
        encode(model, range(50_000))
    reason = AggregatePosteriorTarget().why_not(model)
    assert "a hierarchy has a posterior of each group given those above; choose target=prior" in reason


# The ladder


def test_with_one_group_the_bound_is_the_vaes():
    model = ladder(hidden=(8,), latent=(3,), batch_norm=False).eval()

    class Moments(nn.Module):
        def forward(self, x):
            mean, raw = model.decoder.groups[0].seen.linear(model.encoder.steps[0](x.flatten(1))).chunk(2, -1)
            return mean, (nn.functional.softplus(raw) + 1e-6).log()

    vae = VAE(model.shape, likelihood="bernoulli", latent_dim=3, encoder=Moments(), decoder=model.decoder.output)
    vae.posterior_head.bound = 1e4  # nothing is bounded here
    x = pictures()
    losses = []
    for one in (model, vae):
        torch.manual_seed(3)
        losses.append(one.loss(Batch(x), 0).total)
    torch.testing.assert_close(*losses)


def test_no_evidence_no_rate():
    """Precision of what was seen towards 0: the posterior is the prior, but for the top group, which has no prior."""
    model = ladder().eval()
    with torch.no_grad():
        for group in model.decoder.groups[1:]:
            half = len(group.seen.linear.bias) // 2
            group.seen.linear.weight.zero_()
            group.seen.linear.bias[half:] = 1e8
        model.decoder.groups[0].seen.linear.weight.zero_()
        model.decoder.groups[0].seen.linear.bias.zero_()
        model.decoder.groups[0].seen.linear.bias[2:] = math.log(math.e - 1)  # softplus = 1
    assert model.group_terms(pictures())[1].abs().max() < 1e-5


def test_precisions_add():
    mean, log_var, other, other_log_var = torch.randn(4, 5, 3, dtype=torch.float64)
    got = precision_weighted(mean, log_var, other, other_log_var)
    w, v = (-log_var).exp(), (-other_log_var).exp()
    torch.testing.assert_close(got[0], (w * mean + v * other) / (w + v))
    torch.testing.assert_close(got[1], -(w + v).log())


def linear_ladder():
    """A ladder of two linear groups with constant variances, and log p(x); its posterior is not the exact one."""
    torch.manual_seed(2)
    model = LadderVAE(
        (4,), likelihood=Gaussian(SIGMA), network=Ladder((3, 3), (3, 2), "none", batch_norm=False), beta=1.0
    ).double()
    lower = model.decoder.groups[1]
    with torch.no_grad():
        for linear in [module for module in model.decoder.output.modules() if isinstance(module, nn.Linear)]:
            linear.weight.mul_(2)
        for moments in (lower.above, lower.seen, model.decoder.groups[0].seen):
            moments.linear.weight[len(moments.linear.weight) // 2 :].zero_()  # variances that nothing moves

    def mean(function, size):
        bias = function(torch.zeros(1, size, dtype=torch.float64))[0]
        return function(torch.eye(size, dtype=torch.float64)) - bias, bias

    with torch.no_grad():
        A, a = mean(lambda z: lower.above(z)[0], 2)  # z_1 = z_2 A + a + s_1 eps
        W, b = mean(model.decoder.output, 3)  # x = z_1 W + b + sigma eps
        variance = lower.above(torch.zeros(1, 2, dtype=torch.float64))[1].exp()[0]
    covariance = W.T @ (A.T @ A + variance.diag()) @ W + SIGMA**2 * torch.eye(4, dtype=torch.float64)
    return model, MultivariateNormal(a @ W + b, covariance).log_prob


def test_log_weights_average_to_the_exact_evidence():
    model, log_evidence = linear_ladder()
    x = 0.5 * torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        w = (model.log_weights(x, 40_000) - log_evidence(x)).exp()
    error = w.std(0) / w.shape[0] ** 0.5
    assert (error < 0.05).all()
    assert ((w.mean(0) - 1).abs() < 4.5 * error).all()


def test_lists_of_unequal_length_and_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"latent_dims must have one entry for each of hidden_dims, 2"):
        Ladder((3, 3), (2,))
    with pytest.raises(ValueError, match="VAE takes no Ladder, which is for a hierarchy"):
        VAE((4,), likelihood="gaussian", network=Ladder())
    with pytest.raises(ValueError, match="LadderVAE needs a network of groups"):
        LadderVAE((4,), likelihood="gaussian", network=VAE)
    with pytest.raises(ValueError, match="beta changes with the step"):
        LadderVAE((4,), likelihood="gaussian").loss_fn(torch.randn(3, 4))


def test_what_a_ladder_is_made_of():
    model = LadderVAE((6,), likelihood=Bernoulli())
    assert model.group_shapes == [(4,), (8,), (16,), (32,), (64,)]
    assert isinstance(model.decoder, TopDown)
    assert (model.couples_batch, model.min_batch) == (True, 2)
    assert (ladder(batch_norm=False).couples_batch, ladder(batch_norm=False).min_batch) == (False, 1)
    assert any(isinstance(module, BatchNorm) for module in model.modules())
