"""The U-Net VAE: what its skips may carry, contexts, videos; and that no feature of x gets past the latents."""

import pytest
import torch

from vaebench.core import Batch
from vaebench.distributions.likelihoods import Bernoulli, DiscretizedLogistic, LogisticMixture
from vaebench.models import UNetVAE
from vaebench.networks import MLP, UNet

NETWORK = UNet(base_channels=4)
PICTURE, VIDEO = (1, 8, 8), (3, 1, 8, 8)


def _model(shape=PICTURE, seed=0, **arguments):
    torch.manual_seed(seed)
    model = UNetVAE(shape, **{"latent_dim": 3, "network": NETWORK, "likelihood": "bernoulli", **arguments})
    for parameter in model.parameters():  # zero-initialised layers would hide what they do
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def _x(shape, num=4, seed=1):
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(seed)).round()


class _Split:
    def __init__(self, batch):
        self._batch = batch

    def __len__(self):
        return len(self._batch)

    def batch(self, indices):
        return self._batch[indices]


def _decoded(model, x, y=None):
    """Parameters of p(x|z) at one z, after the encoder has seen x."""
    q = model.posterior(x, y)
    z = torch.linspace(-1, 1, model.latent_dim).expand(len(x), -1)
    p = model.likelihood(z, y)
    return q, p.mean


class TestSkips:
    @pytest.mark.parametrize("mode", ["none", "stochastic"])
    @pytest.mark.parametrize("shape", [PICTURE, VIDEO])
    def test_features_of_x_do_not_reach_the_decoder_past_the_latents(self, mode, shape):
        model = _model(shape, skip_mode=mode)
        (q, first), (r, second) = (_decoded(model, _x(shape, seed=seed)) for seed in (1, 2))
        assert not torch.allclose(q.mean, r.mean)
        assert torch.equal(first, second)

    def test_deterministic_ones_do_and_it_says_what_that_costs(self):
        model, x = _model(skip_mode="deterministic"), _x(PICTURE)
        assert model.capabilities == {"posterior"}
        for capability, word in {"likelihood": "exist", "prior": "no picture", "rate": "bounds nothing"}.items():
            assert word in model.reason_against(capability)
            assert "model.skip_mode=none or stochastic" in model.reason_against(capability)
        for refused in (
            lambda: model.sample(2),
            lambda: model.decode(torch.zeros(2, 3)),
            lambda: model.distortion_and_rate(x),
            lambda: model.log_weights(x, 2),
        ):
            with pytest.raises(ValueError, match=r"model UNetVAE has no \w+: its skip connections carry features of x"):
                refused()
        assert model.reconstruct(x).shape == x.shape
        # With the same latent another picture is decoded otherwise.
        levels = [model.encoder.with_levels(_x(PICTURE, seed=seed))[1] for seed in (1, 2)]
        z = torch.zeros(4, 3)
        first, second = (model._with_skips_of_x(z, level, None).mean for level in levels)
        assert not torch.allclose(first, second)

    def test_deterministic_loss_is_that_of_one_pass(self):
        model, x = _model(skip_mode="deterministic"), _x(PICTURE)
        calls = []
        model.encoder.trunk.stem.register_forward_hook(lambda *_: calls.append(1))
        loss = model.loss(Batch(x), 0)
        assert len(calls) == 1
        assert loss.total.item() == pytest.approx((loss.terms["distortion"] + loss.terms["rate"]).item())
        assert model.validation_loss(Batch(x), 0).terms.keys() == loss.terms.keys()

    @pytest.mark.parametrize("shape", [PICTURE, VIDEO])
    def test_stochastic_ones_have_a_rate_for_each_level(self, shape):
        model, x = _model(shape, skip_mode="stochastic", skip_channels=2), _x(shape)
        frames = shape[0] if len(shape) == 4 else 1
        assert model.encoder.group_shapes == {"z": (3,), "C3": (2, 2, 2), "C2": (2, 4, 4)}
        assert model.group_sizes == [frames * 3, frames * 8, frames * 32]
        assert sum(model.group_sizes) == model.latent_dim
        torch.manual_seed(2)
        loss = model.loss(Batch(x), 0)
        assert list(loss.terms) == ["distortion", "rate", "rate_group_0", "rate_group_1", "rate_group_2"]
        parts = sum(loss.terms[f"rate_group_{number}"] for number in range(3))
        torch.testing.assert_close(parts, loss.terms["rate"])
        torch.manual_seed(2)
        distortion, rate = model.distortion_and_rate(x)
        torch.testing.assert_close(loss.total, (distortion + rate).mean())
        rates = model.group_terms(x)[1]
        q = model.posterior(x)
        mean, log_var = (t[:, : frames * 3] for t in q)
        torch.testing.assert_close(rates[:, 0], 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1))
        torch.testing.assert_close(rates.sum(-1), model.rate(q, model.prior(), q.mean)[0])
        assert "groups" in model.capabilities
        assert model.sample(2, temperature=[1.0, 0.0, 0.5]).shape == (2, *shape)

    def test_every_group_changes_the_picture(self):
        model = _model(skip_mode="stochastic")
        z = torch.zeros(1, model.latent_dim)
        start = 0
        for size in model.group_sizes:
            other = z.clone()
            other[:, start : start + size] = 1
            assert not torch.allclose(model.decode(other), model.decode(z))
            start += size

    def test_each_map_of_latents_enters_at_its_own_level(self):
        model = _model(skip_mode="stochastic", skip_channels=1)
        calls = {}
        for name, layer in model.decoder.trunk.fuse.items():
            layer.register_forward_hook(lambda _, args, __, name=name: calls.update({name: args[0]}))
        z = torch.arange(float(model.latent_dim))[None]
        model.decode(z)
        assert calls["C3"].flatten().tolist() == list(range(3, 7))
        assert calls["C2"].flatten().tolist() == list(range(7, 23))

    def test_of_context_pictures_make_a_conditional_model(self):
        model, x, y = _model(skip_mode="context", context="data", context_dim=2), _x(PICTURE), _x((2, 8, 8))
        z = torch.zeros(4, 3)
        assert not torch.allclose(model.decode(z, y), model.decode(z, 1 - y))
        several = model.decode(z.expand(5, 4, 3), y)
        torch.testing.assert_close(several[3], model.decode(z, y))
        _, first = _decoded(model, x, y)
        assert torch.equal(first, _decoded(model, 1 - x, y)[1])
        model.before_training(_Split(Batch(x, y)))
        assert model.sample(3).shape == (3, *PICTURE)


