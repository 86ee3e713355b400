"""The MMD by hand, unbiased, and zero in expectation for one distribution."""

import pytest
import torch

from vaebench.objectives.mmd import imq_mmd


def test_by_hand():
    z, other = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [4.0]])
    k = lambda d: 3 / (3 + d**2)  # noqa: E731
    expected = k(1) + k(2) - 2 * (k(2) + k(4) + k(1) + k(3)) / 4
    assert imq_mmd(z, other, bandwidth=3.0, scales=(1.0,)).item() == pytest.approx(expected)


def test_the_kernel_is_summed_over_scales():
    z, other = torch.randn(5, 2), torch.randn(5, 2)
    parts = [imq_mmd(z, other, 4.0, (s,)) for s in (0.1, 2.0)]
    torch.testing.assert_close(imq_mmd(z, other, 4.0, (0.1, 2.0)), sum(parts))


def test_of_one_distribution_it_is_zero_on_average_and_of_two_it_is_not():
    same = torch.stack([imq_mmd(torch.randn(8, 2), torch.randn(8, 2), 4.0) for _ in range(400)])
    assert abs(same.mean()) < 4 * same.std() / 20
    apart = torch.stack([imq_mmd(torch.randn(8, 2) + 1, torch.randn(8, 2), 4.0) for _ in range(400)])
    assert apart.mean() > 10 * apart.std() / 20


def test_needs_pairs():
    with pytest.raises(ValueError, match="needs at least two examples in every batch; got 1"):
        imq_mmd(torch.zeros(1, 2), torch.zeros(1, 2), 4.0)
