"""Contexts of examples, from labels or from an array of the data set, and those of samples."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.core import Split
from vaebench.hardware import collective
from vaebench.networks.labels import LabelEmbedding

ContextSource = Literal["none", "labels", "data"]
NUM_KEPT = 256  # training contexts, for samples drawn without one


class Contexts(nn.Module):
    """The way from y, labels or contexts, to what networks take.

    Args:
        source: none, labels, or data: y is then the context itself.
        num_classes: How many classes labels have.
        context_dim: Entries of a context, or of the vector that stands for a label.
        num_frames: T of videos, whose contexts may change over time; None for pictures.
        picture: Shape (C, H, W) of contexts that are pictures; None for vectors.
    """

    frequencies: Tensor
    kept: Tensor

    def __init__(
        self,
        source: ContextSource,
        num_classes: int | None,
        context_dim: int,
        num_frames: int | None,
        picture: tuple[int, ...] | None,
    ) -> None:
        super().__init__()
        self.source, self.context_dim, self.num_frames, self.picture = source, context_dim, num_frames, picture
        if source == "labels":
            if num_classes is None:
                raise ValueError("context: 'labels' needs labels, and the data have none; give num_classes=")
            self.embedding = LabelEmbedding(num_classes, context_dim)
            self.register_buffer("frequencies", torch.zeros(num_classes))
        elif source == "data":
            kept = picture or ((context_dim,) if num_frames is None else (num_frames, context_dim))
            self.register_buffer("kept", torch.zeros(NUM_KEPT, *kept))
            self.register_buffer("frequencies", torch.zeros(NUM_KEPT))

    def forward(self, y: Tensor | None, num: int) -> Tensor | None:
        """Return vectors (B, E), or over time (B, T, E), or pictures (B, C, H, W); None without contexts.

        Args:
            y: Of `num` examples, or of one that stands for all.
            num: B.

        Raises:
            ValueError: if it is missing or of another shape.
        """
        if self.source == "none":
            return None
        if y is None:
            raise ValueError(f"context: with context={self.source} each example needs one; give y=")
        if self.source == "labels":
            return self.embedding(y)
        shapes: list[tuple[int, ...]] = [self.picture or (self.context_dim,)]
        if self.num_frames is not None and self.picture is None:
            shapes.append((self.num_frames, self.context_dim))
        if tuple(y.shape[1:]) not in shapes or len(y) not in (1, num):
            expected = " or ".join(str((num, *shape)) for shape in shapes)
            raise ValueError(
                f"context: expected contexts of shape {expected}, got {tuple(y.shape)}; model.context_dim is their "
                f"{'width' if self.picture is None else 'number of channels'}"
            )
        return y.expand(num, *y.shape[1:])

    def remember(self, train: Split) -> None:
        """Keep how often each label occurs in the training split, or its first contexts.

        Raises:
            ValueError: if the data have none.
        """
        if self.source == "none":
            return
        counts = torch.zeros_like(self.frequencies)
        for rows in torch.arange(len(train) if self.source == "labels" else min(len(train), NUM_KEPT)).split(1000):
            y = train.batch(rows).y
            if y is None or y.is_floating_point() != (self.source == "data"):
                wanted, hint = {
                    "labels": ("labels", ""),
                    "data": ("contexts", "; set dataset.context_key to their array"),
                }[self.source]
                raise ValueError(f"context: model.context={self.source} needs {wanted}, and the data have none{hint}")
            if self.source == "labels":
                counts += F.one_hot(y.long(), len(counts)).sum(0).to(counts)
                continue
            found = self(y, len(y))
            assert found is not None
            over_time = self.num_frames is not None and self.picture is None and found.ndim == 2
            self.kept[: len(y)] = found[:, None] if over_time else found
            counts[: len(y)] = 1
        self.frequencies.copy_(counts / counts.sum())

    def draw(self, num_samples: int) -> Tensor | None:
        """Draw y as often as training saw it; None without contexts.

        Raises:
            ValueError: before training.
        """
        if self.source == "none":
            return None
        frequencies = self.frequencies.double()
        if not frequencies.sum() > 0:
            raise ValueError("context: nothing is known of contexts before training; give y=")
        u = collective.uniform((num_samples,), like=frequencies) * frequencies.sum()
        rows = torch.searchsorted(frequencies.cumsum(0), u, right=True).clamp_max(len(frequencies) - 1)
        return rows if self.source == "labels" else self.kept[rows]

    def any_one(self) -> Tensor | None:
        """Some y of one example."""
        if self.source == "none":
            return None
        return self.frequencies.new_zeros(1, dtype=torch.long) if self.source == "labels" else self.kept[:1]
