"""Priors over codes: normalised, causal, fitted, and drawn from as they say."""

import itertools
import math

import pytest
import torch

from vaebench.core import Draws
from vaebench.distributions.quantizers.residual_vq import ResidualVQ
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.models.vae import VAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import Conv
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.hmc import HamiltonianMonteCarlo
from vaebench.samplers.kernel_density import KernelDensitySampler
from vaebench.samplers.pixelcnn import PixelCNNSampler

SAMPLERS = {"pixelcnn": lambda **options: PixelCNNSampler(hidden_channels=16, num_blocks=2, **options)}
each = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


def model(num_codes=3, shape=(1, 4, 4), quantizer=None):
    quantizer = quantizer or VectorQuantizer(num_codes, 2)
    vq = VQVAE(shape, likelihood="bernoulli", network=Conv((4,), hidden_dim=0), quantizer=quantizer).eval()
    if quantizer.num_embeddings == num_codes:
        books = vq.quantizer.books if hasattr(vq.quantizer, "books") else [vq.quantizer]
        for book in books:
            torch.nn.init.normal_(book.embedding)
    return vq


def every_grid(num_codes, length):
    return torch.tensor(list(itertools.product(range(num_codes), repeat=length)))


@each
def test_probabilities_of_all_grids_sum_to_one(make):
    sampler = make().setup(model())
    for parameter in sampler.prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    with torch.no_grad():
        log_p = -sampler.nll(every_grid(3, 4))
    assert log_p.std() > 0.1
    assert log_p.double().logsumexp(0).item() == pytest.approx(0, abs=1e-5)


@each
def test_a_code_depends_on_those_before_it_only_and_on_all_that_are_near(make):
    sampler = make().setup(model(5, (1, 8, 6)))
    for parameter in sampler.prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    codes = torch.randint(5, (1, 12))
    before = sampler.prior(codes)
    for position in range(12):
        changed = codes.clone()
        changed[0, position] = (codes[0, position] + 1) % 5
        moved = (sampler.prior(changed) - before).abs().amax(2)[0] > 1e-7
        assert not moved[: position + 1].any()
        if position < 11:
            assert moved[position + 1]


@each
def test_what_is_drawn_from_the_rows_so_far_is_what_the_whole_grid_gives(make):
    sampler = make().setup(model(5, (1, 8, 6)))
    codes = torch.randint(5, (7, 12))
    whole = sampler.prior(codes)
    for position in range(12):
        torch.testing.assert_close(sampler.prior.next_logits(codes, position), whole[:, position])


