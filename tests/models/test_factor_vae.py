"""FactorVAE: a known total correlation, the permuted second half, and two processes against one."""

import contextlib
import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.hardware import collective
from vaebench.models.factor_vae import FactorVAE
from vaebench.networks import MLP, Conv
from vaebench.trainers.adversarial import AdversarialTrainer


def small(latent_dim=2, **arguments):
    return FactorVAE(
        (6,),
        likelihood=Gaussian(),
        latent_dim=latent_dim,
        network=MLP(hidden_dims=(8,)),
        discriminator=MLP(hidden_dims=(8,), activation="leaky_relu"),
        **arguments,
    ).double()


class Recorder(nn.Module):
    """A discriminator that keeps what it was shown."""

    def __init__(self, logit=lambda z: 0.3 + 0.1 * z.sum(-1)):
        super().__init__()
        self.logit = logit

    def forward(self, z):
        self.seen = z
        return self.logit(z)


def codes(model, x, seed):
    torch.manual_seed(seed)
    return model.posterior(x).rsample()


@pytest.fixture
def x():
    return torch.randn(7, 6, dtype=torch.float64)


def correlated(rho=0.8):
    """A model whose aggregate posterior over x ~ N(0, I) is a Gaussian with correlation rho, and its covariance."""
    model = FactorVAE(
        (2,), likelihood=Gaussian(), latent_dim=2, network=MLP(()), discriminator=MLP(()), gamma=3.0
    ).double()
    noise = 0.3
    covariance = torch.tensor([[1.0, rho], [rho, 1.5]], dtype=torch.float64)
    slope = torch.linalg.cholesky(covariance - noise * torch.eye(2))
    head = model.posterior_head.linear
    with torch.no_grad():
        head.weight.copy_(torch.cat([slope, torch.zeros(2, 2)]))
        head.bias.copy_(torch.tensor([0, 0, *2 * [10 * math.atanh(math.log(noise) / 10)]]))
    return model, covariance


def test_at_the_exact_density_ratio_the_term_is_the_total_correlation():
    model, covariance = correlated()
    joint = MultivariateNormal(torch.zeros(2).double(), covariance)
    marginals = Normal(torch.zeros(2).double(), covariance.diagonal().sqrt())

    def ratio(z):
        return joint.log_prob(z) - marginals.log_prob(z).sum(-1)

    model.discriminator = Recorder(ratio)
    loss = model.losses(Batch(torch.randn(40_000, 2, dtype=torch.float64)), 0, "vae")["vae"]
    exact = 0.5 * (covariance.diagonal().log().sum() - torch.logdet(covariance))
    standard_error = ratio(model.discriminator.seen).std() / 40_000**0.5
    assert exact > 0.25
    assert abs(loss.terms["total_correlation"] - exact) < 4 * standard_error
    terms = loss.terms["distortion"] + loss.terms["rate"] + 3.0 * loss.terms["total_correlation"]
    torch.testing.assert_close(loss.total.detach(), terms)


