"""Every quantiser against the one of that name in vector-quantize-pytorch."""

import pytest
import torch

from vaebench.distributions.quantizers.fsq import FSQ
from vaebench.distributions.quantizers.lfq import LFQ
from vaebench.distributions.quantizers.quantizer import vectors_of
from vaebench.distributions.quantizers.residual_vq import ResidualVQ
from vaebench.distributions.quantizers.vq import VectorQuantizer

theirs = pytest.importorskip("vector_quantize_pytorch", reason="an oracle of the tests: pip install 'vaebench[dev]'")

K, D = 11, 4
SHAPE = (3, D, 2, 5)


def pair(gradient="straight_through", **options):
    """Our quantiser and theirs, with the same codes and averages, in training."""
    spec = VectorQuantizer(K, D, decay=0.9, epsilon=1e-3, restart_below=0.0, gradient=gradient, **options)
    book = spec.build().train()
    oracle = theirs.VectorQuantize(
        dim=D,
        codebook_size=K,
        decay=0.9,
        eps=1e-3,
        commitment_weight=0.25,
        threshold_ema_dead_code=0,
        rotation_trick=gradient == "rotation",
        use_cosine_sim=options.get("distance") == "cosine",
        ema_update=options.get("update", "ema") == "ema",
        learnable_codebook=options.get("update", "ema") == "gradient",
        accept_image_fmap=True,
    ).train()
    codes = torch.nn.functional.normalize(torch.randn(K, D), dim=1)
    counts = torch.rand(K) + 1
    with torch.no_grad():
        book.embedding.copy_(codes)
        book.counts.copy_(counts)
        book.sums.copy_(codes * counts[:, None])
        oracle._codebook.embed.copy_(codes)
        oracle._codebook.cluster_size.copy_(counts)
        oracle._codebook.embed_avg.copy_(codes * counts[:, None])
    return book, oracle


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_codes_and_vectors(distance):
    book, oracle = pair(distance=distance)
    z = torch.randn(SHAPE)
    quantized, codes, _ = oracle.eval()(z)
    found = book.eval()(z)
    assert torch.equal(found.codes, codes)
    torch.testing.assert_close(found.z, quantized)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_the_gradient_passes_as_theirs(gradient):
    """Their rotation trick is ours: same value, same gradient in z."""
    book, oracle = pair(gradient)
    z, weight = torch.randn(SHAPE), torch.randn(SHAPE)
    gradients = []
    for quantise in (lambda v: book(v).z, lambda v: oracle(v, freeze_codebook=True)[0]):
        leaf = z.clone().requires_grad_()
        (quantise(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_the_commitment_loss_is_their_mean_times_the_number_of_entries():
    book, oracle = pair()
    z = torch.randn(SHAPE)
    *_, loss = oracle(z, freeze_codebook=True)
    torch.testing.assert_close(book(z).losses["commitment"].mean(), loss.sum() * z[0].numel())


def test_five_updates_of_the_averages():
    book, oracle = pair()
    for _ in range(5):
        z = torch.randn(SHAPE)
        oracle(z)
        book.update(z)
        torch.testing.assert_close(book.counts, oracle._codebook.cluster_size[0])
        torch.testing.assert_close(book.sums, oracle._codebook.embed_avg[0])
        torch.testing.assert_close(book.embedding, oracle._codebook.embed[0])


def test_residual_codes():
    ours = ResidualVQ(K, D, num_quantizers=3, restart_below=0.0).build().eval()
    oracle = theirs.ResidualVQ(dim=D, codebook_size=K, num_quantizers=3, kmeans_init=False).eval()
    for number, (book, layer) in enumerate(zip(ours.codebooks, oracle.layers, strict=True)):
        torch.nn.init.normal_(book.embedding, std=0.5**number)
        layer._codebook.embed.data.copy_(book.embedding)
    z = torch.randn(SHAPE)
    vectors, codes, _ = oracle(vectors_of(z)[None])
    found = ours(z)
    assert torch.equal(found.codes, codes[0].unflatten(0, (3, 2, 5)).movedim(-1, 1))
    torch.testing.assert_close(vectors_of(found.z), vectors[0])
    torch.testing.assert_close(vectors_of(ours.embed(found.codes)), vectors[0])


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3, 4, 7, 6)])
def test_finite_scalars(levels):
    ours, oracle = FSQ(levels).build(), theirs.FSQ(list(levels))
    z = 2 * torch.randn(SHAPE)
    quantized, codes = oracle(z)
    found = ours(z)
    assert torch.equal(found.codes, codes.long())
    torch.testing.assert_close(found.z, quantized)
    torch.testing.assert_close(ours.embed(found.codes), oracle.indices_to_codes(codes))
    assert ours.num_codes == oracle.codebook_size


def test_signs():
    """Their bits stand in the other order, and their entropies are means over positions."""
    spec = LFQ(D, commitment_cost=0.0, entropy_weight=1.0, diversity=0.7, inverse_temperature=1.0)
    ours = spec.build().train()
    oracle = theirs.LFQ(
        dim=D, codebook_size=2**D, entropy_loss_weight=1.0, diversity_gamma=0.7, commitment_loss_weight=0.0
    ).train()
    z = torch.randn(SHAPE)
    (quantized, codes, loss), parts = oracle(z, inv_temperature=1.0, return_loss_breakdown=True)
    found = ours(z)
    torch.testing.assert_close(found.z, quantized)
    bits = codes[..., None] >> torch.arange(D) & 1
    assert torch.equal(found.codes, (bits * 2 ** torch.arange(D).flip(0)).sum(-1))
    certainty, usage = ours.entropies(z)
    torch.testing.assert_close(certainty.mean() / 10, parts.per_sample_entropy)
    torch.testing.assert_close(usage, parts.batch_entropy)
    torch.testing.assert_close(found.losses["entropy"].mean() / 10, loss)
