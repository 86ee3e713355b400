"""A network far larger than its weights is refused before it takes the memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaebench.factory import bounds
from vaebench.factory.bounds import bounded_by
from vaebench.factory.targets import ConfigError


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(40_000, 40_000),
        lambda: torch.empty(2**20, 2**20),  # more than any machine holds
        lambda: torch.zeros((2**40, 3)),
        lambda: torch.randn(2**30, 7),
        lambda: torch.eye(2**25),
        lambda: torch.tril_indices(2**24, 2**24),
        lambda: torch.full([2**20, 2**20], 1.0),
        lambda: torch.ones(4).new_zeros(2**20, 2**20),
        lambda: [nn.Linear(1000, 1000) for _ in range(10_000)],
        lambda: [nn.Linear(1, 1) for _ in range(10**9)],
        lambda: torch.ones(2**14, 1) @ torch.ones(1, 2**14),
    ],
)
def test_what_is_far_larger_than_the_file_is_refused(tmp_path, make, monkeypatch):
    monkeypatch.setattr(bounds, "MIN_BYTES", 2**26)
    monkeypatch.setattr(bounds, "MIN_TENSORS", 1_000)
    (tmp_path / "w").write_bytes(bytes(12_000))
    with (
        bounded_by(tmp_path / "w"),
        pytest.raises(ConfigError, match=r"^model: .* larger network than '.*w' holds \(12,000"),
    ):
        make()


def test_a_file_allows_what_it_holds_and_no_file_allows_all(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MIN_BYTES", 0)
    monkeypatch.setattr(bounds, "MIN_TENSORS", 0)
    (tmp_path / "w").write_bytes(bytes(4 * 1_000_000))
    with bounded_by(tmp_path / "w"):
        model = nn.Sequential(nn.Linear(1000, 999), nn.BatchNorm1d(999))
        nn.init.orthogonal_(model[0].weight)
        for _ in range(99):  # in place: nothing is made
            model[0].weight.data.mul_(2.0)
    for path in (None, tmp_path / "not there"):
        with bounded_by(path):
            nn.Linear(100, 100)