def test_the_discriminator_learns_the_total_correlation():
    model, covariance = correlated()
    model.discriminator = nn.Sequential(nn.Linear(5, 1).double(), nn.Flatten(0))
    # The log-ratio of two Gaussians is a quadratic, which logistic regression on its monomials contains.
    model.discriminator.register_forward_pre_hook(
        lambda _, z: torch.cat([z[0], z[0].square(), z[0].prod(-1, keepdim=True)], -1)
    )
    optimiser = torch.optim.Adam(model.discriminator.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        batch = Batch(torch.randn(2_000, 2, dtype=torch.float64))
        model.losses(batch, 0, "discriminator")["discriminator"].total.backward()
        optimiser.step()
    batch = Batch(torch.randn(20_000, 2, dtype=torch.float64))
    estimate = model.losses(batch, 0, "vae")["vae"].terms["total_correlation"]
    exact = 0.5 * (covariance.diagonal().log().sum() - torch.logdet(covariance))
    assert estimate.item() == pytest.approx(exact.item(), rel=0.15)


def test_the_second_half_is_permuted_and_the_first_is_scored_as_it_is(x):
    model = small(latent_dim=3)
    model.discriminator = Recorder()
    x = torch.randn(400, 6, dtype=torch.float64)
    z = codes(model, x, seed=1)
    torch.manual_seed(1)
    model.losses(Batch(x), 0, "discriminator")
    seen = model.discriminator.seen
    assert torch.equal(seen[::2], z[::2])
    for d in range(3):
        assert torch.equal(seen[1::2, d].sort().values, z[1::2, d].sort().values)
        assert not torch.equal(seen[1::2, d], z[1::2, d])
    ranks = [seen[1::2, d].argsort().argsort() - z[1::2, d].argsort().argsort() for d in range(3)]
    assert not torch.equal(ranks[0], ranks[1])  # each dimension on its own


def test_permuted_dimensions_are_independent():
    model, covariance = correlated()
    model.discriminator = Recorder()
    n = 10_000
    model.losses(Batch(torch.randn(2 * n, 2, dtype=torch.float64)), 0, "discriminator")
    seen = model.discriminator.seen
    correlation = torch.corrcoef(seen[1::2].T)[0, 1]
    assert abs(correlation) < 4 / n**0.5
    expected = covariance[0, 1] / covariance.diagonal().prod().sqrt()
    assert torch.corrcoef(seen[::2].T)[0, 1].item() == pytest.approx(expected.item(), abs=4 / n**0.5)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_each_half_weighs_one_half(x, size):
    model = small()
    model.discriminator = Recorder()
    loss = model.losses(Batch(x[:size]), 0, "discriminator")["discriminator"]
    belief = torch.sigmoid(model.discriminator(model.discriminator.seen))
    expected = -0.5 * belief[::2].log().mean() - 0.5 * (1 - belief[1::2]).log().mean()
    torch.testing.assert_close(loss.total, expected)


def test_vae_loss_by_hand(x):
    model = small(gamma=4.0)
    q, z = model.posterior(x), codes(model, x, seed=2)
    torch.manual_seed(2)
    loss = model.losses(Batch(x), 0, "vae")["vae"]
    distortion = 0.5 * (x - model.decoder(z)).square().sum(1) + 3 * math.log(2 * math.pi)
    rate = 0.5 * (q.mean.square() + q.variance - q.log_var - 1).sum(1)
    belief = torch.sigmoid(model.discriminator(z))
    ratio = belief.log() - (1 - belief).log()
    torch.testing.assert_close(loss.total, (distortion + rate + 4.0 * ratio).mean())


def test_each_loss_is_that_of_its_part(x):
    model = small()
    losses = model.losses(Batch(x), 0)
    vae = [p for module in model.parts()["vae"] for p in module.parameters()]
    assert torch.autograd.grad(losses["discriminator"].total, vae, allow_unused=True) == (None,) * len(vae)


def test_the_trainer_gives_each_part_its_own_loss(x):
    model, x = small().float(), x.float()
    reference = small().float()
    reference.load_state_dict(model.state_dict())
    trainer = AdversarialTrainer(batch_size=7, num_epochs=1, optimizer="SGD", learning_rate=0.01)
    training = trainer.start(model, SimpleNamespace(train=DataSplit(x), validation=DataSplit(x)))
    torch.manual_seed(6)
    training.train_step(Batch(x))
    torch.manual_seed(6)
    for part, modules in reference.parts().items():
        parameters = [p for module in modules for p in module.parameters()]
        own = torch.autograd.grad(reference.losses(Batch(x), 0, part)[part].total, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, own, strict=True):
                parameter -= 0.01 * gradient
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_validation_is_the_elbo(x):
    loss = small().validation_loss(Batch(x), 0)
    torch.testing.assert_close(loss.total, loss.terms["distortion"] + loss.terms["rate"])


def test_one_example_has_no_second_half(x):
    with pytest.raises(ValueError, match=r"at least two examples .* trainer.batch_size"):
        small().losses(Batch(x[:1]), 0, "discriminator")


def test_a_piece_of_an_accumulated_batch_is_halved_by_itself(x):
    model = small()
    model.discriminator = Recorder()
    with collective.shard(3, 7, 7, together=((3, 7),)):
        z = codes(model, x[3:], seed=5)
        torch.manual_seed(5)
        model.losses(Batch(x[3:]), 0, "discriminator")
    seen = model.discriminator.seen
    assert torch.equal(seen[::2], z[::2])
    assert torch.equal(seen[1::2].sort(0).values, z[1::2].sort(0).values)


def _gradients(model, x, share):
    torch.manual_seed(9)
    found = {}
    for name, modules in model.parts().items():
        parameters = [p for module in modules for p in module.parameters()]
        total = model.losses(Batch(x), 0, name)[name].total * share
        found[name] = torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)])
    return found


