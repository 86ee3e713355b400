"""VQ-VAE: the loss, the constant rate, what a user does with codes."""

import copy
import math

import pytest
import torch

from vaebench.core import Batch
from vaebench.distributions.quantizers.fsq import FSQ
from vaebench.distributions.quantizers.lfq import LFQ
from vaebench.distributions.quantizers.residual_vq import ResidualVQ
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import MLP, Conv

NETWORK = Conv((6, 8), hidden_dim=0)
QUANTIZERS = {
    "vq": VectorQuantizer(16, 4, update="gradient"),
    "residual": ResidualVQ(16, 4, num_quantizers=3),
    "fsq": FSQ((4, 3)),
    "lfq": LFQ(5),
}


def model(quantizer=QUANTIZERS["vq"], shape=(1, 9, 6), **options):
    return VQVAE(shape, likelihood="bernoulli", network=NETWORK, quantizer=quantizer, **options)


def images(n=5, shape=(1, 9, 6)):
    return torch.rand(n, *shape).round()


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
def test_distortion_plus_rate_is_a_bound_over_all_grids_and_the_rate_is_h_w_log_k(quantizer):
    vq, x = model(quantizer), images()
    assert vq.latent_shape == (quantizer.dim, 3, 2)
    distortion, rate = vq.distortion_and_rate(x)
    depth = 3 if isinstance(quantizer, ResidualVQ) else 1
    torch.testing.assert_close(rate, torch.full((5,), depth * 6 * math.log(vq.quantizer.num_codes)))
    torch.testing.assert_close(distortion, -vq.likelihood(vq.embed_codes(vq.codes(x))).log_prob(x))
    torch.testing.assert_close(vq.log_weights(x, 2), -(distortion + rate).expand(2, 5))
    assert vq.rate_estimator == "in closed form"


def test_the_bound_holds_on_a_grid_that_can_be_summed():
    vq, x = model(VectorQuantizer(3, 2), shape=(1, 2, 2)), images(4, (1, 2, 2))
    torch.nn.init.normal_(vq.quantizer.embedding)
    every = torch.arange(3).reshape(3, 1, 1)
    log_joint = vq.likelihood(vq.embed_codes(every)[:, None].expand(3, 4, *vq.latent_shape)).log_prob(x) - math.log(3)
    distortion, rate = vq.distortion_and_rate(x)
    assert (distortion + rate >= -log_joint.logsumexp(0) - 1e-5).all()


def test_the_loss_is_distortion_plus_the_quantizers_terms():
    vq, x = model(), images()
    loss = vq.loss(Batch(x), 0)
    q = vq.encode(x)
    expected = -vq.likelihood(q.z).log_prob(x) + 1.25 * (q.z_e - q.z).square().sum((1, 2, 3))
    torch.testing.assert_close(loss.total, expected.mean())
    single = torch.stack([vq.loss(Batch(one), 0).total for one in x.split(1)]).mean()
    torch.testing.assert_close(loss.total, single)  # the weight of a term does not depend on the batch
    assert set(loss.terms) == {"distortion", "rate", "perplexity", "commitment", "codebook"}
    validation = vq.eval().validation_loss(Batch(x), 0)
    torch.testing.assert_close(validation.total, validation.terms["distortion"] + validation.terms["rate"])


def test_what_a_user_does_with_codes():
    vq, x = model(), images()
    outputs = vq(x)
    assert outputs["z_e"].shape == outputs["quantized"].shape == (5, 4, 3, 2)
    assert outputs["encoding_indices"].shape == (5, 3, 2)
    quantized, aux = vq.quantize(outputs["z_e"])
    assert torch.equal(quantized, outputs["quantized"])
    assert torch.equal(aux["encoding_indices"], vq.codes(x))
    losses = vq.loss_fn(x, outputs)
    for name in ("commitment_loss", "codebook_loss"):
        torch.testing.assert_close(aux[name], losses[name])
        torch.testing.assert_close(outputs[name], losses[name])
    torch.testing.assert_close(
        losses["total_loss"], losses["reconstruction_loss"] + losses["commitment_loss"] + losses["codebook_loss"]
    )
    torch.testing.assert_close(vq.reconstruct(x), vq.decode(vq.embed_codes(vq.codes(x))))


def test_averages_move_after_a_step_only():
    vq, x = model(VectorQuantizer(16, 4)), images()
    before = vq.quantizer.embedding.clone()
    vq.loss(Batch(x), 0).total.backward()
    assert torch.equal(vq.quantizer.embedding, before)
    vq.after_step(Batch(x))
    used = vq.codes(x).unique()
    assert not torch.equal(vq.quantizer.embedding[used], before[used])


@pytest.mark.parametrize("kind", [VectorQuantizer, ResidualVQ])
def test_the_codebook_follows_what_the_losses_of_the_step_encoded(kind):
    vq, x = model(kind(16, 4, restart_below=0.0)).train(), images(6)
    other, passes = copy.deepcopy(vq), []
    other.after_step(Batch(x))  # encodes by itself
    vq.encoder.register_forward_hook(lambda *_: passes.append(1))
    vq.loss(Batch(x), 6)  # of a step that moved nothing
    for piece in x.split(4):
        vq.loss(Batch(piece), 7)
    with torch.no_grad():
        vq.posterior_head.projection.weight.add_(1)  # the optimiser's step
    vq.after_step(Batch(x))
    assert len(passes) == 3
    for name, value in vq.quantizer.state_dict().items():
        torch.testing.assert_close(value, other.quantizer.state_dict()[name])
    vq.eval().loss(Batch(x), 8)
    vq.train().after_step(Batch(x))
    assert len(passes) == 5, "encodings of a validation are not the step's"


class Train:
    x = images(20)

    def __len__(self):
        return 20

    def batch(self, indices):
        return Batch(self.x[indices])


def test_k_means_starts_from_the_encoders_vectors():
    vq = model(VectorQuantizer(16, 4, kmeans_iterations=5))
    before = (vq.encode(Train.x).z - vq.encode(Train.x).z_e).square().mean()
    vq.before_training(Train())
    assert (vq.encode(Train.x).z - vq.encode(Train.x).z_e).square().mean() < 0.2 * before


def test_refusals():
    vq = model()
    with pytest.raises(ValueError, match=r"VQVAE has no prior: uniform codes do not look like the data; fit a prior"):
        vq.sample(2)
    with pytest.raises(ValueError, match=r"expected an encoding of shape \(B, 4, 3, 2\), got \(1, 4, 3, 3\)"):
        vq.quantize(torch.zeros(1, 4, 3, 3))
    with pytest.raises(ValueError, match="beta has no meaning here"):
        vq.loss_fn(images(), beta=2.0)
    with pytest.raises(ValueError, match="takes images of shape"):
        model(shape=(7,))


def test_a_batch_is_coupled_by_lfq_only():
    assert model(LFQ(5)).couples_batch
    assert not model().couples_batch


def test_a_network_without_grids_is_refused():
    with pytest.raises(
        ValueError, match="network: a VQ-VAE needs a network over images, such as conv or resnet; got MLP"
    ):
        VQVAE((1, 9, 6), likelihood="bernoulli", network=MLP())
