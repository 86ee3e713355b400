"""The standard normal prior."""

import math

import torch

from vaebench.distributions.priors import StandardNormalPrior


def test_log_density_is_that_of_independent_standard_normals():
    p = StandardNormalPrior().build(3)()
    z = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0]])
    expected = torch.tensor([0.0, -7.0]) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(p.log_prob(z), expected)
    assert p.event_shape == (3,)
    assert p.batch_shape == ()


def test_moves_with_its_module_and_adds_nothing_to_the_state():
    prior = StandardNormalPrior().build(3)
    assert prior.double()().mean.dtype == torch.float64
    assert not prior.state_dict()
    assert not list(prior.parameters())
