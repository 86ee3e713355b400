"""The picture of chains on an energy of points in the plane that a run has learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaebench.report import chain_plots
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.markov_chains import MarkovChainSampler


@torch.no_grad()
def landscape_of(model: Any, sampler: BaseSampler) -> bytes | None:
    """Draw the energy as contours, and the chains on it, as a PNG file; None where there is no plane or no chain."""
    is_planar = "energy" in model.capabilities and model.shape == (2,)
    if not is_planar or not isinstance(sampler, MarkovChainSampler):
        return None
    u = sampler.chains.positions.transpose(0, 1)
    trajectory = model.decode(u).double().cpu().numpy()

    def height(points: np.ndarray) -> np.ndarray:
        return model.energy(torch.from_numpy(points).to(u)).double().cpu().numpy()

    return chain_plots.landscape(trajectory, height, f"sampler={sampler.name} on {type(model).__name__}")