class TestVideos:
    @pytest.mark.parametrize("mode", ["none", "stochastic"])
    def test_frames_are_independent_given_their_latents(self, mode):
        model, x = _model(VIDEO, skip_mode=mode), _x(VIDEO)
        q = model.posterior(x)
        other = x.clone()
        other[:, 1] = 1 - other[:, 1]
        changed = model.posterior(other).mean != q.mean
        start = 0
        for size in model.group_sizes:
            by_frame = changed[:, start : start + size].unflatten(1, (3, -1)).any(-1)
            assert by_frame.tolist() == [[False, True, False]] * 4
            start += size
        z = q.mean
        pictures = model.decode(z)
        assert pictures.shape == x.shape
        moved = z.clone()
        moved[:, 3:6] += 1  # z of the frame in the middle
        same = (model.decode(moved) == pictures).flatten(2).all(-1)
        assert same.tolist() == [[True, False, True]] * 4

    def test_likelihood_is_the_sum_over_frames(self):
        model, x = _model(VIDEO), _x(VIDEO)
        z = model.posterior(x).sample((2,))
        params = model.decoder(z.flatten(0, 1)).unflatten(0, (2, 4))
        expected = Bernoulli()(params, 3).log_prob(x).sum(-1)
        torch.testing.assert_close(model.likelihood(z).log_prob(x), expected)

    def test_context_is_the_frame_before(self):
        model, x = _model(VIDEO, skip_mode="context"), _x(VIDEO)
        z = model.posterior(x).sample((2,))
        p = model.likelihood(z)
        # Frame by frame, from the definition.
        total = 0
        for t in range(3):
            before = torch.zeros_like(x[:, 0]) if t == 0 else x[:, t - 1]
            levels = model.context_encoder.features(before)
            for k in range(2):
                params = model.decoder.trunk(z[k].unflatten(1, (3, 3))[:, t], skips=levels)
                total = total + torch.stack([Bernoulli()(params, 3).log_prob(x[:, t]) * (j == k) for j in range(2)])
        torch.testing.assert_close(p.log_prob(x), total)
        # A later frame never changes the density of an earlier one.
        flipped = x.clone()
        flipped[:, 2] = 1 - flipped[:, 2]
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        by_frame = [p._given(b, slice(None)).log_prob(v)[..., :2] for b, v in ((before, x), (before, flipped))]
        torch.testing.assert_close(*by_frame)

    def test_mean_and_draws_go_from_frame_to_frame(self):
        model = _model(VIDEO, skip_mode="context")
        z = torch.randn(2, 9)
        p = model.likelihood(z)
        frame = torch.zeros(2, 1, 8, 8)
        for t in range(3):
            params = model.decoder.trunk(z.unflatten(1, (3, 3))[:, t], skips=model.context_encoder.features(frame))
            frame = params.sigmoid()
            torch.testing.assert_close(p.mean[:, t], frame)
        assert p.sample().shape == (2, *VIDEO)
        assert p.sample((5,)).shape == (5, 2, *VIDEO)
        assert set(p.sample().unique().tolist()) <= {0.0, 1.0}

    def test_contexts_change_over_time(self):
        model, x = _model(VIDEO, context="data", context_dim=2), _x(VIDEO)
        over_time = torch.randn(4, 3, 2)
        other = over_time.clone()
        other[:, 1] += 1
        z = model.posterior(x, over_time).mean
        changed = (model.decode(z, other) != model.decode(z, over_time)).flatten(2).any(-1)
        assert changed.tolist() == [[False, True, False]] * 4
        constant = torch.randn(4, 2)
        torch.testing.assert_close(model.decode(z, constant), model.decode(z, constant[:, None].expand(-1, 3, -1)))
        model.before_training(_Split(Batch(x, over_time)))
        drawn = model.draw_labels(20)
        assert drawn.shape == (20, 3, 2)
        assert all(any(torch.equal(row, known) for known in over_time) for row in drawn)

    @pytest.mark.parametrize("likelihood", [DiscretizedLogistic(4), LogisticMixture(4, 2)])
    def test_any_likelihood(self, likelihood):
        shape = (2, 3, 4, 4)
        model = _model(shape, likelihood=likelihood)
        x = torch.randint(0, 4, (5, *shape)) / 3
        assert model.loss(Batch(x), 0).total.isfinite()
        assert model.sample(2).shape == (2, *shape)
        assert model.log_weights(x, 3).shape == (3, 5)


