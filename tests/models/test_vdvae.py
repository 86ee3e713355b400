"""The very deep VAE: its start, its levels, and the shapes and lists that it refuses."""

import pytest
import torch
from torch import nn

from vaebench.core import Batch
from vaebench.models.vdvae import VDVAE
from vaebench.networks.vdvae import VDVAENetwork

SMALL = {"channels": (8, 8), "groups": (2, 1), "encoder_blocks": (1, 1), "strides": (2,), "latent_channels": 2}


def make(shape=(1, 5, 4), **network):
    torch.manual_seed(0)
    return VDVAE(shape, likelihood="bernoulli", network=VDVAENetwork(**(SMALL | network)))


def test_at_the_start_each_prior_is_standard_and_leaves_the_state():
    model = make()
    for group in model.decoder.groups:
        state = torch.randn(3, 8, *group.shape[1:])
        mean, log_var, below = group.prior(state)
        assert mean.abs().max() == log_var.abs().max() == 0
        assert torch.equal(below, state)


def test_projections_and_residual_blocks_shrink_with_depth():
    few, many = make(groups=(1, 1)), make(groups=(7, 1))
    for name, part in (("projection", lambda g: g.projection), ("residual", lambda g: g.residual.layers[-1])):
        spread = [torch.stack([part(g).weight.detach().std() for g in m.decoder.groups]).mean() for m in (few, many)]
        assert float(spread[0] / spread[1]) == pytest.approx(2.0, rel=0.2), name  # sqrt(8 / 2)


def test_the_encoders_blocks_shrink_with_its_depth():
    few, many = (make(encoder_blocks=(n, 1)).encoder.blocks[1].layers[-1].weight.detach() for n in (1, 10))
    torch.testing.assert_close(few, 2.0 * many)  # the same draws; sqrt(12 / 3), with the block that is pooled


def test_a_group_by_hand():
    """x + h + W z, then the residual block; every convolution behind a GELU."""

    def block(module, x):
        for layer in module.layers:
            x = layer(nn.functional.gelu(x))
        return x

    group = make().decoder.groups[2]
    state, evidence, z = torch.randn(3, 8, 5, 4), torch.randn(3, 8, 5, 4), torch.randn(3, 2, 5, 4)
    nn.init.normal_(group.prior_block.layers[-1].weight)
    mean, log_sigma, h = block(group.prior_block, state).split((2, 2, 8), 1)
    p_mean, p_log_var, below = group.prior(state)
    torch.testing.assert_close((p_mean, p_log_var), (mean, 10 * torch.tanh(2 * log_sigma / 10)))
    torch.testing.assert_close(below, state + h)
    mean, log_sigma = block(group.posterior_block, torch.cat([state, evidence], 1)).chunk(2, 1)
    of_posterior = group.posterior(state, evidence, p_mean, p_log_var)
    torch.testing.assert_close(of_posterior, (mean, 10 * torch.tanh(2 * log_sigma / 10)))
    x = below + group.projection(z)
    torch.testing.assert_close(group(below, z), x + block(group.residual, x))


def test_with_no_evidence_and_no_residual_the_rate_is_zero():
    model = make()
    with torch.no_grad():
        for group in model.decoder.groups:
            group.posterior_block.layers[-1].weight.zero_()
    assert model.group_terms(torch.rand(4, 1, 5, 4).round())[1].abs().max() == 0


def test_levels_have_the_pictures_sizes_and_what_is_said_to_a_group_fits_it():
    model = make((3, 9, 7), channels=(8, 6, 4), groups=(1, 0, 2), encoder_blocks=(1, 0, 1), strides=(2, 3))
    assert model.group_shapes == [(2, 2, 2), (2, 2, 2), (2, 9, 7)]
    told = model.encoder(torch.rand(2, 3, 9, 7))
    assert [tuple(part.shape[1:]) for part in told] == [(4, 2, 2), (4, 2, 2), (8, 9, 7)]
    assert torch.isfinite(model.loss(Batch(torch.rand(2, 3, 9, 7).round()), 0).total)


def test_groups_of_the_finest_level_may_be_left_out():
    model = make(groups=(0, 2))
    assert model.sample(3).shape == (3, 1, 5, 4)


def test_a_group_hears_the_last_block_of_its_level():
    model = make()
    x = torch.rand(2, 1, 5, 4)
    blocks = list(model.encoder.blocks)
    assert [type(block).__name__ for block in blocks] == ["Conv2d", "_Block", "Sequential", "_Block"]
    finest = blocks[1](blocks[0](x))
    told = model.encoder(x)
    torch.testing.assert_close(told[1], finest)
    torch.testing.assert_close(told[2], finest)
    torch.testing.assert_close(told[0], blocks[3](blocks[2](finest)))


def test_the_published_sizes():
    """43 groups and, with the mixture of 10 logistics, 39 million parameters (Child, 2021, table 4)."""
    network = VDVAENetwork((384,) * 5, (22, 11, 6, 3, 1), (11, 6, 6, 3, 3), (2, 2, 2, 4))
    with torch.device("meta"):
        above, below = network.bottom_up((3, 32, 32)), network.top_down((3, 32, 32), (100, 32, 32))
    assert len(below.groups) == 43
    total = sum(p.numel() for module in (above, below) for p in module.parameters())
    assert total == pytest.approx(39e6, rel=0.02)
    convolutions = [module for module in above.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 4 * (29 + 4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"groups must have one entry for each of 2 levels.*got \[1, 1, 1\]"):
        make(groups=(1, 1, 1))
    with pytest.raises(ValueError, match="groups must end with at least 1"):
        make(groups=(2, 0))
    with pytest.raises(ValueError, match=r"groups\[0\] must be a whole number of at least 0; got -1"):
        make(groups=(-1, 1))
    with pytest.raises(ValueError, match=r"bottleneck must be above 0 and at most 1; got 0"):
        make(bottleneck=0)
    with pytest.raises(ValueError, match=r"pictures of 2x2 are one pixel after 1 of 2 strides \[2, 2\]"):
        make((1, 2, 2), channels=(8,) * 3, groups=(1,) * 3, encoder_blocks=(1,) * 3, strides=(2, 2))
    with pytest.raises(ValueError, match=r"takes images of shape \(C, H, W\), got examples of shape \(6,\)"):
        make((6,))
