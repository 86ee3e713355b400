"""Batches, losses, and the nearest valid name."""

import pytest
import torch

from vaebench.core import Batch, Loss, at_least_float32
from vaebench.messages import did_you_mean, nearest


def _batch():
    return Batch(torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 2, 3]), index=torch.tensor([10, 11, 12, 13]))


def test_rows_stay_together():
    part = _batch()[1:3]
    assert len(part) == 2
    assert part.x[:, 0].tolist() == [3, 6]
    assert part.y.tolist() == [1, 2]
    assert part.index.tolist() == [11, 12]
    picked = _batch()[torch.tensor([3, 0])]
    assert picked.x[:, 0].tolist() == [9, 0]
    assert picked.index.tolist() == [13, 10]


def test_without_labels():
    batch = Batch(torch.zeros(2, 3))
    assert batch[:1].y is None
    assert batch[:1].index is None
    assert batch.to("cpu").y is None


def test_to_moves_every_part():
    moved = _batch().to("meta")
    assert {moved.x.device.type, moved.y.device.type, moved.index.device.type} == {"meta"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float32, torch.float32)],
)
def test_half_precision_is_raised(given, expected):
    raised = at_least_float32(torch.ones(2, dtype=given))
    assert raised.dtype == expected
    assert raised.tolist() == [1, 1]


def test_double_precision_stays():
    x = torch.ones(2, dtype=torch.float64)
    assert at_least_float32(x) is x


def test_loss_is_the_mean_over_the_batch_with_its_gradient():
    per_example = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    loss = Loss.mean(per_example, distortion=per_example * 2, rate=torch.tensor(4.0))
    assert loss.total.item() == 3
    loss.total.backward()
    torch.testing.assert_close(per_example.grad, torch.full((3,), 1 / 3))
    assert {name: value.item() for name, value in loss.terms.items()} == {"distortion": 6, "rate": 4}
    assert not loss.terms["distortion"].requires_grad


@pytest.mark.parametrize(("name", "expected"), [("rvae", "rhvae"), ("RHVAE", "rhvae"), ("zzz", None), ("vae", "vae")])
def test_nearest(name, expected):
    assert nearest(name, ["vae", "rhvae", "iwae"]) == expected


def test_the_end_of_a_sentence():
    assert did_you_mean("hcm", ["normal", "hmc"]) == "; did you mean 'hmc'?"
    assert did_you_mean("qqqq", {"normal", "hmc"}) == "; valid names: hmc, normal"
    assert did_you_mean("qqqq", []) == ""
