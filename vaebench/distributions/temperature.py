"""The temperature of a draw: one number, or one for each group of a hierarchy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaebench.messages import check_range, counted


def check_temperature(temperature: float | Sequence[float]) -> None:
    """Refuse temperatures below 0.

    Raises:
        ValueError: naming the argument.
    """
    if isinstance(temperature, (int, float)):
        check_range("temperature", temperature, at_least=0, below=math.inf)
        return
    for number, value in enumerate(temperature):
        check_range(f"temperature[{number}]", value, at_least=0, below=math.inf)


def tempered(z: Tensor, mean: Tensor, temperature: float | Sequence[float], group_sizes: Sequence[int]) -> Tensor:
    """Scale the deviation of draws from their mean.

    Args:
        z: Draws, shape (N, D) where there are several temperatures, otherwise (N, ...).
        mean: Their mean, of a shape that broadcasts against theirs.
        temperature: One for all, or one for each group.
        group_sizes: Latents of each group, in the order of z.

    Returns: shape of z.

    Raises:
        ValueError: if there is not one temperature for each group.
    """
    if isinstance(temperature, (int, float)):
        return z if temperature == 1 else mean + temperature * (z - mean)
    if len(temperature) != len(group_sizes):
        raise ValueError(
            f"temperature must be a number, or a list with one for each of {counted(len(group_sizes), 'group')}; got "
            f"{list(temperature)}"
        )
    sizes = torch.tensor(list(group_sizes), device=z.device)
    return mean + torch.tensor(list(temperature), dtype=z.dtype, device=z.device).repeat_interleave(sizes) * (z - mean)
