"""The pixels themselves as features."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vaebench.messages import NamedArguments


class Pixels(NamedArguments):
    """Every value of an image is a feature; nothing is learned and nothing is downloaded.

    Distances between pixels say how well a model matches means and covariances of the data, not how real its images
    look. They are never comparable with the FID, which takes its features from Inception.

    References:
        A Note on the Evaluation of Generative Models (Theis et al., 2016), https://arxiv.org/abs/1511.01844, for what
        such distances do not say
    """

    name: ClassVar[str] = "pixels"

    def __call__(self, x: Tensor) -> Tensor:
        """Return x of shape (B, *shape) as (B, F), float64."""
        return x.flatten(1).double()
