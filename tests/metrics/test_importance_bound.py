from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.metrics import linear_gaussian
from vaebench.core import Batch
from vaebench.metrics.bounds import importance_bound, ladder
from vaebench.metrics.elbo import ELBO
from vaebench.metrics.importance_bound import ImportanceBound


def test_every_weight_is_log_p_at_the_exact_posterior():
    model, split, exact = linear_gaussian.make()
    found = importance_bound(model, split.batch(torch.arange(len(split))), num_samples=120, chunk_size=7)
    assert list(found.bounds) == [1, 10, 100, 120]
    for bound in found.bounds.values():
        torch.testing.assert_close(bound, exact, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.effective_sample_size, torch.full_like(exact, 120.0), rtol=1e-9, atol=0)


def test_bounds_rise_from_the_elbo_to_log_p():
    model, split, exact = linear_gaussian.make(200, mean_shift=0.3, log_var_shift=0.8)
    found = importance_bound(model, split.batch(torch.arange(len(split))), num_samples=3000, chunk_size=500)
    # For a Gaussian posterior the gap of the ELBO is KL(q || exact posterior), here in closed form.
    w = torch.tensor(linear_gaussian.SCALES, dtype=torch.float64)
    variance = 1 / (1 + (w / linear_gaussian.SIGMA).square())
    gap = 0.5 * (math.exp(0.8) - 1 - 0.8 + 0.3**2 / variance).sum().item()

    def within(difference, expected, extra=0.0):
        error = difference.std().item() / math.sqrt(len(difference))
        return abs(difference.mean().item() - expected) < 4 * error + extra

    assert gap > 0.9
    assert within(exact - found.bounds[1], gap)
    assert within(exact - found.bounds[3000], 0.0, extra=0.01)
    for k in (1, 10, 100):
        rise = found.bounds[10 * k] - found.bounds[k]
        error = rise.std().item() / math.sqrt(len(rise))
        assert rise.mean().item() > (4 if k == 1 else -4) * error
    assert (found.effective_sample_size < 0.9 * 3000).all()

    # Given x only the distortion is random: 10,000 draws, each with a standard deviation of about 2.
    elbo = ELBO(num_samples=50)(model, split).values["elbo_nats"].value
    assert elbo == pytest.approx(exact.mean().item() - gap, abs=4 * 2 / 100)


class Fixed:
    """A model whose log-weights are given: each call hands out the next rows."""

    shape = latent_shape = (1,)

    def __init__(self, log_w_KB):
        self.log_w_KB, self.used, self.asked = log_w_KB, 0, []

    def log_weights(self, x, num_samples, y=None):
        self.asked.append(num_samples)
        self.used += num_samples
        return self.log_w_KB[self.used - num_samples : self.used]


@pytest.mark.parametrize(
    ("shape", "latent_shape", "most"),
    [((1, 28, 28), (16,), 50), ((3, 64, 64), (16,), 3), ((3, 64, 64), (215_040,), 1), ((3, 32, 32), (53_760,), 3)],
)
def test_fewer_samples_exist_at_a_time_where_pictures_or_latents_are_large(shape, latent_shape, most):
    model = Fixed(torch.zeros(100, 100, dtype=torch.float64))
    model.shape, model.latent_shape = shape, latent_shape
    importance_bound(model, Batch(torch.zeros(100, 1)), 100, 50)
    assert max(model.asked) == most


def test_chunks_do_not_change_the_result():
    log_w_KB = 30 * torch.randn(250, 4, dtype=torch.float64) - 1000
    log_w_KB[0] = -math.inf  # a draw that the model deems impossible has weight 0, no more
    batch = Batch(torch.zeros(4, 1))
    whole = importance_bound(Fixed(log_w_KB), batch, 250, 250)
    weights = torch.softmax(log_w_KB, 0)
    torch.testing.assert_close(whole.effective_sample_size, 1 / weights.square().sum(0))
    for k in (10, 100, 250):
        torch.testing.assert_close(whole.bounds[k], log_w_KB[:k].logsumexp(0) - math.log(k))
    for chunk_size in (1, 7, 100, 249, 1000):
        model = Fixed(log_w_KB)
        parts = importance_bound(model, batch, 250, chunk_size)
        assert max(model.asked) <= chunk_size
        assert model.used == 250
        assert parts.bounds.keys() == whole.bounds.keys()
        for k, bound in parts.bounds.items():
            torch.testing.assert_close(bound, whole.bounds[k], rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(parts.effective_sample_size, whole.effective_sample_size, rtol=1e-9, atol=1e-9)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_memory_does_not_grow_with_the_number_of_samples():
    model, split, _ = linear_gaussian.make(6)
    sizes = []
    for num_samples in (20, 2000):
        with Largest() as largest:
            ImportanceBound(num_samples, chunk_size=20)(model, split, batch_size=3)
        sizes.append(largest.numel)
    assert sizes[0] == sizes[1] > 0


def test_the_number_of_batches_does_not_change_the_bound():
    model, split, exact = linear_gaussian.make(7)
    for batch_size in (1, 3, 100):
        found = ImportanceBound(10, 5)(model, split, batch_size=batch_size).values["importance_bound_10_nats"]
        assert found.n == 7
        assert found.value == pytest.approx(exact.mean().item(), abs=1e-9)
        assert found.standard_error == pytest.approx(exact.std().item() / math.sqrt(7), abs=1e-9)


def test_ladder():
    assert ladder(1) == [1]
    assert ladder(10) == [1, 10]
    assert ladder(500) == [1, 10, 100, 500]


@pytest.mark.parametrize("arguments", [{"num_samples": 0}, {"chunk_size": 0}])
def test_counts_below_one_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be at least 1, got 0"):
        ImportanceBound(**arguments)


def test_few_effective_samples_are_said_to_mean_a_loose_bound():
    good = ImportanceBound(100)(*linear_gaussian.make(30)[:2])
    assert "effective sample size" not in good.how
    poor = ImportanceBound(100)(*linear_gaussian.make(30, mean_shift=4.0, log_var_shift=-2.0)[:2])
    assert poor.values["importance_ess_100"].value < 10
    assert "of 30 examples fewer than 10 samples carry the weight" in poor.how
    few = ImportanceBound(5)(*linear_gaussian.make(30)[:2])  # of 5 samples no more than 5 can count
    assert "effective sample size" not in few.how
