"""Labels as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaebench.messages import check_range


class LabelEmbedding(nn.Module):
    """One table of vectors, read by class number or mixed by class weights: a one-hot label gives the class's row.

    Args:
        num_classes: K, >= 1.
        embed_dim: E, >= 1.
    """

    def __init__(self, num_classes: int, embed_dim: int) -> None:
        super().__init__()
        check_range("num_classes", num_classes, at_least=1, whole=True)
        check_range("embed_dim", embed_dim, at_least=1, whole=True)
        self.num_classes, self.embed_dim = num_classes, embed_dim
        self.table = nn.Embedding(num_classes, embed_dim)

    def forward(self, y: Tensor) -> Tensor:
        """Return shape (B, embed_dim).

        Args:
            y: Integers of any type, shape (B,), or one-hot or soft labels, shape (B, num_classes).

        Raises:
            ValueError: if a label is out of range, or `y` has another shape.
        """
        if y.ndim == 2 and y.shape[1] == self.num_classes:
            return y.to(self.table.weight.dtype) @ self.table.weight
        if y.ndim != 1 or y.dtype.is_floating_point or y.dtype == torch.bool:
            raise ValueError(
                f"expected labels as integers of shape (B,) or as weights of shape (B, {self.num_classes}), got "
                f"{str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)}"
            )
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < self.num_classes:
            wrong = y[(y < 0) | (y >= self.num_classes)][0].item()
            raise ValueError(f"expected labels from 0 to {self.num_classes - 1}, got {wrong}")
        return self.table(y.long())
