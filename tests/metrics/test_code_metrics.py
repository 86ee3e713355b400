"""Metrics of models of codes: the code length against sums by hand, perplexity and usage against counts."""

import math

import pytest
import torch

from vaebench.core import Batch, Draws
from vaebench.distributions.quantizers.residual_vq import ResidualVQ
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.code_length import CodeLength
from vaebench.metrics.codebook import Codebook
from vaebench.models.vae import VAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import Conv
from vaebench.samplers.pixelcnn import PixelCNNSampler


class Few:
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        return Batch(self.x[indices])


def model(quantizer, shape=(1, 4, 4), likelihood="bernoulli"):
    vq = VQVAE(shape, likelihood=likelihood, network=Conv((4,), hidden_dim=0), quantizer=quantizer).eval()
    for book in getattr(vq.quantizer, "books", [vq.quantizer]):
        torch.nn.init.normal_(book.embedding)
    return vq


def fitted(vq):
    sampler = PixelCNNSampler(hidden_channels=8, num_blocks=1).setup(vq)
    for parameter in sampler.density.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    sampler.is_fitted.fill_(True)
    return sampler


def test_the_code_length_is_the_priors_and_bounds_what_can_be_summed():
    vq, x = model(VectorQuantizer(3, 2)), torch.rand(30, 1, 4, 4).round()
    prior = fitted(vq)
    result = CodeLength()(vq, Few(x), batch_size=7, code_prior=prior)
    codes = vq.codes(x).flatten(1)
    log_prior = torch.log_softmax(prior.density(codes), 2).gather(2, codes[..., None]).sum((1, 2))
    log_likelihood = vq.likelihood(vq.embed_codes(codes.reshape(-1, 2, 2))).log_prob(x)
    values = {name: estimate.value for name, estimate in result.values.items()}
    assert set(values) == {"code_length_nats", "code_elbo_nats", "code_bits_per_dim"}
    assert values["code_length_nats"] == pytest.approx(-log_prior.mean().item(), rel=1e-5)
    elbo = (log_likelihood + log_prior).mean().item()
    assert values["code_elbo_nats"] == pytest.approx(elbo, rel=1e-5)
    assert values["code_bits_per_dim"] == pytest.approx(-elbo / (16 * math.log(2)), rel=1e-5)
    assert result.values["code_elbo_nats"].better == "higher"
    assert result.details["uniform_rate_nats"] == pytest.approx(4 * math.log(3))

    every = torch.cartesian_prod(*[torch.arange(3)] * 4)  # all 81 grids: the exact log p(x)
    log_p = -prior.density.nll(every)
    each = vq.likelihood(vq.embed_codes(every.reshape(-1, 2, 2))[:, None].expand(-1, 30, -1, -1, -1)).log_prob(x)
    exact = (each + log_p[:, None]).logsumexp(0)
    assert (exact >= log_likelihood + log_prior - 1e-4).all()


def test_a_density_has_no_bits():
    vq = model(VectorQuantizer(3, 2), likelihood="gaussian")
    result = CodeLength()(vq, Few(torch.rand(8, 1, 4, 4)), code_prior=fitted(vq))
    assert set(result.values) == {"code_length_nats", "code_elbo_nats"}


def test_code_length_without_a_prior_or_without_codes():
    vq, data = model(VectorQuantizer(3, 2)), Few(torch.rand(8, 1, 4, 4).round())
    with pytest.raises(NotApplicableError, match=r"there is no prior over its codes yet; fit one with .* sampler="):
        CodeLength()(vq, data)
    with pytest.raises(NotApplicableError, match="VAE has no codes: its latents are not codes of a finite set"):
        CodeLength()(VAE((1, 4, 4), likelihood="bernoulli"), data)
    with pytest.raises(NotApplicableError, match="VAE has no codes"):
        Codebook()(VAE((1, 4, 4), likelihood="bernoulli"), data)


class Says(torch.nn.Module):
    """A posterior that gives the codes that stand in the pictures."""

    capabilities = frozenset({"codes", "posterior"})

    def __init__(self, num_codes, depth):
        super().__init__()
        self.quantizer = type("Q", (), {"num_codes": num_codes, "depth": depth})

    def reason_against(self, capability):
        return None

    def posterior(self, x, y):
        return type("P", (), {"codes": x.long()})


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_perplexity_and_usage_over_the_whole_set(batch_size):
    codes = torch.randint(4, (50, 3, 2))
    codes[codes == 3] = 5
    result = Codebook()(Says(8, 1), Few(codes), batch_size=batch_size)
    p = torch.bincount(codes.flatten(), minlength=8) / 300
    entropy = -sum(q * math.log(q) for q in p.tolist() if q)
    assert result.values["codebook_perplexity"].value == pytest.approx(math.exp(entropy))
    assert result.values["codebook_usage"].value == 4 / 8
    assert result.values["codebook_usage"].standard_error == 0
    assert result.values["codebook_perplexity"].n == 50
    assert 0 < result.values["codebook_perplexity"].standard_error < 0.3


def test_uniform_usage_has_the_perplexity_of_the_number_of_codes():
    codes = torch.arange(6).repeat(20).reshape(20, 3, 2)
    result = Codebook()(Says(6, 1), Few(codes))
    assert result.values["codebook_perplexity"].value == pytest.approx(6)
    assert result.values["codebook_usage"].value == 1
    assert Codebook()(Says(6, 1), Few(codes[:1])).values["codebook_usage"].value == 1  # each once
    assert Codebook()(Says(6, 1), Few(0 * codes[:1])).values["codebook_perplexity"].value == pytest.approx(1)


def test_each_of_several_codebooks_has_its_own():
    codes = torch.stack([torch.randint(4, (40, 2, 2)), torch.randint(2, (40, 2, 2))], 1)
    result = Codebook()(Says(4, 2), Few(codes), batch_size=9)
    assert set(result.values) == {f"codebook_{n}_{i}" for n in ("perplexity", "usage") for i in (1, 2)}
    assert result.values["codebook_usage_1"].value == 1
    assert result.values["codebook_usage_2"].value == 0.5
    assert result.values["codebook_perplexity_2"].value <= 2 < result.values["codebook_perplexity_1"].value


def test_residual_codes_of_a_model():
    vq = model(ResidualVQ(4, 2, num_quantizers=2))
    result = Codebook()(vq, Few(torch.rand(9, 1, 4, 4)))
    first = vq.codes(torch.rand(9, 1, 4, 4))[:, 0]
    assert first.shape == (9, 2, 2)
    assert result.details == {"num_codes": 4, "num_codebooks": 2, "num_vectors": 36}


def test_the_spread_of_perplexity_is_what_the_jackknife_says():
    """Over repeated sets the perplexity varies by its standard error."""
    found = [Codebook()(Says(8, 1), Few(torch.randint(8, (100, 2, 2)).square() % 8)) for _ in range(40)]
    values = torch.tensor([r.values["codebook_perplexity"].value for r in found])
    errors = torch.tensor([r.values["codebook_perplexity"].standard_error for r in found])
    assert 0.6 < errors.mean() / values.std() < 1.7


def test_a_fitted_prior_shortens_codes():
    vq = model(VectorQuantizer(3, 2))
    x = torch.rand(200, 1, 4, 4).round()
    sampler = PixelCNNSampler(hidden_channels=8, num_blocks=1, num_epochs=15, learning_rate=1e-2).setup(vq)
    sampler.fit(Draws(vq.encode(x).z.detach()))
    result = CodeLength()(vq, Few(x), code_prior=sampler)
    assert result.values["code_length_nats"].value < result.details["uniform_rate_nats"] - 0.1
