"""Precision and recall of samples."""

from __future__ import annotations

from typing import ClassVar

import torch

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.neighbours import distances, radii


class PrecisionRecall(Metric):
    """Share of samples that lie among the images, and of images that lie among the samples (Kynkaanniemi et al., 2019).

    A point lies among others if it is no further from one of them than that one's k-th nearest neighbour among them
    (eq. 1, 2). Precision asks whether samples look real, recall whether all images could be sampled. The features are
    named with the values.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi et al., 2019),
        https://arxiv.org/abs/1904.06991
    Args:
        k: Which neighbour, >= 1.
        num_samples: How many samples, above k; null takes as many as there are images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"samples"})

    def __init__(self, k: int = 3, num_samples: int | None = None) -> None:
        check_range("k", k, at_least=1, whole=True)
        check_range("num_samples", num_samples, above=k, whole=True, or_null=True)
        self.k, self.num_samples = k, num_samples

    def measure(self, subject: Subject) -> Result:
        """Return precision_<extractor> and recall_<extractor>."""
        images = torch.cat([subject.features(batch.x) for batch in subject.batches()])
        n = self.num_samples or len(images)
        if min(n, len(images)) <= self.k:
            raise NotApplicableError(f"it needs more than k = {self.k} images, got {len(images)}; raise num_examples")
        samples = subject.features(subject.samples(n))
        around_images, around_samples = radii(images, self.k), radii(samples, self.k)
        precise = torch.cat([(part <= around_images).any(1) for part in distances(samples, images)])
        recalled = torch.cat([(part <= around_samples).any(1) for part in distances(images, samples)])
        name = subject.extractor.name
        how = (
            f"{n} samples of {subject.source} (means of p(x|z)) against {len(images)} images, "
            f"{images.shape[1]} features ({name}), k = {self.k}; s.e. over samples and images, "
            "as if neighbourhoods were fixed"
        )
        precision = Estimate.mean(precise.double(), "of 1", "higher")
        values = {
            # Samples do not belong to examples, so they cannot be paired with those of another model.
            f"precision_{name}": Estimate(precision.value, precision.standard_error, n, "of 1", "higher"),
            f"recall_{name}": Estimate.mean(recalled.double(), "of 1", "higher"),
        }
        return Result(values, how, {"k": self.k, "num_samples": n, "source": subject.source})
