r"""The Fréchet distance between samples and images."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject

GROUPS = 10  # for the jackknife
MOST_FEATURES = 1024  # with more, the jackknife takes too long


def frechet_distance(mean_1: Tensor, covariance_1: Tensor, mean_2: Tensor, covariance_2: Tensor) -> float:
    r"""Return the squared 2-Wasserstein distance between two Gaussians (Dowson and Landau, 1982, eq. 4).

    .. math:: \|m_1 - m_2\|^2 + tr(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})

    Args:
        mean_1: float64, shape (F,).
        covariance_1: float64, shape (F, F).
        mean_2: As mean_1.
        covariance_2: As covariance_1.
    """
    values, vectors = torch.linalg.eigh(covariance_1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp_min(0).sqrt().sum()
    distance = (mean_1 - mean_2).square().sum() + covariance_1.trace() + covariance_2.trace() - 2 * cross
    return float(distance.clamp_min(0))  # rounding can make it negative


class _Moments:
    """Sums over groups of rows, from which means and covariances follow with any group left out."""

    def __init__(self, features: Tensor) -> None:
        self.shift = features.mean(0)  # sums of squares about zero would cancel
        groups = [group - self.shift for group in features.tensor_split(GROUPS)]
        self.counts = [len(group) for group in groups]
        self.sums = [group.sum(0) for group in groups]
        self.squares = [group.T @ group for group in groups]

    def without(self, group: int | None) -> tuple[Tensor, Tensor]:
        """Mean (F,) and covariance (F, F), n - 1 in the denominator, of all rows but those of a group."""
        kept = [index for index in range(len(self.counts)) if index != group]
        n = sum(self.counts[index] for index in kept)
        mean = torch.stack([self.sums[index] for index in kept]).sum(0) / n
        squares = torch.stack([self.squares[index] for index in kept]).sum(0)
        return mean + self.shift, (squares - n * mean[:, None] * mean) / (n - 1)


class FD(Metric):
    r"""Fréchet distance between features of samples and of images, both taken as Gaussian (Heusel et al., 2017, eq. 6).

    .. math:: \|m_1 - m_2\|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^{1/2})

    The features are named with the value, `fd_pixels` for the pixels themselves. Only the distance between features of
    Inception is the FID, so these numbers do not compare with published ones. It shrinks with the number of samples,
    whatever the model: compare values of equal n only. Samples are means of p(x|z), as usual for this distance.

    References:
        The Fréchet distance between multivariate normal distributions (Dowson and Landau, 1982),
        https://doi.org/10.1016/0047-259X(82)90077-X;
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500
    Args:
        num_samples: How many samples, >= 20; null takes as many as there are images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"samples"})

    def __init__(self, num_samples: int | None = None) -> None:
        check_range("num_samples", num_samples, at_least=2 * GROUPS, whole=True, or_null=True)
        self.num_samples = num_samples

    def measure(self, subject: Subject) -> Result:
        """Return fd_<extractor>."""
        images = torch.cat([subject.features(batch.x) for batch in subject.batches()])
        n = self.num_samples or len(images)
        if min(n, len(images)) < 2 * GROUPS:
            raise NotApplicableError(f"a covariance needs more images than {len(images)}; raise num_examples")
        samples = subject.features(subject.samples(n))
        if not bool(samples.isfinite().all()):
            raise FloatingPointError("the features of some samples are not finite")
        found, expected = _Moments(samples), _Moments(images)
        num_features = images.shape[1]
        left_out: list[float] = []
        if num_features <= MOST_FEATURES:
            left_out = [
                frechet_distance(*found.without(group), *expected.without(group)) for group in range(len(found.counts))
            ]
        name = f"fd_{subject.extractor.name}"
        value = frechet_distance(*found.without(None), *expected.without(None))
        how = (
            f"{n} samples of {subject.source} (means of p(x|z)) against {len(images)} images, {num_features} features "
            f"({subject.extractor.name}); not the FID, and comparable at equal n only"
        )
        how += "; s.e. by a jackknife over 10 groups" if left_out else f"; no s.e. above {MOST_FEATURES} features"
        if min(n, len(images)) <= num_features:
            how += "; fewer images than features, so that covariances are singular"
        details: dict[str, Any] = {"num_samples": n, "num_images": len(images), "num_features": num_features}
        estimate = Estimate.jackknife(value, left_out, min(n, len(images)), "squared", "lower")
        return Result({name: estimate}, how, {**details, "source": subject.source})