def _worker(number, file, model, x, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=number, world_size=2)
    try:
        part = collective.shard_of(len(x))
        with collective.shard(part.start, part.stop, part.total):
            mine = x[part.start : part.stop]
            whole = _gradients(model, mine, len(mine) / len(x))
        # A piece of an accumulated batch: the rows 1, 2 and 4, 5, 6, which meet each other alone.
        together = ((1, 3), (4, 7))
        start, stop = together[number]
        with collective.shard(start, stop, len(x), together):
            piece = _gradients(model, x[start:stop], (stop - start) / 5)
        torch.save({"whole": whole, "piece": piece}, results / f"{number}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(monkeypatch, tmp_path, x):
    model = small(latent_dim=3)
    mp.start_processes(
        _worker, (tmp_path / "init", model, x, tmp_path), nprocs=2, start_method="forkserver"
    )  # 3 rows and 4
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    for name, whole in _gradients(model, x, 1.0).items():
        torch.testing.assert_close(first["whole"][name] + second["whole"][name], whole, rtol=1e-9, atol=1e-12)
    rows = torch.tensor([1, 2, 4, 5, 6])
    monkeypatch.setattr(
        collective, "standard_normal", lambda shape, like, dim=0: torch.randn(7, shape[1], dtype=like.dtype)[rows]
    )
    for name, piece in _gradients(model, x[rows], 1.0).items():
        torch.testing.assert_close(first["piece"][name] + second["piece"][name], piece, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "network"), [((1, 8, 8), MLP()), ((3, 13, 22), Conv(channels=(4, 8), hidden_dim=16)), ((5,), MLP())]
)
def test_any_shape(shape, network):
    model = FactorVAE(shape, likelihood=Bernoulli(), network=network, discriminator=MLP((16,)))
    batch = Batch(torch.rand(4, *shape).round())
    losses = model.losses(batch, 0)
    assert all(math.isfinite(loss.total.item()) for loss in losses.values())
    assert list(losses) == list(model.parts())
    assert list(model.losses(batch, 0, "vae")) == ["vae"]


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="gamma must be at least 0 and finite; got -1"):
        small(gamma=-1)


@pytest.mark.parametrize(
    ("num_examples", "options", "is_refused"),
    [
        (9, {"batch_size": 4}, True),
        (9, {"batch_size": 4, "accumulate": 2}, True),
        (9, {"batch_size": 1}, True),
        (9, {"batch_size": 4, "num_steps": 3}, True),
        (9, {"batch_size": 4, "num_steps": 2}, False),  # the last batch is never reached
        (10, {"batch_size": 4}, False),
        (8, {"batch_size": 4}, False),
    ],
)
def test_a_last_batch_of_one_is_refused_at_the_start(num_examples, options, is_refused):
    split = DataSplit(torch.rand(num_examples, 6))
    trainer = AdversarialTrainer(num_epochs=1, **options)
    expected = pytest.raises(ValueError, match=r"FactorVAE needs at least 2 .* holds 1; choose another trainer\.batch")
    with expected if is_refused else contextlib.nullcontext():
        trainer.train(small().float(), SimpleNamespace(train=split, validation=split))
