"""`vaebench sample` without a trained model: draws from an energy, into a run directory of their own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from safetensors.torch import save
from torch import Tensor

from vaebench import __version__, factory
from vaebench.commands.console import say
from vaebench.commands.progress import progress
from vaebench.commands.unfinished import kept, may_continue, unfinished
from vaebench.energies.base import BaseEnergyFunction, ExactEnergy, Reference
from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.mcmc.diagnostics import autocorrelation
from vaebench.report import chain_plots, netcdf
from vaebench.runs import provenance
from vaebench.runs.run import Run, now, write_atomic, write_json
from vaebench.samplers.markov_chains import MarkovChainSampler

NUM_EXACT = 20_000  # exact draws, for comparing marginals
_log = logging.getLogger(__name__)


def draw_from_energy(cfg: DictConfig, sampler: MarkovChainSampler, hardware: Any) -> tuple[Run, dict[str, Any]]:
    """Run the chains, and write draws, trajectory, diagnostics and pictures.

    Returns:
        The run, and the record that lies in its samples/<sampler>/diagnostics.json.
    """
    if cfg.run is not None:
        raise ValueError(f"run: target={sampler.target.name} needs no trained model; leave run= out")
    wants_netcdf(cfg)
    run, choices = Run(_directory(sampler)), factory.plain(cfg)
    is_new = not run.path.is_dir() or not any(run.path.iterdir())
    if not is_new and not may_continue(run, sampler.name):
        raise ValueError(f"hydra.run.dir: '{run.path}' is not empty; choose another, or leave it out for a new one")
    device = hardware.prepare(cfg.seed)
    sampler.setup().to(device)
    file = unfinished(run.samples(sampler.name), choices, device)
    if not is_new and file.is_of_others():
        raise ValueError(
            f"hydra.run.dir: '{run.path}' holds unfinished chains of other settings; give those again, or choose "
            "another directory"
        )
    with run.lock():
        factory.save_config(run, cfg)
        provenance.record_start(run, seed=cfg.seed, overrides=list(HydraConfig.get().overrides.task))
        run.set_status("running", epoch=0, step=0)
        try:
            with kept(sampler, file, f"the same command with hydra.run.dir={run.path}"):
                record = _draw(cfg, run, sampler, hardware, choices)
            file.discard()
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            run.set_status("interrupted" if stopped else "failed", reason=" ".join(str(error).split()) or None)
            raise
        run.set_status("done")
        provenance.record_end(run)
    return run, record


def _draw(
    cfg: DictConfig, run: Run, sampler: MarkovChainSampler, hardware: Any, choices: Mapping[str, Any]
) -> dict[str, Any]:
    started = time.monotonic()
    with progress(sampler.name, "transition") as done:
        draws = sampler.sample(cfg.num_samples, progress=done.tell)
    seconds = time.monotonic() - started
    if sampler.unfinished is not None:
        seconds += sampler.unfinished.seconds_before
    chains, energy, report = sampler.chains, sampler.energy, sampler.report
    assert energy is not None
    assert report is not None
    trajectory = chains.positions.transpose(0, 1).contiguous()
    if not trajectory.isfinite().all():
        raise FloatingPointError("a state is not finite; nothing was written")
    least = min((ess for ess in (*report.ess_bulk, *report.ess_tail) if ess is not None), default=None)
    total = float(chains.num_gradients.sum())
    exact = _exact(energy, cfg.seed)
    record = {
        "sampler": sampler.name,
        "target": sampler.target.name,
        "time": now(),
        "settings": {
            "num_samples": cfg.num_samples,
            "seed": cfg.seed,
            "sampler": choices["sampler"],
            "temperature": report.temperature,
            "hardware": hardware.describe(),
            "version": __version__,
        },
        "diagnostics": report.as_dict(),
        "seconds": seconds,
        "ess_per_1000_gradients": None if least is None or report.num_gradients is None else 1000 * least / total,
        "ess_per_second": None if least is None else least / max(seconds, 1e-9),
        "bias_in_standard_errors": _bias(report, exact, energy.reference) if report.temperature == 1 else None,
    }
    folder, title = run.samples(sampler.name), f"sampler={sampler.name} target={sampler.target.name}"
    tensors = {"draws": draws.z.cpu().contiguous(), "trajectory": trajectory.cpu()}
    write_atomic(folder / "samples.safetensors", save(tensors))
    states, reference = trajectory.double().cpu().numpy(), None if exact is None else exact.double().cpu().numpy()
    pooled = states.reshape(-1, states.shape[-1])
    if states.shape[-1] >= 2:

        def height(points: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                values: Tensor = energy.energy(torch.from_numpy(points).to(trajectory))
            return values.double().cpu().numpy()

        write_atomic(folder / "landscape.png", chain_plots.landscape(states, height, title))
        if cfg.animation:
            write_atomic(folder / "animation.gif", chain_plots.animation(states, height, title))
    write_atomic(folder / "marginals.png", chain_plots.marginals(pooled, reference, title))
    lags = autocorrelation(chains.positions.double().cpu())[:100].T.tolist()
    write_atomic(folder / "traces.png", chain_plots.traces(states, lags, title))
    if wants_netcdf(cfg):
        write_netcdf(folder / "draws.nc", sampler, title)
    write_json(folder / "diagnostics.json", record)
    write_json(run.evaluation("chains"), _evaluation(record))
    return record


def wants_netcdf(cfg: DictConfig) -> bool:
    """Whether draws.nc is to be written: where ArviZ is installed, unless the user says otherwise.

    Raises:
        ValueError: if the file is asked for, and ArviZ is missing.
    """
    if cfg.netcdf and not netcdf.is_available():
        raise ValueError("netcdf: draws.nc is written by ArviZ, which is not installed: pip install arviz")
    return netcdf.is_available() if cfg.netcdf is None else bool(cfg.netcdf)


def write_netcdf(path: Path, sampler: MarkovChainSampler, title: str) -> None:
    """Write the draws of all chains, with acceptance, divergences and total energies."""
    chains, thinning = sampler.chains, sampler.thinning
    statistics = {
        "acceptance_rate": chains.acceptance_probability,
        "diverging": chains.is_divergent,
        "energy": chains.total_energy,
    }
    kept = {name: value[thinning - 1 :: thinning].T.cpu().numpy() for name, value in statistics.items()}
    draws = chains.positions.transpose(0, 1).cpu().numpy()
    attributes = {"title": title, "created_by": f"vaebench {__version__}"}
    write_atomic(path, lambda place: netcdf.write(place, draws, kept, attributes))


def _directory(sampler: MarkovChainSampler) -> Path:
    """Where the run goes: where the user says, the job's folder of a sweep, or a new one under outputs/."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN or any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra):
        return Path(hydra.runtime.output_dir)
    moment = datetime.now()
    name = f"{moment:%H-%M-%S-%f}-{sampler.name}-{sampler.target.name}"
    return Path("outputs") / f"{moment:%Y-%m-%d}" / name


