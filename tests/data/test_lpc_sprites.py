from __future__ import annotations

import numpy as np
import pytest
import torch

from vaebench.data.lpc_sprites import LPCSprites


def write(tmp_path, images, factors):
    (tmp_path / "lpc_sprites").mkdir()
    np.savez(tmp_path / "lpc_sprites" / "lpc_sprites_64x64.npz", images=images, factors=factors)


def test_pictures_keep_their_factors(tmp_path):
    factors = np.stack([np.arange(12)] * 6, 1).astype(np.uint8)
    images = np.zeros((12, 64, 64, 3), np.uint8)
    images[:, 5, 7, 2] = np.arange(12)
    write(tmp_path, images, factors)
    data = LPCSprites(root=str(tmp_path), num_validation=2, num_test=3)
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 2, 3)
    for split in (data.train, data.validation, data.test):
        assert torch.equal((split.x[:, 2, 5, 7] * 255).round().long(), split.factors[:, 0])
        assert split.x.flatten(1).count_nonzero(1).max() == 1
    assert data.factor_sizes == (12,) * 6


def test_the_real_file(shared):
    root = shared("lpc_sprites/lpc_sprites_64x64.npz").parents[1]
    data = LPCSprites(root=str(root))
    assert data.factor_sizes == (3, 3, 6, 6, 6, 6)
    assert data.factor_names == ("action", "direction", "body", "bottomwear", "topwear", "hair")
    factors = torch.cat([data.train.factors, data.validation.factors, data.test.factors])
    assert len(factors.unique(dim=0)) == 11664


def test_a_missing_or_other_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="which lacks it"):
        LPCSprites(root=str(tmp_path))
    write(tmp_path, np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 6), int))
    with pytest.raises(ValueError, match=r"bytes of shape \(N, 64, 64, 3\)"):
        LPCSprites(root=str(tmp_path))
