"""Between pictures and latents, for every sampler: encode a split, decode draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeVar

from vaebench.core import Draws, Split, rows_at_once
from vaebench.samplers.base import BaseSampler

MOST_BYTES = 4 * 2**30  # for the latents that a sampler learns from
S = TypeVar("S", bound=BaseSampler)


@torch.no_grad()
def encode(model: Any, split: Split, batch_size: int | None = None) -> Draws:
    """Draw one latent from the posterior of each example of a split, in order.

    These draws follow the aggregate posterior q(z) = E q(z|x), on which the decoder was trained; posterior means alone
    would be too narrow by E Var[z|x].

    Args:
        model: A trained model, in eval mode.
        split: Usually the training split.
        batch_size: Examples that are encoded at once; None is what memory suffices for.

    Raises:
        ValueError: if the latents together are too many to hold.
    """
    num_dims = math.prod(model.latent_shape)
    num_bytes = 4 * len(split) * num_dims
    if num_bytes > MOST_BYTES:
        raise ValueError(
            f"sampler: the latents of {len(split)} training examples, {num_dims} numbers each, take "
            f"{num_bytes / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:g}; choose sampler=normal, which needs none"
        )
    batch_size = batch_size or rows_at_once(model.shape)
    device = next(model.parameters()).device
    z, y = [], []
    for first in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(first, min(first + batch_size, len(split)))).to(device)
        z.append(model.posterior(batch.x, batch.y).sample())
        y.append(batch.y)
    labels = [part for part in y if part is not None]
    return Draws(torch.cat(z), torch.cat(labels) if len(labels) == len(z) else None)


@torch.no_grad()
def decode(model: Any, draws: Draws, batch_size: int | None = None) -> Tensor:
    """Pictures of p(x|z), usually its means, in float32, some at a time, shape (N, *shape).

    Raises:
        FloatingPointError: if a latent or an image is not finite.
    """
    batch_size = batch_size or rows_at_once(model.shape, 500)
    images = []
    for first in range(0, len(draws), batch_size):
        rows = slice(first, first + batch_size)
        y = () if draws.y is None else (draws.y[rows],)
        images.append(model.picture(draws.z[rows], *y).float())
    result = torch.cat(images)
    for what, values in (("latents", draws.z), ("images", result)):
        bad = int((~values.isfinite().flatten(1).all(1)).sum())
        if bad:
            raise FloatingPointError(f"{bad} of {len(values)} {what} are not finite; nothing was written")
    return result


def prepare(sampler: S, model: Any, split: Split | None = None) -> S:
    """Set a sampler up for a trained model, and fit it where it learns.

    Raises:
        ValueError: if it does not serve the model, or it learns and there is no split.
    """
    sampler.setup(model, split)
    if sampler.learns:
        if split is None:
            raise ValueError(f"sampler={sampler.name} learns from the training split, got none")
        sampler.fit(encode(model, split))
    return sampler