class TestContexts:
    def test_labels_reach_all_of_the_model(self):
        model, x, y = _model(context="labels", num_classes=3), _x(PICTURE), torch.tensor([0, 1, 2, 0])
        other = torch.tensor([0, 1, 1, 0])
        changed = model.posterior(x, y).mean != model.posterior(x, other).mean
        assert changed.any(-1).tolist() == [False, False, True, False]
        model.loss(Batch(x, y), 0).total.backward()
        assert (model.contexts.embedding.table.weight.grad.abs().sum(1) > 0).all()
        with pytest.raises(ValueError, match="nothing is known of contexts before training; give y="):
            model.draw_labels(2)
        model.before_training(_Split(Batch(x, y)))
        assert model.num_classes == 3  # what `vaebench sample sampler.y=` asks
        counts = model.draw_labels(4000).bincount(minlength=3) / 4000
        torch.testing.assert_close(counts, torch.tensor([0.5, 0.25, 0.25]), rtol=0, atol=0.04)

    def test_film_is_the_identity_at_first(self):
        torch.manual_seed(0)
        model = UNetVAE(PICTURE, context="data", context_dim=2, latent_dim=3, network=NETWORK, likelihood="bernoulli")
        z = torch.randn(4, 3)
        assert torch.equal(model.decode(z, torch.zeros(4, 2)), model.decode(z, torch.ones(4, 2)))


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda: _model(skip_mode="determ"), "skip_mode: unknown name 'determ'; did you mean 'deterministic'"),
        (lambda: _model(context="label"), "context: unknown name 'label'; did you mean 'labels'"),
        (lambda: _model(skip_mode="context"), "skip_mode: with 'context' the skips are those of the frame before, or"),
        (lambda: _model(context="labels"), "context: 'labels' needs labels, and the data have none"),
        (lambda: _model(network=MLP()), "network: UNetVAE needs network=unet; got MLP"),
        (lambda: _model((12,)), r"takes images \(C, H, W\) or videos .*, got examples of shape \(12,\)"),
        (lambda: _model(latent_dim=0), "latent_dim must be a whole number of at least 1; got 0"),
        (lambda: _model(network=UNet(num_levels=5)), "a picture of 8x8 is too small for 5 levels"),
        (
            lambda: _model(context="data", context_dim=2).posterior(_x(PICTURE)),
            "with context=data each example needs one; give y=",
        ),
        (
            lambda: _model(context="data", context_dim=2).posterior(_x(PICTURE), torch.zeros(4, 5)),
            r"expected contexts of shape \(4, 2\), got \(4, 5\); model.context_dim is their width",
        ),
        (
            lambda: _model(VIDEO, context="data", context_dim=2).posterior(_x(VIDEO), torch.zeros(4, 2, 2)),
            r"of shape \(4, 2\) or \(4, 3, 2\), got \(4, 2, 2\)",
        ),
        (
            lambda: _model(context="data").before_training(_Split(Batch(_x(PICTURE)))),
            "model.context=data needs contexts, and the data have none; set dataset.context_key",
        ),
        (
            lambda: _model(context="labels", num_classes=2).before_training(_Split(Batch(_x(PICTURE)))),
            "model.context=labels needs labels, and the data have none",
        ),
    ],
)
def test_refuses(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        mistake()
