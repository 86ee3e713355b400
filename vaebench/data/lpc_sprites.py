"""Sprites of the Liberated Pixel Cup."""

from __future__ import annotations

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, hold_out
from vaebench.data.io.array_files import open_arrays
from vaebench.data.io.download import data_root

FILE = "lpc_sprites_64x64.npz"
SIZE, NUM_FACTORS = 64, 6


class LPCSprites(Dataset):
    """11,664 colour pictures of figures, 64x64, with 6 factors: action, direction, body, bottomwear, topwear, hair.

    x is k / 255 with k = 0..255, shape (3, 64, 64); the likelihood that suits it is DiscretizedLogistic(256). Every
    combination of the factors (3 x 3 x 6 x 6 x 6 x 6) occurs once; the shuffle is fixed. Read from
    `<root>/lpc_sprites/lpc_sprites_64x64.npz`, with arrays `images` (N, 64, 64, 3) and `factors` (N, 6); it is not
    downloaded.

    References:
        Sprites from the Liberated Pixel Cup (https://lpc.opengameart.org), CC BY-SA 3.0 and GNU GPL 3.0, from the
        sheets of Disentangled Sequential Autoencoder (Li and Mandt, 2018), https://arxiv.org/abs/1803.02991; single
        pictures, not that paper's set of sequences.
    Args:
        root: The folder of data sets.
        num_validation: How many validate.
        num_test: How many test.
        num_examples: Keep this many of the training pictures; all by default.
    Raises:
        ValueError: The file is missing or damaged; a number of examples is more than there are.
    """

    name = "lpc_sprites"

    def __init__(
        self,
        root: str = "data",
        num_validation: int = 1000,
        num_test: int = 2000,
        num_examples: int | None = None,
    ) -> None:
        path = data_root(root) / "lpc_sprites" / FILE
        if not path.is_file():
            raise ValueError(f"expected 'lpc_sprites/{FILE}' in '{root}' (dataset.root), which lacks it")
        file = open_arrays(path, "dataset.root")
        shape, dtype = file.headers.get("images", ((), None))
        if shape[1:] != (SIZE, SIZE, 3) or dtype != np.uint8 or shape[0] > 100_000:
            raise ValueError(
                f"expected bytes of shape (N, {SIZE}, {SIZE}, 3) under 'images' in '{path}' (dataset.root), got "
                f"{file.describe()}"
            )
        rows, kind = file.headers.get("factors", ((), np.dtype("f4")))
        if rows != (shape[0], NUM_FACTORS) or kind.kind not in "iu" or kind.itemsize > 8:
            raise ValueError(
                f"expected whole numbers of shape ({shape[0]}, {NUM_FACTORS}) under 'factors' in '{path}' "
                f"(dataset.root), got {file.describe()}"
            )
        images = torch.from_numpy(file.read("images")).permute(0, 3, 1, 2).contiguous()
        factors = torch.from_numpy(file.read("factors").astype(np.int64))
        pool = Examples(images, factors=factors)
        train, validation, test = hold_out(pool, num_validation=num_validation, num_test=num_test)
        super().__init__(
            train,
            validation,
            test,
            likelihood_name="discretized_logistic",
            likelihood_arguments={"num_levels": 256},
            num_examples=num_examples,
            factor_names=("action", "direction", "body", "bottomwear", "topwear", "hair"),
            factor_sizes=[int(size) + 1 for size in factors.amax(0)],
        )
