"""Errors of reconstructed pictures."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vaebench.metrics.base import Estimate, Metric, NotApplicableError, Result, Subject


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean of squared differences over the data dimensions; float64, shape (B,)."""
    return (x.double() - y.double()).square().flatten(1).mean(1)


def psnr(squared_error: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(data_range^2 / MSE), dB, from each example's MSE; same shape."""
    return 10 * torch.log10(data_range**2 / squared_error)


class Reconstruction(Metric):
    r"""Mean squared error and peak signal-to-noise ratio of the picture decoded from the posterior's mean.

    The reconstruction is the mean of p(x|z) at z = E[q(z|x)]. The PSNR, 10 log10(1 / MSE) for values in [0, 1], is
    computed for each example and then averaged (the PSNR of the averaged MSE would be lower).

    References:
        Image quality metrics: PSNR vs. SSIM (Hore and Ziou, 2010), https://doi.org/10.1109/ICPR.2010.579
    """

    needs: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood"})

    def measure(self, subject: Subject) -> Result:
        """Return mse and psnr_db."""
        errors = []
        for batch in subject.batches():
            if bool((batch.x < 0).any() or (batch.x > 1).any()):
                raise NotApplicableError("the data leave [0, 1], the range to which MSE and PSNR refer")
            errors.append(mse(subject.model.reconstruct(batch.x, deterministic=True, y=batch.y), batch.x).cpu())
        per_example = torch.cat(errors)
        values = {"mse": Estimate.mean(per_example, "squared", "lower")}
        how = "values in [0, 1], mean of p(x|z) at the posterior's mean; "
        if bool((per_example > 0).all()):
            values["psnr_db"] = Estimate.mean(psnr(per_example), "dB", "higher")
            how += "PSNR per example with data range 1, then averaged"
        else:
            how += "no PSNR: an example is reconstructed exactly, for which it is infinite"
        return Result(values, how)
