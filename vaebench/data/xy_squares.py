"""Three squares on a grid, made by the program, with every factor of variation known."""

from __future__ import annotations

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, hold_out
from vaebench.messages import check_range

NUM_SQUARES, POSITIONS = 3, 4
FACTOR_NAMES = tuple(f"{axis}{square}" for square in range(NUM_SQUARES) for axis in "xy")
NUM_EXAMPLES = POSITIONS ** len(FACTOR_NAMES)


class XYSquares(Dataset):
    """4,096 pictures of a red, a green and a blue square, each at any of 4 x 4 places: 6 independent factors.

    Each square has a colour channel of its own, so that none hides another, and its places do not overlap: a model
    gains nothing in pixels from bringing neighbouring positions together, which is what makes these factors hard to
    disentangle. x is 0 or 1, shape (3, size, size); the likelihood that suits it is Bernoulli. The factors are the
    column and the row of each square: x0, y0, x1, y1, x2, y2. All combinations occur once; the shuffle is fixed.

    References:
        XYSquares of Overlooked Implications of the Reconstruction Loss for VAE Disentanglement (Michlo et al., 2022),
        https://arxiv.org/abs/2202.13341; there 8 x 8 places in 64 x 64 pixels.
    Deviations:
        4 x 4 places, so that the whole set fits in memory and an epoch takes a second.
    Args:
        size: Height and width of a picture, a multiple of 4; a square is a quarter of it wide.
        num_validation: How many validate.
        num_test: How many test.
        num_examples: Keep this many of the training examples; all by default.
    Raises:
        ValueError: The size is not a multiple of 4, or more examples are asked for than exist.
    """

    name = "xy_squares"

    def __init__(
        self, size: int = 16, num_validation: int = 400, num_test: int = 800, num_examples: int | None = None
    ) -> None:
        check_range("size", size, at_least=POSITIONS, at_most=256, whole=True)
        if size % POSITIONS:
            raise ValueError(f"size must be a multiple of {POSITIONS}, the places along each axis; got {size}")
        factors = all_factors()
        pool = Examples(draw(factors, size), factors=factors)
        train, validation, test = hold_out(pool, num_validation=num_validation, num_test=num_test)
        super().__init__(
            train,
            validation,
            test,
            likelihood_name="bernoulli",
            scale=1.0,
            num_examples=num_examples,
            factor_names=FACTOR_NAMES,
            factor_sizes=[POSITIONS] * len(FACTOR_NAMES),
        )


def all_factors() -> torch.Tensor:
    """Every combination of the factors, int64, shape (4096, 6), the last factor fastest."""
    grid = np.indices((POSITIONS,) * len(FACTOR_NAMES)).reshape(len(FACTOR_NAMES), -1).T
    return torch.from_numpy(np.ascontiguousarray(grid)).to(torch.int64)


def draw(factors: torch.Tensor, size: int) -> torch.Tensor:
    """Draw the squares, uint8, shape (N, 3, size, size), from column and row of each, shape (N, 6)."""
    side = size // POSITIONS
    place = torch.arange(size) // side
    column, row = factors[:, 0::2, None], factors[:, 1::2, None]
    inside_columns, inside_rows = place == column, place == row  # (N, 3, size)
    return (inside_rows[..., :, None] & inside_columns[..., None, :]).to(torch.uint8)
