"""`vaebench sample`: draw latents from a trained run, decode them, and say how far Markov chains can be trusted."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from vaebench import __version__, factory
from vaebench.commands.checkpoint import checkpoint_record
from vaebench.commands.console import show_table
from vaebench.commands.energy import draw_from_energy, say_efficiency, wants_netcdf, write_netcdf
from vaebench.commands.labels import grid, labels_of
from vaebench.commands.landscape import landscape_of
from vaebench.commands.progress import progress
from vaebench.commands.unfinished import kept, unfinished
from vaebench.core import Draws
from vaebench.factory import configurations
from vaebench.factory.signatures import convert
from vaebench.hardware.random_streams import Stream, seed_stream
from vaebench.messages import counted
from vaebench.runs.files import refuse_unwritable, replaced_folder
from vaebench.runs.regular import read_bytes
from vaebench.runs.run import Run, now, read_json, write_atomic, write_json
from vaebench.samplers.base import BaseSampler
from vaebench.samplers.fitting import kept_fit
from vaebench.samplers.latents import decode, encode
from vaebench.samplers.markov_chains import MarkovChainSampler
from vaebench.samplers.stored import FITTED, content, origin, reuse

SETTINGS = {
    "seed": int,
    "run": str | None,
    "num_samples": int,
    "y": int | list[int] | list[list[float]] | None,
    "checkpoint": Literal["best", "last"],
    "animation": bool,
    "netcdf": bool | None,
}
UNUSED = {"target": "auto", "kernel": "hmc"}  # the defaults of conf/sample.yaml
USUAL, MAX_NAMED = ("normal", "gaussian_mixture", "hmc"), 5  # named first, and how many of those that serve a model
FIT, HISTORY = "fit", "fit.jsonl"  # folder of an unfinished fit, and the losses of a finished one
_log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> None:
    """Sample from a run: latents and images, a grid, and a record with the diagnostics."""
    for key, annotation in SETTINGS.items():
        convert(factory.plain(cfg)[key], annotation, key, lambda value: None)
    if cfg.num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {cfg.num_samples}")
    sampler = factory.sampler(cfg)
    choices = factory.plain(cfg)
    _refuse_unused(sampler.name, choices)
    hardware = factory.hardware(cfg)
    if not sampler.needs_model:
        if choices["y"] is not None:
            raise ValueError(f"y: sampler={sampler.name} draws from an energy, which knows no labels; leave it out")
        run, record = draw_from_energy(cfg, sampler, hardware)
        _show(run, run.samples(sampler.name), sampler.name, cfg.num_samples, record["diagnostics"])
        say_efficiency(record)
        return
    _refuse_unused_files(cfg, sampler)
    run = Run.newest() if cfg.run is None else Run.open(cfg.run)
    refuse_unwritable(run.samples(sampler.name), "run")
    run.remove_temporaries()
    places = choices["dataset"]
    _, _, model = factory.load_model(run, cfg.checkpoint, places)
    if "energy" not in model.capabilities:  # an energy's draws are already examples
        model.require("likelihood")  # needed to decode
    train = factory.TrainingSplit(run, places)  # lazy: a sampler from the prior never reads it
    reason = sampler.why_not(model)
    if reason is not None:
        raise ValueError(f"sampler: {reason}; {other_samplers(model)}")
    if (caution := sampler.caution(model)) is not None:
        _log.warning("%s", caution)
    labels = labels_of(choices["y"], cfg.num_samples, model, sampler)
    device = hardware.prepare(cfg.seed)
    model.to(device)

    folder, checkpoint = run.samples(sampler.name), checkpoint_record(run, cfg.checkpoint)
    belongs_to = origin(checkpoint["sha256"], choices["sampler"])
    sampler.setup(model, train)
    is_reused = sampler.learns and reuse(sampler, folder / FITTED, belongs_to)
    if sampler.learns:
        if not is_reused:
            _fit(sampler, encode(model, train), folder / FIT, belongs_to, cfg.seed)
        seed_stream(cfg.seed, Stream.SAMPLER)  # a stored sampler then draws as a new one would
    chains = unfinished(folder, choices, device, checkpoint["sha256"])
    with kept(sampler, chains, "the same command"), progress(sampler.name, "transition") as done:
        y = None if labels is None else labels.to(device)
        draws = sampler.sample(cfg.num_samples, y, progress=done.tell)
    with hardware.autocast():  # not around the chains, which need full precision
        images = decode(model, draws)
    record = {
        "sampler": sampler.name,
        "time": now(),
        "settings": {
            "run": str(run.path),
            "checkpoint": checkpoint,
            "num_samples": cfg.num_samples,
            "y": choices["y"],
            "seed": cfg.seed,
            "sampler": choices["sampler"],
            "temperature": choices["sampler"].get("temperature"),
            "hardware": hardware.describe(),
            "version": __version__,
        },
        "fitted_sampler_reused": is_reused if sampler.learns else None,
        "diagnostics": sampler.diagnostics(),
    }
    record["replaced"] = _earlier(folder)
    fitted = {FITTED: content(sampler, belongs_to)} if sampler.learns else {}
    history = next((path for path in (folder / FIT / "metrics.jsonl", folder / HISTORY) if path.is_file()), None)
    if sampler.learns and history is not None:
        fitted[HISTORY] = read_bytes(history)
    _write(folder, draws, images.cpu(), record, fitted)
    if isinstance(sampler, MarkovChainSampler) and wants_netcdf(cfg):
        write_netcdf(folder / "draws.nc", sampler, f"sampler={sampler.name} on {run.path}")
    if (landscape := landscape_of(model, sampler)) is not None:
        write_atomic(folder / "landscape.png", landscape)
    _show(run, folder, sampler.name, len(draws), record["diagnostics"])
    if record["replaced"] is not None:
        old = ", ".join(f"{key} {value}" for key, value in record["replaced"].items() if value is not None)
        _log.warning("replaced an earlier sample in %s (%s)", folder, old or "of which nothing is known")


def _refuse_unused_files(cfg: DictConfig, sampler: BaseSampler) -> None:
    """Refuse files that a sampler of a trained model does not write."""
    if cfg.animation:
        raise ValueError(
            f"animation: sampler={sampler.name} draws latents of a model here, and only chains on an energy are "
            "animated; leave it out, or give target=double_well"
        )
    if cfg.netcdf and not isinstance(sampler, MarkovChainSampler):
        raise ValueError(f"netcdf: draws.nc holds Markov chains, and sampler={sampler.name} has none; leave it out")
    if isinstance(sampler, MarkovChainSampler):
        wants_netcdf(cfg)


def _refuse_unused(name: str, choices: Mapping[str, Any]) -> None:
    """Refuse a target or a kernel that the sampler does not take."""
    used = [str(value.get("_target_")) for value in choices["sampler"].values() if isinstance(value, Mapping)]
    for group, default in UNUSED.items():
        target, word = choices[group]["_target_"], HydraConfig.get().runtime.choices.get(group, default)
        if target not in used and word != default:
            what = "draws from no target" if group == "target" else "has a kernel of its own"
            raise ValueError(f"{group}: sampler={name} {what}; leave {group}= out, or choose sampler=mcmc")


def other_samplers(model: Any) -> str:
    """Name the samplers that serve the model, with their default settings."""
    folders = configurations.folders()
    parts = {group: configurations.load(f"{group}/{name}", folders) for group, name in UNUSED.items()}
    serving = []
    for name in configurations.options(folders).get("sampler", []):
        with contextlib.suppress(ValueError):
            sampler = factory.sampler({"sampler": configurations.load(f"sampler/{name}", folders), **parts})
            if sampler.needs_model and sampler.why_not(model) is None:
                serving.append(f"sampler={name}")
    if not serving:
        return "no sampler does"
    serving.sort(key=lambda word: word.partition("=")[2] not in USUAL)
    more = f" and {len(serving) - MAX_NAMED} others" if len(serving) > MAX_NAMED + 1 else ""
    return f"samplers that do: {', '.join(serving[:MAX_NAMED] if more else serving)}{more}"


def _earlier(folder: Path) -> dict[str, Any] | None:
    """Return the record of the sample in the folder, or None if there is none."""
    if not (folder / "samples.safetensors").is_file():
        return None
    try:
        record = read_json(folder / "diagnostics.json")
        settings = record["settings"]
        known = {"time": record["time"], "seed": settings["seed"], "num_samples": settings["num_samples"]}
        return {**known, "checkpoint": settings["checkpoint"]["name"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # damaged, and replaced anyway


def _fit(sampler: BaseSampler, latents: Draws, folder: Path, belongs_to: Mapping[str, str], seed: int) -> None:
    """Fit a sampler; an interrupted fit waits in `folder`, and the same command goes on with it."""
    with kept_fit(folder, belongs_to, seed), progress(f"fitting {sampler.name}", "epoch") as done:
        try:
            sampler.fit(latents, done.tell, folder)
        except KeyboardInterrupt:
            if (folder / "checkpoints").is_dir():
                _log.warning("interrupted; the fit is kept in '%s', and the same command goes on with it", folder)
            raise


def _write(folder: Path, draws: Draws, images: Tensor, record: Mapping[str, Any], fitted: Mapping[str, bytes]) -> None:
    """Write all files into a folder that then takes the place of the old one: they change together."""
    with replaced_folder(folder) as staging:
        tensors = {"latents": draws.z.detach().cpu().contiguous(), "images": images.contiguous()}
        if draws.y is not None:
            tensors["labels"] = draws.y.cpu().contiguous()
        for name, stored in fitted.items():
            write_atomic(staging / name, stored)
        write_atomic(staging / "samples.safetensors", save(tensors))
        if images.ndim in (4, 5):
            picture = grid(images, record["settings"]["y"])
            write_atomic(staging / "grid.png", lambda path: picture.save(path, format="PNG"))
        write_json(staging / "diagnostics.json", record)


def _show(run: Run, folder: Path, name: str, num_samples: int, diagnostics: Mapping[str, Any] | None) -> None:
    if diagnostics is not None:
        worst = diagnostics["worst"]
        rows = [
            ("chains x draws", f"{diagnostics['num_chains']} x {diagnostics['num_draws']}"),
            ("acceptance rate", _number(diagnostics["acceptance_rate"], ".3f")),
            ("R-hat (worst)", _number(worst["r_hat"], ".3f")),
            ("ESS bulk (least)", _number(worst["ess_bulk"], ".0f")),
            ("ESS tail (least)", _number(worst["ess_tail"], ".0f")),
            ("divergences", _number(diagnostics["num_divergences"], "d")),
            ("E-BFMI (least)", _number(diagnostics["e_bfmi"], ".2f")),
            ("step size", f"{diagnostics['step_size']:.3g}"),
            ("gradients per chain", _number(diagnostics["num_gradients"], ".0f")),
            *((name, f"{value:.4g}") for name, value in diagnostics["kernel"].items()),
        ]
        show_table(f"sampler={name} on {run.path}", ("diagnostic", "value"), rows)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if diagnostics is not None:
        for sentence in diagnostics["verdict"] or ["No fault was found in the chains."]:
            console.print(sentence)
    console.print(f"{counted(num_samples, 'sample')}: {folder}")


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