@each
def test_it_recovers_a_distribution_over_grids(make):
    vq = model(2, (1, 4, 4))
    sampler = make(num_epochs=40, learning_rate=1e-2).setup(vq)
    torch.manual_seed(0)
    grids = every_grid(2, 4)
    p = torch.softmax(1.5 * torch.randn(16), 0)
    data = grids[torch.multinomial(p, 4000, replacement=True)]
    sampler.fit(Draws(sampler.latents_of(data)))
    learned = sampler.log_prob(sampler.latents_of(grids)).exp()
    assert (p * (p.log() - learned.log())).sum() < 0.02  # about 15 / (2 * 3600) of it is the sample's
    n = 20_000
    drawn = sampler.codes_of(sampler.sample(n).z)
    counts = torch.bincount((drawn * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16) / n
    error = (learned * (1 - learned) / n).sqrt()
    assert ((counts - learned).abs() < 4.5 * error + 1e-6).all()


@each
def test_temperature_sharpens(make):
    vq = model(2)
    cold, warm = (make(temperature=t).setup(vq) for t in (0.05, 1.0))
    for parameter in warm.prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    cold.load_state_dict(warm.state_dict())
    for sampler in (cold, warm):
        sampler.is_fitted.fill_(True)
    distinct = [len(sampler.codes_of(sampler.sample(300).z).unique(dim=0)) for sampler in (cold, warm)]
    assert distinct[0] < distinct[1]


@each
def test_codes_and_latents_are_each_others_inverse_and_weights_are_its_own(make):
    vq = model(3, (1, 8, 6))
    sampler = make().setup(vq)
    codes = torch.randint(3, (5, 12))
    z = sampler.latents_of(codes)
    assert z.shape == (5, *vq.latent_shape)
    assert torch.equal(sampler.codes_of(z), codes)
    assert torch.equal(vq.embed_codes(codes.reshape(5, 4, 3)), z)
    assert not any("encoder" in name or "quantizer" in name for name in sampler.state_dict())


def test_several_codes_of_a_position_are_drawn_in_turn():
    """As for one: normalised, causal, and the same from the rows so far."""
    sampler = PixelCNNSampler(hidden_channels=8, num_blocks=1).setup(model(2, quantizer=ResidualVQ(2, 2)))
    assert sampler.codes_shape == (4, 2, 2)
    for parameter in sampler.prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    grids = every_grid(2, 16)
    with torch.no_grad():
        log_p = torch.cat([-sampler.nll(some) for some in grids.split(4096)])
        assert log_p.double().logsumexp(0).item() == pytest.approx(0, abs=1e-5)
        codes = grids[torch.randint(len(grids), (1,))]
        before = sampler.prior(codes)
        for position in range(16):
            changed = codes.clone()
            changed[0, position] = 1 - codes[0, position]
            moved = (sampler.prior(changed) - before).abs().amax(2)[0] > 1e-7
            assert not moved[: position + 1].any()
            assert moved[position + 1 :].any() == (position < 15)
            torch.testing.assert_close(sampler.prior.next_logits(codes, position), before[:, position])


def test_several_codes_of_a_position_follow_each_other():
    vq = model(2, (1, 8, 6), ResidualVQ(2, 2, num_quantizers=3))
    for book, size in zip(vq.quantizer.books, (10, 1, 0.1), strict=True):
        book.embedding.data.copy_(torch.tensor([[-size, -size], [size, size]]))
    sampler = PixelCNNSampler().setup(vq)
    codes = torch.randint(2, (5, 36))
    z = sampler.latents_of(codes)
    assert torch.equal(sampler.codes_of(z), codes)
    by_hand = (2.0 * codes.reshape(5, 4, 3, 3) - 1) @ torch.tensor([10, 1, 0.1])
    torch.testing.assert_close(z, by_hand.unsqueeze(1).expand(-1, 2, -1, -1))


@pytest.mark.parametrize("sampler", [GaussianMixtureSampler(), KernelDensitySampler(), HamiltonianMonteCarlo()])
def test_who_describes_vectors_refuses_codes(sampler):
    with pytest.raises(ValueError, match=r"does not serve VQVAE: it describes vectors, .*; choose sampler=pixelcnn$"):
        sampler.setup(model())


def test_refusals():
    with pytest.raises(ValueError, match="needs the capability 'codes', but its latents are not codes of a finite set"):
        PixelCNNSampler().setup(VAE((1, 4, 4), likelihood="bernoulli"))
    sampler = PixelCNNSampler().setup(model())
    with pytest.raises(ValueError, match="the prior of sampler=pixelcnn is not fitted; call fit first"):
        sampler.sample(2)
    with pytest.raises(ValueError, match="expected at least 20 latents to fit sampler=pixelcnn to, got 3"):
        sampler.fit(Draws(torch.zeros(3, *sampler.latent_shape)))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        PixelCNNSampler(temperature=0)


def test_a_uniform_prior_is_the_rate():
    sampler = PixelCNNSampler(num_blocks=0).setup(model())
    for parameter in sampler.prior.last[-1].parameters():
        torch.nn.init.zeros_(parameter)
    assert sampler.nll(every_grid(3, 4))[0].item() == pytest.approx(4 * math.log(3), rel=1e-5)
