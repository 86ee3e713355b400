"""The conditional VAE: every form of label, an exact toy for log p(x|y) and log p(x), dropout and the learned prior."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaebench.core import Batch
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Gaussian
from vaebench.distributions.priors import ConditionalGaussianPrior
from vaebench.metrics.importance_bound import ImportanceBound
from vaebench.models.conditional_vae import ConditionalVAE
from vaebench.models.vae import VAE
from vaebench.networks import MLP

SHAPE = (1, 4, 5)
SIGMA, BOUND = 0.7, 10.0


def make(**arguments):
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "network": MLP(hidden_dims=(16,)), **arguments}
    return ConditionalVAE(SHAPE, likelihood="bernoulli", latent_dim=2, **arguments)


@pytest.fixture
def x():
    return torch.rand(6, *SHAPE).round()


@pytest.fixture
def y():
    return torch.tensor([0, 1, 2, 2, 1, 0])


def train_split(y):
    return DataSplit(torch.zeros(len(y), *SHAPE), y)


@pytest.mark.parametrize("condition_type", ["concat", "film", "add"])
def test_integers_of_any_type_and_one_hot_vectors_are_the_same_to_the_bit(x, y, condition_type):
    model = make(condition_type=condition_type, label_dropout=0.5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    expected = model.encode(x, y).mean
    one_hot = torch.nn.functional.one_hot(y, 3)
    for form in (y.to(torch.uint8), y.int(), y.short(), y.char(), one_hot, one_hot.float()):
        assert torch.equal(model.encode(x, form).mean, expected)
    soft = 0.5 * one_hot + 0.5 * one_hot.roll(1, 1)
    assert not torch.equal(model.encode(x, soft).mean, expected)
    assert not torch.equal(model.encode(x, y.roll(1)).mean, expected)
    z = torch.randn(6, 2)
    assert torch.equal(model.decode(z, one_hot), model.decode(z, y))
    assert torch.equal(model.decode(z, 2), model.decode(z, torch.full((6,), 2)))


def test_a_label_vector_enters_linearly():
    model = make(num_classes=None, condition_dim=4, embed_dim=5)
    vectors = torch.randn(6, 4)
    context = model.context(vectors, 6)
    torch.testing.assert_close(context, vectors @ model.embedding.table.weight)
    torch.testing.assert_close(model.context(2 * vectors, 6), 2 * context)


def test_film_starts_as_the_model_without_labels(x, y):
    torch.manual_seed(5)
    vae = VAE(SHAPE, likelihood="bernoulli", latent_dim=2, network=MLP(hidden_dims=(16,)))
    torch.manual_seed(5)
    model = ConditionalVAE(
        SHAPE,
        likelihood="bernoulli",
        latent_dim=2,
        network=MLP(hidden_dims=(16,)),
        num_classes=3,
        condition_type="film",
    )
    assert torch.equal(model.encode(x, y).mean, vae.encode(x).mean)
    z = torch.randn(6, 2)
    assert torch.equal(model.decode(z, y), vae.decode(z))


@pytest.mark.parametrize("embed_dim", [16, 64])
def test_with_film_a_label_decides_what_is_drawn_after_few_steps(embed_dim):
    torch.manual_seed(0)
    pictures, labels = torch.rand(5, 64).round() * 0.9 + 0.05, torch.arange(5).repeat_interleave(100)
    model = ConditionalVAE(
        (64,),
        likelihood="continuous_bernoulli",
        latent_dim=4,
        network=MLP((128,)),
        num_classes=5,
        condition_type="film",
        embed_dim=embed_dim,
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(60):
        y = torch.randint(5, (64,))
        model.loss(Batch(pictures[y], y), step).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    drawn = torch.cdist(model.sample(500, y=labels), pictures).argmin(1)
    assert (drawn == labels).double().mean() > 0.97  # 0.9 if scales learn as fast as shifts


def test_labels_of_several_draws_belong_to_their_examples(x, y):
    model, z = make(), torch.randn(4, 6, 2)
    decoded = model.decode(z, y)
    torch.testing.assert_close(decoded[3, 2], model.decode(z[3, 2:3], y[2:3])[0])
    log_joint = model.log_joint(x, z, y)
    torch.testing.assert_close(log_joint[1, 4], model.log_joint(x[4:5], z[1, 4:5], y[4:5])[0])


def exact_toy():
    """x = m_y + W z + sigma eps: for each class a shifted linear-Gaussian model with its exact posterior."""
    torch.manual_seed(0)
    W = torch.linalg.qr(torch.randn(6, 2).double()).Q * torch.tensor([2.0, 0.5])
    means = torch.randn(3, 6).double()
    variance = 1 / (1 + (W**2).sum(0) / SIGMA**2)
    slope = variance[:, None] * W.T / SIGMA**2
    model = ConditionalVAE(
        (6,), likelihood=Gaussian(SIGMA), latent_dim=2, network=MLP(hidden_dims=()), num_classes=3, embed_dim=3
    ).double()
    with torch.no_grad():
        model.embedding.table.weight.copy_(torch.eye(3))
        model.decoder[1].weight.copy_(torch.cat([W, means.T], 1))
        model.decoder[1].bias.zero_()
        rows = torch.cat([slope, -slope @ means.T], 1)
        model.posterior_head.linear.weight.copy_(torch.cat([rows, torch.zeros_like(rows)]))
        raw = BOUND * torch.atanh(variance.log() / BOUND)
        model.posterior_head.linear.bias.copy_(torch.cat([torch.zeros_like(raw), raw]))
        model.label_frequencies.copy_(torch.tensor([0.5, 0.3, 0.2]))
    covariance = W @ W.T + SIGMA**2 * torch.eye(6).double()
    return model, [MultivariateNormal(mean, covariance) for mean in means]


def test_at_the_exact_posterior_each_log_weight_is_log_p_of_x_given_y(y):
    model, exact = exact_toy()
    x = torch.randn(6, 6).double()
    log_p = torch.stack([exact[int(label)].log_prob(row) for row, label in zip(x, y, strict=True)])
    torch.testing.assert_close(model.log_weights(x, 4, y), log_p.expand(4, 6), rtol=1e-6, atol=1e-6)


def test_without_labels_the_weights_sum_over_the_classes():
    model, exact = exact_toy()
    x = torch.randn(6, 6).double()
    log_prior = model.label_frequencies.log()
    log_p = torch.stack([p.log_prob(x) for p in exact]) + log_prior[:, None]
    found = model.log_weights_without_labels(x, 4)
    torch.testing.assert_close(found, log_p.logsumexp(0).expand(4, 6), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [50, 2])
def test_evaluation_reports_log_p_with_and_without_the_label(chunk_size):
    model, exact = exact_toy()
    x, y = torch.randn(9, 6).double(), torch.arange(9) % 3
    result = ImportanceBound(12, chunk_size)(model, DataSplit(x, y), batch_size=4)
    log_p = torch.stack([p.log_prob(x) for p in exact])
    values = {name: estimate.value for name, estimate in result.values.items()}
    assert values["importance_bound_12_nats"] == pytest.approx(log_p[y, torch.arange(9)].mean().item())
    total = (log_p + model.label_frequencies.log()[:, None]).logsumexp(0)
    assert values["importance_bound_12_any_label_nats"] == pytest.approx(total.mean().item())
    assert "any_label of log p(x)" in result.how
    model.label_frequencies.zero_()  # before training nobody knows them
    assert "importance_bound_12_any_label_nats" not in ImportanceBound(12)(model, DataSplit(x, y)).values


def test_the_loss_is_the_negative_elbo_given_the_labels(x, y):
    model = make()
    torch.manual_seed(1)
    loss = model.loss(Batch(x, y), 0)
    torch.manual_seed(1)
    mean, log_var = model.encode(x, y)
    z = mean + (log_var / 2).exp() * torch.randn(6, 2)
    rate = 0.5 * (mean**2 + log_var.exp() - log_var - 1).sum(1)
    by_hand = rate - model.likelihood(z, y).log_prob(x)
    torch.testing.assert_close(loss.total, by_hand.mean())


def test_gradients_reach_every_row_that_was_used_and_no_other(x):
    model = make(num_classes=5)
    model.loss(Batch(x, torch.tensor([0, 1, 3, 3, 1, 0])), 0).total.backward()
    used = model.embedding.table.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [True, True, False, True, False]


def test_a_learned_prior_moves_with_the_label(x, y):
    model = make(prior=ConditionalGaussianPrior())
    p = model.prior(y)
    assert p.batch_shape == (6,)
    assert not p.mean.any()  # it starts as N(0, I)
    assert torch.equal(p.log_var, torch.zeros(6, 2))
    with torch.no_grad():
        model.prior_head.linear.weight.normal_()
    p, q = model.prior(y), model.posterior(x, y)
    assert torch.equal(p.mean[0], p.mean[5])
    assert not torch.equal(p.mean[0], p.mean[1])
    by_torch = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.stddev), torch.distributions.Normal(p.mean, p.stddev)
    )
    torch.testing.assert_close(model.distortion_and_rate(x, y)[1], by_torch.sum(1))
    z = model.draw_from_prior(20_000, torch.full((20_000,), 1))
    assert ((z.mean(0) - p.mean[1]).abs() < 4 * p.stddev[1] / 20_000**0.5).all()
    assert model.sample(6, y=y).shape == (6, *SHAPE)


def test_dropped_labels_are_the_null_label_in_training_alone(x, y):
    model = make(label_dropout=0.3)
    null = model.embedding.table.weight[3]
    many, images = y.repeat(2_000), torch.zeros(12_000, 1)
    for form in (many, torch.nn.functional.one_hot(many, 3).float()):
        context = model.context(model._with_dropout(form, images), len(many))
        is_null = (context == null).all(1)
        assert abs(is_null.float().mean() - 0.3) < 4 * (0.21 / 12_000) ** 0.5
        assert torch.equal(context[~is_null], model.context(form, len(many))[~is_null])
    assert torch.equal(model.eval()._with_dropout(many, images), many)
    assert torch.equal(model.encode(x).mean, model.encode(x, torch.full((6,), 3)).mean)
    assert torch.equal(model.context(None, 2), null.expand(2, -1))
    model.train().loss(Batch(x.repeat(20, 1, 1, 1), y.repeat(20)), 0).total.backward()
    assert model.embedding.table.weight.grad[3].any()


def test_without_dropout_a_missing_label_is_refused(x, y):
    model = make()
    sentence = "ConditionalVAE needs labels: give y=, or train with label_dropout above 0"
    for call in (
        lambda: model.encode(x),
        lambda: model.decode(torch.randn(6, 2)),
        lambda: model.distortion_and_rate(x),
        lambda: model(x),
        lambda: model.loss_fn(x),
        lambda: model.interpolate(x[0], x[1]),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    for call in (lambda: model.loss(Batch(x), 0), lambda: model.before_training(DataSplit(x))):
        with pytest.raises(ValueError, match="ConditionalVAE learns from labels, and the data have none"):
            call()


def test_without_labels_samples_are_drawn_as_often_as_training_saw_them():
    model = make()
    with pytest.raises(ValueError, match="knows no frequencies of labels before training on classes"):
        model.sample(3)
    model.before_training(train_split(torch.tensor([0] * 5 + [2] * 15)))
    torch.testing.assert_close(model.label_frequencies, torch.tensor([0.25, 0.0, 0.75]))
    y = model.draw_labels(8_000)
    counts = torch.bincount(y, minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 2_000) < 4 * 1_500**0.5
    assert model.sample(3).shape == (3, *SHAPE)
    assert "label_frequencies" in model.state_dict()


def test_frequencies_of_soft_labels_are_their_mean_and_vectors_have_none():
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    split = type("S", (), {"__len__": lambda s: 2, "batch": lambda s, rows: SimpleNamespace(y=s.y[rows])})()
    split.y = soft
    model = make()
    model.before_training(split)
    torch.testing.assert_close(model.label_frequencies, torch.tensor([0.25, 0.5, 0.25]))
    split.y = torch.randn(2, 3)
    model.before_training(split)
    assert model.label_frequencies.isnan().all()
    with pytest.raises(ValueError, match="knows no frequencies"):
        model.draw_labels(2)


def test_samples_of_one_label_and_of_a_label_for_each():
    model = make().eval()
    torch.manual_seed(1)
    ones = model.sample(4, y=1)
    torch.manual_seed(1)
    z = torch.randn(4, 2)
    torch.testing.assert_close(ones, model.decode(z, torch.tensor([1, 1, 1, 1])))
    torch.manual_seed(1)
    torch.testing.assert_close(model.sample(3, y=[0, 1, 2]), model.decode(z[:3] * 0 + _normal(3), torch.arange(3)))
    path = model.interpolate(torch.zeros(SHAPE), torch.ones(SHAPE), steps=3, y=2)
    torch.testing.assert_close(path[:1], model.reconstruct(torch.zeros(1, *SHAPE), deterministic=True, y=2))


def _normal(num):
    torch.manual_seed(1)
    return torch.randn(num, 2)


def test_it_draws_the_class_that_was_asked_for():
    torch.manual_seed(0)
    prototypes = torch.rand(3, *SHAPE).round()
    y = torch.arange(120) % 3
    x = (prototypes[y] + (torch.rand(120, *SHAPE) < 0.05)) % 2
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        optimizer.zero_grad()
        model.loss(Batch(x, y), step).total.backward()
        optimizer.step()
    asked = torch.arange(60) % 3
    images = model.eval().sample(60, y=asked)
    nearest = (images[:, None] - prototypes).square().flatten(2).sum(-1).argmin(1)
    assert (nearest == asked).float().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: make(num_classes=None), "num_classes must be given, or condition_dim for label vectors"),
        (lambda x: make(condition_dim=4), "condition_dim must equal num_classes, which is 3; got 4"),
        (lambda x: make(num_classes=0), "num_classes must be a whole number of at least 1; got 0"),
        (lambda x: make(label_dropout=1.0), "label_dropout must be at least 0 and below 1; got 1"),
        (lambda x: make(embed_dim=0), "embed_dim must be a whole number of at least 1; got 0"),
        (lambda x: make(condition_type="concatt"), "unknown name 'concatt'; did you mean 'concat'"),
        (lambda x: make().encode(x, torch.full((6,), 3)), "expected labels from 0 to 2, got 3"),
        (lambda x: make().encode(x, -1), "expected labels from 0 to 2, got -1"),
        (
            lambda x: make().encode(x, torch.zeros(6, 4)),
            r"or as weights of shape \(B, 3\), got float32 of shape \(6, 4\)",
        ),
        (lambda x: make().encode(x, torch.zeros(6)), "expected labels as integers"),
        (lambda x: make().encode(x, torch.zeros(5, dtype=torch.long)), "expected a context of shape"),
        (
            lambda x: VAE(SHAPE, likelihood="bernoulli", prior=ConditionalGaussianPrior()),
            "prior: a prior for each label needs a model with labels; choose model=conditional_vae",
        ),
    ],
)
def test_refusals(x, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(x)


def test_log_frequencies_of_a_class_that_never_occurs_add_nothing():
    model, _ = exact_toy()
    with torch.no_grad():
        model.label_frequencies.copy_(torch.tensor([1.0, 0.0, 0.0]))
    x = torch.randn(2, 6).double()
    torch.manual_seed(1)
    found = model.log_weights_without_labels(x, 1)
    assert found.isfinite().all()
    torch.testing.assert_close(found, model.log_weights(x, 1, torch.zeros(2, dtype=torch.long)), rtol=1e-6, atol=1e-6)
    assert math.isinf(model.label_frequencies.log()[1])
