"""Labels of samples: which each one has, and a grid with a row for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaebench.messages import counted
from vaebench.runs.images import to_image

GRID = 64  # pictures in the grid
ROW = 10  # pictures of a label in the grid


def labels_of(y: Any, num_samples: int, model: Any, sampler: Any) -> Tensor | None:
    """Return the label of each sample, in order: as many of each as there is room for, one more of the first ones.

    Raises:
        ValueError: the model knows no labels, or not these, or there are fewer samples than labels.
    """
    if y is None:
        return None
    num_classes = getattr(model, "num_classes", None) or getattr(sampler, "num_classes", None)
    if num_classes is None:
        way = ", or give sampler.num_classes=" if hasattr(sampler, "num_classes") else ""
        raise ValueError(f"y: {type(model).__name__} has no labels; leave it out, or train model=conditional_vae{way}")
    each = torch.tensor(y if isinstance(y, list) else [y])
    if len(each) == 0 or num_samples < len(each):
        raise ValueError(f"num_samples: expected one for each of {counted(len(each), 'label')}, got {num_samples}")
    if each.ndim == 2 and each.shape[1] != num_classes:
        raise ValueError(f"y: expected label vectors of {num_classes} entries, got {each.shape[1]}")
    if each.ndim == 1 and not 0 <= int(each.min()) <= int(each.max()) < num_classes:
        raise ValueError(f"y: expected labels from 0 to {num_classes - 1}, got {y}")
    least, more = divmod(num_samples, len(each))
    return each.repeat_interleave(torch.tensor([least + (i < more) for i in range(len(each))]), 0)


def grid(images: Tensor, y: Any) -> Any:
    """Return a picture of the first samples; with several labels asked for, one row for each."""
    if not isinstance(y, list) or len(y) < 2:
        return to_image(images[:GRID])
    least, more = divmod(len(images), len(y))
    columns = min(least, ROW)
    rows = [images[first : first + columns] for first in (i * least + min(i, more) for i in range(len(y)))]
    names = [str(label) for label in y] if not isinstance(y[0], list) else []
    return to_image(torch.cat(rows), columns, row_labels=names)
