"""Priors over codes: normalised, causal, fitted, and drawn from as they say."""

import itertools
import math

import pytest
import torch

from vaebench.core import Draws
from vaebench.distributions.quantizers.fsq import FSQ
from vaebench.distributions.quantizers.lfq import LFQ
from vaebench.distributions.quantizers.residual_vq import ResidualVQ
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.models.vae import VAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import Conv
from vaebench.samplers.code_transformer import CodeTransformerSampler
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.samplers.hmc import HamiltonianMonteCarlo
from vaebench.samplers.kernel_density import KernelDensitySampler
from vaebench.samplers.pixelcnn import PixelCNNSampler

SAMPLERS = {
    "pixelcnn": lambda **options: PixelCNNSampler(hidden_channels=16, num_blocks=2, **options),
    "code_transformer": lambda **options: CodeTransformerSampler(
        hidden_channels=16, num_blocks=2, num_heads=2, dropout=0.0, **options
    ),
}
RATES = {"pixelcnn": 1e-2, "code_transformer": 3e-3}
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
    for parameter in sampler.density.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    with torch.no_grad():
        log_p = -sampler.density.nll(every_grid(3, 4))
    assert log_p.std() > 0.1
    assert log_p.double().logsumexp(0).item() == pytest.approx(0, abs=1e-5)


@each
def test_a_code_depends_on_those_before_it_only_and_on_all_that_are_near(make):
    sampler = make().setup(model(5, (1, 8, 6)))
    for parameter in sampler.density.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    codes = torch.randint(5, (1, 12))
    before = sampler.density(codes)
    for position in range(12):
        changed = codes.clone()
        changed[0, position] = (codes[0, position] + 1) % 5
        moved = (sampler.density(changed) - before).abs().amax(2)[0] > 1e-7
        assert not moved[: position + 1].any()
        if position < 11:
            assert moved[position + 1]


@pytest.mark.parametrize("quantizer", [VectorQuantizer(5, 2), ResidualVQ(5, 2, num_quantizers=2)], ids=["1", "2"])
@each
def test_what_is_drawn_from_the_rows_so_far_is_what_the_whole_grid_gives(make, quantizer):
    vq = model(5, (1, 10, 6), quantizer)
    sampler = make(num_classes=2).setup(vq)
    for parameter in sampler.density.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    length = math.prod(vq.codes_shape)
    codes, y = torch.randint(5, (7, length)), torch.randint(2, (7,))
    whole, cache = sampler.density(codes, y), {}
    for position in range(length):
        seen = codes.clone()
        seen[:, position:] = -(10**9)  # not read
        found = [
            sampler.density.next_logits(codes, position, y),
            sampler.density.next_logits(seen, position, y, cache),
        ]
        if isinstance(sampler, CodeTransformerSampler):
            found += [sampler.density.next_logits(seen, position, y)]
        for logits in found:
            torch.testing.assert_close(logits, whole[:, position], atol=1e-4, rtol=1e-4)


@each
def test_cached_draws_are_those_without_a_cache(make, monkeypatch):
    sampler = make(num_classes=2).setup(model(5, (1, 8, 6)))
    for parameter in sampler.density.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    sampler.is_fitted.fill_(True)
    sampler.label_frequencies.fill_(0.5)
    torch.manual_seed(0)
    draws = [sampler.sample(50)]
    anew = sampler.density.next_logits
    monkeypatch.setattr(sampler.density, "next_logits", lambda codes, position, y, cache: anew(codes, position, y))
    torch.manual_seed(0)
    draws.append(sampler.sample(50))
    assert torch.equal(draws[0].z, draws[1].z)
    assert torch.equal(draws[0].y, draws[1].y)


@each
def test_it_recovers_a_distribution_over_grids(make):
    vq = model(2, (1, 4, 4))
    sampler = make(num_epochs=25).setup(vq)
    sampler.learning_rate = RATES[sampler.name]
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
    for parameter in warm.density.parameters():
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


