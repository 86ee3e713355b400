"""The vector quantiser: nearest codes, gradients, averages, restarts."""

import math

import pytest
import torch

from vaebench.distributions.quantizers.quantizer import perplexity, rotation, straight_through, vectors_of
from vaebench.distributions.quantizers.residual_vq import ResidualVQ
from vaebench.distributions.quantizers.vq import VectorQuantizer

SMALL = {"num_embeddings": 7, "embedding_dim": 3}


def spread(book):
    """Codes that are apart, with averages that agree with them."""
    torch.nn.init.normal_(book.embedding)
    book.sums.copy_(book.embedding.detach())
    return book


def grid(n=4, dim=3, h=2, w=5):
    return torch.randn(n, dim, h, w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_nearest_code_is_the_brute_force_one(distance, dtype):
    book = spread(VectorQuantizer(64, 8, distance=distance).build()).to(dtype)
    z = torch.randn(50, 8, 3, 3, dtype=dtype)
    rows, codes = vectors_of(z).double(), book.embedding.double()
    if distance == "cosine":
        rows, codes = (v / v.norm(dim=1, keepdim=True) for v in (rows, codes))
    squared = (rows[:, None] - codes[None]).square().sum(-1)
    found = book(z).codes.flatten()
    two = squared.topk(2, largest=False).values
    is_clear = two[:, 1] - two[:, 0] > (1e-5 if dtype == torch.float32 else 1e-12)
    assert is_clear.float().mean() > 0.9
    assert torch.equal(found[is_clear], squared.argmin(1)[is_clear])


def test_positions_keep_their_place():
    book = spread(VectorQuantizer(**SMALL).build())
    codes = torch.randint(7, (4, 2, 5))
    z = book.embed(codes)
    assert z.shape == (4, 3, 2, 5)
    assert torch.equal(z[1, :, 0, 3], book.embedding[codes[1, 0, 3]])
    assert torch.equal(book(z).codes, codes)


def test_straight_through_passes_the_gradient_as_it_is():
    z, code = grid().requires_grad_(), grid()
    weight = grid()
    out = straight_through(z, code)
    torch.testing.assert_close(out, code)
    (out * weight).sum().backward()
    assert torch.equal(z.grad, weight)


def test_rotation_returns_the_code_and_turns_the_gradient():
    z, code = grid().double().requires_grad_(), grid().double()
    weight = grid().double()
    out = rotation(z, code)
    torch.testing.assert_close(out, code)
    (gradient,) = torch.autograd.grad((out * weight).sum(), z)
    scale = code.norm(dim=1) / z.norm(dim=1)
    torch.testing.assert_close(gradient.norm(dim=1), scale * weight.norm(dim=1))  # a rotation and a scaling
    cosine = torch.cosine_similarity
    torch.testing.assert_close(cosine(gradient, z, dim=1), cosine(weight, code, dim=1))  # angles are kept


def test_losses_are_sums_over_positions_and_channels_with_stops_on_the_right_side():
    spec = VectorQuantizer(**SMALL, update="gradient", commitment_cost=0.5)
    book, z = spread(spec.build()), grid().requires_grad_()
    quantized = book(z)
    code = book.embed(quantized.codes)
    squared = (z - code).square().sum((1, 2, 3))
    torch.testing.assert_close(quantized.losses["commitment"], 0.5 * squared)
    torch.testing.assert_close(quantized.losses["codebook"], squared)
    commitment = torch.autograd.grad(quantized.losses["commitment"].sum(), z, retain_graph=True)[0]
    torch.testing.assert_close(commitment, (z - code).detach())  # 0.5 * 2 (z - e)
    to_z, to_code = torch.autograd.grad(
        quantized.losses["codebook"].sum(), (z, book.embedding), allow_unused=True, retain_graph=True
    )
    assert to_z is None
    expected = torch.zeros(7, 3).index_add_(0, quantized.codes.flatten(), -2 * vectors_of(z - code).detach())
    torch.testing.assert_close(to_code, expected)
    assert torch.autograd.grad(quantized.losses["commitment"].sum(), book.embedding, allow_unused=True) == (None,)


def test_losses_of_an_example_do_not_depend_on_its_batch():
    book, z = spread(VectorQuantizer(**SMALL, update="gradient").build()), grid(6)
    whole = book(z)
    for name, loss in whole.losses.items():
        torch.testing.assert_close(loss, torch.cat([book(one).losses[name] for one in z.split(1)]))


def test_averages_follow_the_recurrence():
    spec = VectorQuantizer(**SMALL, decay=0.9, epsilon=1e-3, restart_below=0)
    book = spread(spec.build()).double()
    counts, sums, codes = torch.ones(7).double(), book.embedding.clone(), book.embedding.clone()
    for _ in range(5):
        z = grid().double()
        rows = vectors_of(z)
        chosen = (rows[:, None] - codes[None]).square().sum(-1).argmin(1)
        for k in range(7):
            counts[k] = 0.9 * counts[k] + 0.1 * (chosen == k).sum()
            sums[k] = 0.9 * sums[k] + 0.1 * rows[chosen == k].sum(0)
        smoothed = (counts + 1e-3) / (counts.sum() + 7 * 1e-3) * counts.sum()
        codes = sums / smoothed[:, None]
        book.update(z)
        torch.testing.assert_close(book.counts, counts)  # kept without smoothing
        torch.testing.assert_close(book.embedding, codes)


def test_with_gradients_the_codes_are_left_to_the_optimiser():
    book = spread(VectorQuantizer(**SMALL, update="gradient").build())
    before = book.embedding.detach().clone()
    book.update(grid())
    assert torch.equal(book.embedding, before)
    assert isinstance(book.embedding, torch.nn.Parameter)
    assert not list(VectorQuantizer(**SMALL).build().parameters())


def test_few_vectors_for_many_codes_restart_only_what_is_hardly_used():
    book = spread(VectorQuantizer(8, 3, restart_below=2.0, decay=0.5).build())
    with torch.no_grad():
        book.counts.copy_(torch.tensor([0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.02]))
        book.sums.copy_(book.counts[:, None] * book.embedding)
    before = book.embedding.clone()
    vectors = torch.cat([before[:4], before[:1]])  # five vectors, eight codes: a mean use of about 0.6
    book.update(vectors.T[None, :, None])
    moved = (book.embedding - before).abs().amax(1) > 1e-3
    assert moved.tolist() == [False] * 7 + [True]


def test_many_vectors_for_few_codes_restart_what_is_below_the_threshold_alone():
    book = spread(VectorQuantizer(4, 3, restart_below=2.0, decay=0.5).build())
    with torch.no_grad():
        book.counts.copy_(torch.tensor([100.0, 100.0, 12.0, 1.0]))  # a quarter of the mean use is 13
        book.sums.copy_(book.counts[:, None] * book.embedding)
    before = book.embedding.clone()
    vectors = before[:3].repeat_interleave(torch.tensor([100, 100, 12]), 0)
    book.update(vectors.T[None, :, None])
    moved = (book.embedding - before).abs().amax(1) > 1e-3
    assert moved.tolist() == [False] * 3 + [True]


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_restarted_codes_are_vectors_of_the_batch_and_alive_after_the_next_update(update):
    book = spread(VectorQuantizer(**SMALL, restart_below=0.5, update=update).build())
    with torch.no_grad():
        book.embedding[3] = 1e3  # nothing is near it
    book.sums[3], book.counts[3] = 1e3 * 0.1, 0.1
    z = grid(8)
    book.update(z)
    rows = vectors_of(z)
    is_row = (book.embedding[3] == rows).all(1)
    assert is_row.sum() == 1
    revived = book.embedding[3].detach().clone()
    book.update(grid(8))
    torch.testing.assert_close(book.embedding[3].norm(), revived.norm(), rtol=0.5, atol=0.5)
    assert book.counts[3] > 0.5
    assert (book(rows[is_row].reshape(1, 3, 1, 1)).codes == 3).all()


def test_k_means_places_codes_in_clusters():
    centres = 10 * torch.eye(4)
    z = (centres.repeat(50, 1) + 0.1 * torch.randn(200, 4)).reshape(200, 4, 1, 1)
    book = VectorQuantizer(4, 4, kmeans_iterations=30).build()
    torch.manual_seed(3)
    book.start(z)
    error = (book(z).z - z).square().mean()
    assert error < 30
    unstarted = VectorQuantizer(4, 4).build()
    assert error < 0.5 * (unstarted(z).z - z).square().mean()
    before = unstarted.embedding.clone()
    unstarted.start(z)
    assert torch.equal(unstarted.embedding, before)


def test_perplexity_of_uniform_usage_is_the_number_of_codes():
    assert perplexity(torch.arange(12).repeat(3).reshape(4, 3, 3), 12).item() == pytest.approx(12, rel=1e-5)
    assert perplexity(torch.zeros(4, 3, 3, dtype=torch.long), 12).item() == pytest.approx(1)
    half = perplexity(torch.tensor([0, 0, 1, 2]), 3).item()
    assert half == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


def test_residual_codes_add_up_and_each_book_takes_what_is_left():
    quantizer = ResidualVQ(**SMALL, num_quantizers=3, update="gradient").build()
    for book in quantizer.books:
        spread(book)
    z = grid()
    quantized = quantizer(z)
    assert quantized.codes.shape == (4, 3, 2, 5)
    left, total = z, torch.zeros_like(z)
    for i, book in enumerate(quantizer.books):
        assert torch.equal(quantized.codes[:, i], book(left).codes)
        code = book.embed(quantized.codes[:, i])
        left, total = left - code, total + code
    torch.testing.assert_close(quantized.z, total)
    torch.testing.assert_close(quantizer.embed(quantized.codes), total)
    torch.testing.assert_close(
        quantized.losses["codebook"].sum(),
        sum(
            book(r).losses["codebook"].sum() for book, r in zip(quantizer.books, _residuals(quantizer, z), strict=True)
        ),
    )


def _residuals(quantizer, z):
    found = []
    for book in quantizer.books:
        found.append(z)
        z = z - book.embed(book(z).codes).detach()
    return found


def test_quantizer_dropout_uses_the_first_books_in_training_only():
    quantizer = ResidualVQ(**SMALL, num_quantizers=3, quantizer_dropout=True).build()
    for book in quantizer.books:
        spread(book)
    z = grid()
    partial = [quantizer.books[0].embed(quantizer(z).codes[:, 0])]
    for i in (1, 2):
        partial.append(partial[-1] + quantizer.books[i].embed(quantizer(z).codes[:, i]))
    torch.manual_seed(0)
    used = set()
    for _ in range(20):
        out = quantizer(z).z
        used |= {i for i in range(3) if torch.allclose(out, partial[i], atol=1e-5)}
    assert used == {0, 1, 2}
    torch.testing.assert_close(quantizer.eval()(z).z, partial[2])


def test_each_book_is_updated_by_its_residuals():
    quantizer = ResidualVQ(**SMALL, num_quantizers=2, restart_below=0).build()
    for book in quantizer.books:
        spread(book)
    z = grid()
    _, second = _residuals(quantizer, z)
    expected = VectorQuantizer(**SMALL, restart_below=0).build()
    expected.load_state_dict(quantizer.books[1].state_dict())
    expected.update(second)
    quantizer.update(z)
    torch.testing.assert_close(quantizer.books[1].embedding, expected.embedding)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_embeddings": 1}, "num_embeddings must be a whole number of at least 2; got 1"),
        ({"embedding_dim": 0}, "embedding_dim must be a whole number of at least 1; got 0"),
        ({"commitment_cost": -1}, "commitment_cost must be at least 0"),
        ({"decay": 1}, "decay must be at least 0 and below 1; got 1"),
        ({"update": "emma"}, r"update: unknown name 'emma'; did you mean 'ema'\?"),
        ({"distance": "cos"}, "distance: unknown name 'cos'"),
        ({"gradient": "rotate"}, "gradient: unknown name 'rotate'"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        VectorQuantizer(**arguments)


def test_residuals_have_no_cosine():
    with pytest.raises(ValueError, match="distance must be euclidean: residuals have no constant length; got cosine"):
        ResidualVQ(distance="cosine")
    with pytest.raises(ValueError, match="num_quantizers must be a whole number of at least 1; got 0"):
        ResidualVQ(num_quantizers=0)
