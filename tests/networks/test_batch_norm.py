"""Batch normalisation over processes is that of one process with all rows."""

import torch
from torch import nn

from vaebench.hardware import collective
from vaebench.hardware.device import Hardware
from vaebench.hardware.processes import launch
from vaebench.networks.batch_norm import BatchNorm, statistics_kept


def normalise(shape):
    torch.manual_seed(0)
    x = torch.randn(7, *shape, dtype=torch.float64) + 3
    weights = torch.randn(7, *shape, dtype=torch.float64)
    norm = BatchNorm(shape[0]).double()
    part = collective.shard_of(7)
    own = x[part.start : part.stop].requires_grad_()
    with collective.shard(part.start, part.stop, 7):
        y = norm(own)
        (y.square() * weights[part.start : part.stop]).sum().backward()
        y, gradient = collective.gather(y.detach()), collective.gather(own.grad)
        of_weight = collective.total(norm.weight.grad)
    return y, gradient, of_weight, norm.running_mean, norm.running_var


def test_two_processes_normalise_as_one():
    two = Hardware(device="cpu", threads=1, num_devices=2)
    for shape in ((3,), (3, 2, 4)):
        for got, expected in zip(launch(two, normalise, shape), normalise(shape), strict=True):
            torch.testing.assert_close(got, expected)


def test_it_is_torchs_own_layer():
    ours, theirs, x = BatchNorm(3), nn.BatchNorm2d(3), torch.randn(5, 3, 2, 2)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_a_repetition_leaves_the_running_means():
    norm, x = BatchNorm(3), torch.randn(5, 3)
    y = norm(x)
    before = norm.running_mean.clone()
    with statistics_kept()[1]:
        assert torch.equal(norm(x), y)
    assert torch.equal(norm.running_mean, before)
