"""Density and coverage of samples."""

from __future__ import annotations

from typing import ClassVar

import torch

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject
from vaebench.metrics.neighbours import distances, radii


class DensityCoverage(Metric):
    r"""How many images' neighbourhoods hold a sample, and the share of images near a sample (Naeem et al., 2020).

    .. math:: density = \frac{1}{kM} \sum_j \sum_i 1[y_j \in B(x_i, r_k(x_i))], \quad
              coverage = \frac{1}{N} \sum_i 1[\exists j: y_j \in B(x_i, r_k(x_i))]      (eq. 4, 5)

    Neighbourhoods are made of images only, which outlying samples cannot stretch. For samples of the law of the images
    density is 1 in expectation (it can be above), and coverage is about 1 - 1 / 2^k for equal numbers.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020),
        https://arxiv.org/abs/2002.09797
    Args:
        k: Which neighbour, >= 1.
        num_samples: How many samples, >= 1; null takes as many as there are images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"samples"})

    def __init__(self, k: int = 5, num_samples: int | None = None) -> None:
        check_range("k", k, at_least=1, whole=True)
        check_range("num_samples", num_samples, at_least=1, whole=True, or_null=True)
        self.k, self.num_samples = k, num_samples

    def measure(self, subject: Subject) -> Result:
        """Return density_<extractor> and coverage_<extractor>."""
        images = torch.cat([subject.features(batch.x) for batch in subject.batches()])
        n = self.num_samples or len(images)
        if len(images) <= self.k:
            raise NotApplicableError(f"it needs more than k = {self.k} images, got {len(images)}; raise num_examples")
        samples = subject.features(subject.samples(n))
        around = radii(images, self.k)
        held = [part <= around for part in distances(samples, images)]
        density = Estimate.mean(torch.cat([part.sum(1).double() / self.k for part in held]), "")
        covered = torch.stack([part.any(0) for part in held]).any(0)
        name = subject.extractor.name
        how = (
            f"{n} samples of {subject.source} (means of p(x|z)) against {len(images)} images, "
            f"{images.shape[1]} features ({name}), k = {self.k}; s.e. over samples and images, "
            "as if neighbourhoods were fixed"
        )
        values = {
            f"density_{name}": Estimate(density.value, density.standard_error, n, "of 1", "higher"),
            f"coverage_{name}": Estimate.mean(covered.double(), "of 1", "higher"),
        }
        return Result(values, how, {"k": self.k, "num_samples": n, "source": subject.source})
