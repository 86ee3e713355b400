"""`vaebench train`: one run, from a configuration to a run directory; started again on it, the run goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vaebench import factory
from vaebench.commands.console import say, show_table, to_log_file
from vaebench.commands.summary import cautions, missing_images, results, settings
from vaebench.core import Model
from vaebench.data.io.download import downloads_forbidden
from vaebench.factory.bounds import bounded_by
from vaebench.factory.outward import refuse_unasked
from vaebench.factory.weights import WarmStart
from vaebench.hardware import collective
from vaebench.hardware.device import rank_of_environment
from vaebench.hardware.processes import launch
from vaebench.messages import counted
from vaebench.metrics.base import NotApplicableError
from vaebench.metrics.bounds import check_on_grid
from vaebench.runs import provenance
from vaebench.runs.identity import counts
from vaebench.runs.log import start_log
from vaebench.runs.run import Run
from vaebench.trainers import resume
from vaebench.trainers.callbacks.checkpoint import Checkpoint
from vaebench.trainers.training import Training

FEW = 100  # examples, to check that data lie on the likelihood's grid
_log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> float | None:
    """Train, or continue to train.

    Returns: the best value of the metric that is kept, for sweeps.
    """
    hydra = HydraConfig.get()
    # Not hydra.runtime.output_dir, which Hydra resolves twice, although a folder name may contain `${`.
    run, typed = Run(_as_typed(_output_dir(hydra))), list(hydra.overrides.task)
    if rank_of_environment() > 0:  # started by a launcher: only rank 0 writes
        return _launch(run, cfg, typed)
    with run.lock():
        start_log(run.log)
        is_new = not run.config.is_file()
        try:
            return _launch(run, cfg, typed)
        except BaseException as error:
            if is_new and not run.config.is_file():
                run.discard()
            elif isinstance(error, Exception):
                to_log_file("failed", error=error)
            raise


def _launch(run: Run, cfg: DictConfig, typed: list[str]) -> float | None:
    tree = factory.plain(cfg)
    del tree["resume"]
    tree.pop("sweep", None)  # belongs to the sweep, not to this run
    stored = factory.with_absolute_paths(factory.load_config(run)) if run.config.is_file() else None
    if stored is not None:
        composed, tree = tree, factory.continued(stored, tree, typed)
        refuse_unasked(tree, composed)
    if stored is None and isinstance(tree["init_from"], str):
        tree["init_from"] = os.path.abspath(os.path.expanduser(tree["init_from"]))
    tree = factory.with_absolute_paths(tree)  # other commands must find the data from any folder
    factory.check(tree)
    return launch(factory.hardware(tree), _train, run, tree, typed, stored)


def _train(run: Run, tree: dict[str, Any], typed: list[str], stored: dict[str, Any] | None) -> float | None:
    """Train in one process, of one or several."""
    started = time.monotonic()
    if collective.broadcast_text(str(run.path)) != str(run.path):
        run.discard()  # Hydra made a directory per launched process; rank 0's is the run
    with downloads_forbidden(stored is not None and not any("dataset" in word for word in typed)):
        dataset = factory.dataset(tree)
    tree = factory.with_likelihood(tree, dataset)
    if stored is not None:
        factory.check_data(run, dataset, ("train", "validation"))
    # The data are known to be the same, so their place may differ.
    path_counts = factory.stored_data(run) is None
    if stored is not None and _is_finished(run, factory.refuse_differences(stored, tree, path_counts=path_counts)):
        if collective.rank() == 0:
            print(f"'{run.path}' is finished; raise trainer.num_epochs to extend it")
        return None
    hardware, trainer, callbacks = factory.hardware(tree), factory.trainer(tree), factory.callbacks(tree)
    hardware.prepare(tree["seed"])  # before the model, whose initial weights depend on the seed
    with bounded_by(None if stored is None else run.last_state):
        model = factory.model(tree, dataset)
    start = _warm_start(run, tree, model)
    training = trainer.start(
        model,
        dataset,
        run=run,
        callbacks=callbacks,
        default_callbacks=False,  # the configuration lists them all
        hardware=hardware,
        seed=tree["seed"],
        initial_weights=None if start is None else start.weights,
    )
    if stored is not None:
        _check_continues(run, training)
    try:
        if training.is_main:
            factory.save_config(run, tree)
            origin = None if start is None else start.record
            provenance.record_start(
                run,
                seed=tree["seed"],
                overrides=typed,
                data=dataset.describe(),
                model={"best_criterion": model.best_criterion},
                init_from=origin,
            )
            run.set_status("running")
            _announce(run, tree, training, origin)
            if not run.last_state.is_file():  # nothing to resume
                run.truncate_metrics(0)
        training.run_to_end()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            _log.warning("interrupted in epoch %d; to go on: vaebench train resume=%s", training.epoch + 1, run.path)
        if training.is_main:
            with contextlib.suppress(OSError, ValueError):  # the disk may have failed, or there is no record yet
                if run.read_status().get("status") == "running":  # it failed before the loop
                    run.set_status(
                        "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", reason=str(error)
                    )
                provenance.record_end(run)
        raise
    if training.is_main:
        provenance.record_end(run)
        _summarise(run, training, time.monotonic() - started)
    return training.best


def _warm_start(run: Run, tree: dict[str, Any], model: Model) -> WarmStart | None:
    """Load the weights that a new run starts from; one that goes on has its own."""
    source, parts = tree.get("init_from"), tree.get("init_parts")
    if source is None:
        if parts is not None:
            raise ValueError("init_parts names parts of the weights in init_from; set init_from=<run or file> too")
        return None
    if resume.find(run) is not None:
        return None
    return factory.warm_start(model, source, [parts] if isinstance(parts, str) else parts)


def _announce(run: Run, tree: dict[str, Any], training: Training, origin: dict[str, Any] | None) -> None:
    """Show what is about to be trained."""
    model = training.model
    show_table(f"configuration of {run.path}", ("group", "choice", "settings"), settings(tree), on_stderr=True)
    chosen = " (chosen by hardware.device=auto)" if (tree.get("hardware") or {}).get("device") == "auto" else ""
    parameters = f"{_num_parameters(model):,}"
    _log.info("%s with %s parameters on %s%s", type(model).__name__, parameters, training.device, chosen)
    _log.info("data: %s; likelihood %s", training.dataset.found, training.dataset.likelihood_name)
    for caution in training.dataset.cautions:
        _log.warning("dataset: %s", caution)
    if origin is not None:
        _log.info("starting from the weights in %s", origin["path"])
    if "likelihood" in model.capabilities:
        _warn_of_likelihood(model.likelihood_head, training.dataset.train)
    if not any(isinstance(callback, Checkpoint) for callback in training.observer.callbacks):
        _log.warning("callback.checkpoint is left out: no weights are kept unless a signal ends this run")


def _summarise(run: Run, training: Training, seconds: float) -> None:
    """Print the results."""
    model = training.model
    show_table(
        f"{type(model).__name__} on {training.dataset.name}: {counted(training.epoch, 'epoch')}, "
        f"{counted(training.step, 'step')}, {_num_parameters(model):,} parameters, {seconds:.1f} s",
        ("value", "train", "validation", "best validation"),
        results(run, training.best_by),
    )
    for sentence in [*cautions(run, model), *missing_images(run, model)]:
        say(sentence)
    if training.divergence.sentence is not None:
        say(training.divergence.sentence)
    print(f"run directory: {run.path}")


def _num_parameters(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check_continues(run: Run, training: Training) -> None:
    """Refuse what cannot go on, before anything in the run directory is touched."""
    num_steps = run.read_status().get("step", 0)
    if training.num_steps < num_steps:
        raise ValueError(
            f"trainer: {counted(training.num_steps, 'step')} would be fewer than '{run.path}' already has; "
            "raise trainer.num_epochs"
        )
    if num_steps > 0 and not run.last_state.is_file():
        raise ValueError(
            f"resume: '{run.path}' has done {counted(num_steps, 'step')}, but '{run.last_state}', from which it would "
            "go on, is missing; put the file back, or train a new run"
        )
    if run.provenance.is_file():
        provenance.read(run)
    run.check_metrics()
    training.check_checkpoint()


def _warn_of_likelihood(likelihood: Any, split: Any) -> None:
    """Say at the start what `vaebench evaluate` would say at the end; drawing a batch takes nothing from the noise."""
    with torch.random.fork_rng(devices=[]):
        try:
            check_on_grid(likelihood, split.batch(torch.arange(min(len(split), FEW))).x.cpu())
        except NotApplicableError as reason:
            _log.warning("model.likelihood: %s", reason)


def _is_finished(run: Run, changes: list[str]) -> bool:
    status = run.read_status()
    has_time_run_out = str(status.get("reason")).startswith("trainer.max_minutes")  # which counts anew at each start
    is_longer = any(counts(key, length=True) for key in changes)
    return status.get("status") == "done" and not has_time_run_out and not is_longer


def _output_dir(hydra: Any) -> str:
    container = OmegaConf.to_container(hydra.runtime, resolve=False)
    assert isinstance(container, dict)
    return str(container["output_dir"])


def _as_typed(folder: str) -> Path:
    """Relative to where the user stands, if beneath it."""
    path = os.path.relpath(folder)
    return Path(folder if path.startswith(os.pardir) else path)
