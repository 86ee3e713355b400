r"""The kernel distance between samples and images."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaebench.messages import check_range
from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject

GROUPS = 10  # for the jackknife


def kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """Return sums of the kernel (x . y / F + 1)^3 over the pairs of two groups of rows, float64, shape (G, G)."""
    columns = y.tensor_split(GROUPS)
    rows = []
    for group in x.tensor_split(GROUPS):
        rows.append(torch.stack([((group @ other.T) / x.shape[1] + 1).pow(3).sum() for other in columns]))
    return torch.stack(rows)


def squared_mmd(x: Tensor, y: Tensor) -> tuple[float, list[float]]:
    """Return the unbiased squared maximum mean discrepancy, and the same with each of ten groups of rows left out.

    Args:
        x: Features, float64, shape (N, F).
        y: Likewise, shape (M, F).
    """
    within_x, within_y, between = kernel_sums(x, x), kernel_sums(y, y), kernel_sums(x, y)
    own_x, own_y = (
        torch.stack([(part.square().sum(1) / part.shape[1] + 1).pow(3).sum() for part in z.tensor_split(GROUPS)])
        for z in (x, y)
    )
    sizes_x, sizes_y = ([len(part) for part in z.tensor_split(GROUPS)] for z in (x, y))

    def value(kept: list[int]) -> float:
        n, m = sum(sizes_x[g] for g in kept), sum(sizes_y[g] for g in kept)
        index = torch.tensor(kept)
        xx = within_x[index][:, index].sum() - own_x[index].sum()
        yy = within_y[index][:, index].sum() - own_y[index].sum()
        return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * between[index][:, index].sum() / (n * m))

    everything = list(range(GROUPS))
    return value(everything), [value([g for g in everything if g != left]) for left in everything]


class KID(Metric):
    r"""Unbiased squared MMD between features of samples and of images, cubic kernel (Binkowski et al., 2018, eq. 4).

    .. math:: k(x, y) = (x^T y / F + 1)^3

    Zero in expectation where samples and images have one law, at any n, and so fit for few images, where the Fréchet
    distance is not; it can be negative. The features are named with the value, `kid_pixels` for the pixels themselves;
    only those of Inception give numbers that compare with published ones.

    References:
        Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401
    Deviations:
        All images at once instead of the mean over 100 subsets of 1000: the same expectation with less variance.
    Args:
        num_samples: How many samples, >= 20; null takes as many as there are images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"samples"})

    def __init__(self, num_samples: int | None = None) -> None:
        check_range("num_samples", num_samples, at_least=2 * GROUPS, whole=True, or_null=True)
        self.num_samples = num_samples

    def measure(self, subject: Subject) -> Result:
        """Return kid_<extractor>."""
        images = torch.cat([subject.features(batch.x) for batch in subject.batches()])
        n = self.num_samples or len(images)
        if min(n, len(images)) < 2 * GROUPS:
            raise NotApplicableError(f"a kernel distance needs more images than {len(images)}; raise num_examples")
        samples = subject.features(subject.samples(n))
        if not bool(samples.isfinite().all()):
            raise FloatingPointError("the features of some samples are not finite")
        value, left_out = squared_mmd(samples, images)
        how = (
            f"{n} samples of {subject.source} (means of p(x|z)) against {len(images)} images, "
            f"{images.shape[1]} features ({subject.extractor.name}), cubic kernel, unbiased; "
            "s.e. by a jackknife over 10 groups"
        )
        estimate = Estimate.jackknife(value, left_out, min(n, len(images)), "squared", "lower")
        return Result({f"kid_{subject.extractor.name}": estimate}, how, {"source": subject.source})