def _exact(energy: BaseEnergyFunction, seed: int) -> Tensor | None:
    if not isinstance(energy, ExactEnergy):
        return None
    with fixed_rng(seed, Stream.SAMPLER):
        return energy.exact_sample(NUM_EXACT)


def _bias(report: Any, exact: Tensor | None, reference: Reference | None) -> float | None:
    """The largest distance of the chains' means from exact draws' or published ones, in standard errors of both."""
    if exact is not None:
        means, errors = exact.double().mean(0), exact.double().std(0) / math.sqrt(len(exact))
    elif reference is not None:
        means, errors = reference.mean, reference.mean_error
    else:
        return None
    if None in report.mcse_mean:
        return None
    combined = torch.hypot(torch.tensor(report.mcse_mean).double(), errors.double())
    return float(((torch.tensor(report.mean).double() - means).abs() / combined).max())


def _evaluation(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `vaebench report` compares runs by, in the form of an evaluation."""
    worst = record["diagnostics"]["worst"]
    found = {
        "ess_per_1000_gradients": (record["ess_per_1000_gradients"], "draws", "higher"),
        "ess_per_second": (record["ess_per_second"], "draws/s", "higher"),
        "bias_in_standard_errors": (record["bias_in_standard_errors"], "standard errors", "lower"),
        "r_hat": (worst["r_hat"], "", "lower"),
    }
    values = {
        name: {"value": value, "standard_error": None, "unit": unit, "better": better}
        for name, (value, unit, better) in found.items()
        if value is not None
    }
    settings = {"temperature": record["settings"]["temperature"]}
    return {"values": values, "how": "from the chains, by vaebench sample", "settings": settings}


def say_efficiency(record: Mapping[str, Any]) -> None:
    """Print what a gradient and a second are worth, and how far the means are from exact ones."""
    if record["ess_per_second"] is not None:
        gradients = record["ess_per_1000_gradients"]  # None without gradients
        per_gradient = "" if gradients is None else f"{gradients:.3g} effective draws per 1000 gradients, "
        say(f"{per_gradient}{record['ess_per_second']:.3g} {'' if per_gradient else 'effective draws '}per second")
    if record["bias_in_standard_errors"] is not None:
        say(f"means within {record['bias_in_standard_errors']:.1f} standard errors of exact or published ones")
