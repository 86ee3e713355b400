"""NVAE: residual posteriors, balanced rates, spectral norms against exact singular values, and what is refused."""

import copy

import pytest
import torch

from vaebench.core import Batch
from vaebench.models.nvae import NVAE
from vaebench.networks.nvae import NVAENetwork
from vaebench.objectives.kl_balancing import balance_weights
from vaebench.objectives.spectral import SpectralNorms

X = torch.rand(6, 1, 5, 4, generator=torch.Generator().manual_seed(1)).round()


def make(shape=(1, 5, 4), network=None, **arguments):
    torch.manual_seed(0)
    small = {"channels": (4, 8), "groups": (2, 1), "strides": (2,), "latent_channels": 2, "expansion": 2}
    return NVAE(shape, likelihood="bernoulli", network=NVAENetwork(**(small | (network or {}))), **arguments)


def test_with_no_residual_the_rate_is_zero():
    model = make().eval()
    with torch.no_grad():
        for group in model.decoder.groups:
            group.difference.weight.zero_()
            group.difference.bias.zero_()
    assert model.group_terms(X)[1].abs().max() < 1e-5


def test_the_rate_of_a_group_is_that_of_its_residual():
    """Equation (2), from differences that are put in."""
    model = make().eval()
    group = model.decoder.groups[1]
    with torch.no_grad():
        group.difference.weight.zero_()
        group.difference.bias.copy_(torch.tensor([0.3, -0.2, 0.4, -0.5]))
        group.prior_layers[1].weight.zero_()
        group.prior_layers[1].bias.copy_(torch.tensor([0.1, 0.2, 0.7, -0.6]))
    clamp = lambda v: 5 * torch.tanh(v / 5)  # noqa: E731
    shift, factor = clamp(torch.tensor([0.3, -0.2])), clamp(torch.tensor([0.4, -0.5])).exp()
    sigma = clamp(torch.tensor([0.7, -0.6])).exp() + 0.01
    cost = 0.5 * (shift**2 / sigma**2 + factor**2 - (factor**2).log() - 1)
    torch.testing.assert_close(model.group_terms(X)[1][:, 1], (cost.sum() * 20).expand(6))


def test_a_cell_adds_a_tenth_of_what_its_gate_lets_through():
    """Both kinds, at running means of 0 and variances of 1, where batch normalisation is all but the identity."""
    model = make().eval()
    for cell in (model.encoder.blocks[1], model.decoder.groups[2].cells[-1]):
        x = torch.randn(3, cell.layers[0].weight.shape[0], 5, 4)
        y = cell.layers(x)
        first, second = cell.gate[1], cell.gate[3]
        seen = torch.relu(y.mean((2, 3)) @ first.weight[:, :, 0, 0].T + first.bias)
        gate = torch.sigmoid(seen @ second.weight[:, :, 0, 0].T + second.bias)
        torch.testing.assert_close(cell(x), x + 0.1 * gate[..., None, None] * y)
    layers = [(type(m).__name__, getattr(m, "kernel_size", (0,))[0], getattr(m, "groups", 1)) for m in cell.layers]
    norm, swish = ("BatchNorm", 0, 1), ("SiLU", 0, 1)
    wide = [("Conv2d", 1, 1), norm, swish, ("Conv2d", 5, 8), norm, swish, ("Conv2d", 1, 1)]
    assert layers == [norm, *wide, norm]  # figure 3a
    layers = [(type(m).__name__, getattr(m, "kernel_size", (0,))[0], 1) for m in model.encoder.blocks[1].layers]
    assert layers == [norm, swish, ("Conv2d", 3, 1)] * 2  # figure 3b


def test_balance_weights_by_hand():
    rates = torch.tensor([[0.4, 2.0, 0.0], [0.8, -1.0, 0.0]])
    found = balance_weights(rates, [1.0, 2.0, 2.0])
    by_hand = torch.tensor([0.61, 1.51 / 2, 0.01 / 2])
    torch.testing.assert_close(found, by_hand / by_hand.mean())
    assert found.mean() == pytest.approx(1.0)


def test_rates_are_balanced_during_the_warm_up_only():
    model = make(beta=0.5, spectral_weight=0.0)
    rates, sizes = {}, [model.decoder.sizes[0] / 2, *[20 / 2] * 2]
    for beta, balances in ((0.5, True), (1.0, True), (0.5, False)):
        model = make(beta=beta, spectral_weight=0.0, balances_rates=balances)
        torch.manual_seed(3)
        terms, rates = copy.deepcopy(model).group_terms(X)
        torch.manual_seed(3)
        loss = model.loss(Batch(X), 0)
        sizes = [3 * 2, 5 * 4 / 2, 5 * 4 / 2]  # positions of the level, shared by its groups
        weights = balance_weights(rates, sizes) if balances and beta < 1 else torch.ones(3)
        torch.testing.assert_close(loss.total, (terms.distortion + beta * (rates * weights).sum(-1)).mean())


def test_spectral_norms_are_the_largest_singular_values():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(4, 4, 1), torch.nn.Linear(7, 2)]
    norms = SpectralNorms(layers)
    for _ in range(60):
        total = norms()
    exact = sum(torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in layers)
    torch.testing.assert_close(total, exact, rtol=1e-4, atol=0)
    total.backward()
    weight = layers[0].weight.detach().flatten(1).requires_grad_()
    torch.linalg.matrix_norm(weight, 2).backward()
    torch.testing.assert_close(layers[0].weight.grad.flatten(1), weight.grad, rtol=1e-2, atol=1e-2)
    assert not list(norms.parameters())


def test_training_holds_the_norms_down():
    found = []
    for weight in (0.0, 10.0):
        model = make(spectral_weight=weight, beta=1.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(30):
            optimizer.zero_grad()
            model.loss(Batch(X), step).total.backward()
            optimizer.step()
        found.append(model.eval().regularization().item())
    assert found[1] < 0.8 * found[0]


def test_the_regularisation_is_the_spectral_norms_and_the_largest_scales():
    model = make().eval()
    before = model.regularization()
    norm = model.encoder.blocks[1].layers[0]
    with torch.no_grad():
        norm.weight[2] = -3.0
    torch.testing.assert_close(model.regularization(), before + 2.0)


def test_levels_without_groups_have_cells_alone():
    model = make((3, 9, 7), {"channels": (4, 6, 8), "groups": (0, 1, 2), "strides": (2, 3)})
    assert model.group_shapes == [(2, 2, 2), (2, 2, 2), (2, 5, 4)]
    assert model.sample(2).shape == (2, 3, 9, 7)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="groups must end with at least 1"):
        make(network={"groups": (2, 0)})
    with pytest.raises(ValueError, match=r"channels must have one entry for each of 2 levels"):
        make(network={"channels": (4,)})
    with pytest.raises(ValueError, match="expansion must be a whole number of at least 1; got 0"):
        make(network={"expansion": 0})
    with pytest.raises(ValueError, match="spectral_weight must be at least 0"):
        make(spectral_weight=-1.0)