@each
def test_a_prior_for_each_class_learns_each_and_their_mixture(make):
    vq = model(2, (1, 4, 4))
    sampler = make(num_classes=3, num_epochs=20).setup(vq)
    sampler.learning_rate = RATES[sampler.name]
    torch.manual_seed(0)
    grids, n = every_grid(2, 4), 3000
    p = torch.softmax(1.5 * torch.randn(3, 16), 1)
    y = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, replacement=True)
    data = grids[torch.multinomial(p[y], 1).squeeze(1)]
    z = sampler.latents_of(grids)
    sampler.fit(Draws(sampler.latents_of(data), y))
    torch.testing.assert_close(sampler.label_frequencies, torch.bincount(y) / n)
    log_p = torch.stack([sampler.log_prob(z, torch.full((16,), k)) for k in range(3)])
    for k in range(3):
        divergence = (p[k] * (p[k].log() - log_p)).sum(1)  # of the class from each of the three that were learned
        assert divergence[k] < 0.1
        assert divergence[k] < 0.3 * divergence[[j for j in range(3) if j != k]].min()
    mixture = (sampler.label_frequencies @ log_p.exp()).log()
    torch.testing.assert_close(sampler.log_prob(z), mixture)
    drawn = sampler.sample(20_000)
    shares = torch.bincount(drawn.y, minlength=3) / 20_000
    assert ((shares - sampler.label_frequencies).abs() < 0.015).all()
    ones = sampler.sample(20_000, torch.ones(20_000, dtype=torch.int16))
    counts = torch.bincount((sampler.codes_of(ones.z) * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16) / 20_000
    error = (log_p[1].exp() / 20_000).sqrt()
    assert ((counts - log_p[1].exp()).abs() < 4.5 * error + 1e-6).all()


@each
def test_labels_that_do_not_fit_are_refused(make):
    plain, classes = make().setup(model()), make(num_classes=3).setup(model())
    z = torch.zeros(30, *plain.latent_shape)
    with pytest.raises(ValueError, match="num_classes: the data have no labels for sampler="):
        classes.fit(Draws(z))
    with pytest.raises(ValueError, match="num_classes is 3: expected labels from 0 to 2"):
        classes.fit(Draws(z, torch.full((30,), 3)))
    with pytest.raises(ValueError, match="num_classes must be given for samples with labels"):
        plain.sample(2, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="num_classes must be"):
        make(num_classes=0)


@pytest.mark.parametrize("quantizer", [FSQ((3, 2)), LFQ(3), ResidualVQ(4, 2, num_quantizers=2)])
@each
def test_every_quantiser_is_served(make, quantizer):
    vq = VQVAE((1, 4, 4), likelihood="bernoulli", network=Conv((4,), hidden_dim=0), quantizer=quantizer).eval()
    z = vq.encode(torch.rand(40, 1, 4, 4)).z
    sampler = make(num_epochs=2).setup(vq).fit(Draws(z))
    assert sampler.log_prob(z).shape == (40,)
    draws = sampler.sample(6)
    assert vq.decode(draws.z).shape == (6, 1, 4, 4)


@each
def test_several_codes_of_a_position_are_drawn_in_turn(make):
    """As for one: normalised, causal, and the same from the rows so far."""
    sampler = make().setup(model(2, quantizer=ResidualVQ(2, 2)))
    assert sampler.codes_shape == (4, 2, 2)
    for parameter in sampler.density.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    grids = every_grid(2, 16)
    with torch.no_grad():
        log_p = torch.cat([-sampler.density.nll(some) for some in grids.split(4096)])
        assert log_p.double().logsumexp(0).item() == pytest.approx(0, abs=1e-5)
        codes = grids[torch.randint(len(grids), (1,))]
        before = sampler.density(codes)
        for position in range(16):
            changed = codes.clone()
            changed[0, position] = 1 - codes[0, position]
            moved = (sampler.density(changed) - before).abs().amax(2)[0] > 1e-7
            assert not moved[: position + 1].any()
            assert moved[position + 1 :].any() == (position < 15)
            torch.testing.assert_close(
                sampler.density.next_logits(codes, position), before[:, position], atol=1e-5, rtol=1e-4
            )


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


def test_a_stored_transformer_draws_what_it_drew():
    vq = model()
    fitted = SAMPLERS["code_transformer"](num_epochs=1).setup(vq)
    fitted.fit(Draws(fitted.latents_of(torch.randint(3, (40, 4)))))
    again = SAMPLERS["code_transformer"]().setup(vq)
    again.load_state_dict(fitted.state_dict())
    draws = []
    for sampler in (fitted, again):
        torch.manual_seed(1)
        draws.append(sampler.sample(20).z)
    assert torch.equal(*draws)


def test_dropout_is_for_training_only():
    sampler = CodeTransformerSampler(hidden_channels=16, num_blocks=1, dropout=0.9).setup(model())
    codes = torch.randint(3, (5, 4))
    assert torch.equal(sampler.density(codes), sampler.density(codes))
    sampler.density.train()
    assert not torch.equal(sampler.density(codes), sampler.density(codes))


@pytest.mark.parametrize("sampler", [GaussianMixtureSampler(), KernelDensitySampler(), HamiltonianMonteCarlo()])
def test_who_describes_vectors_refuses_codes(sampler):
    with pytest.raises(ValueError, match=r"does not serve VQVAE: it describes vectors, .*; choose sampler=pixelcnn"):
        sampler.setup(model())


def test_refusals():
    with pytest.raises(ValueError, match="needs the capability 'codes', but its latents are not codes of a finite set"):
        PixelCNNSampler().setup(VAE((1, 4, 4), likelihood="bernoulli"))
    sampler = PixelCNNSampler().setup(model())
    with pytest.raises(ValueError, match="the density of sampler=pixelcnn is not fitted; call fit first"):
        sampler.sample(2)
    with pytest.raises(ValueError, match="expected at least 20 latents to fit sampler=pixelcnn to, got 3"):
        sampler.fit(Draws(torch.zeros(3, *sampler.latent_shape)))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        PixelCNNSampler(temperature=0)
    with pytest.raises(ValueError, match="hidden_channels must be a multiple of num_heads, 3; got 16"):
        CodeTransformerSampler(hidden_channels=16, num_heads=3)
    with pytest.raises(ValueError, match="dropout must be"):
        CodeTransformerSampler(dropout=1.0)


def test_a_uniform_prior_is_the_rate():
    sampler = PixelCNNSampler(num_blocks=0).setup(model())
    for parameter in sampler.density.last[-1].parameters():
        torch.nn.init.zeros_(parameter)
    assert sampler.density.nll(every_grid(3, 4))[0].item() == pytest.approx(4 * math.log(3), rel=1e-5)
