"""Trackers, with the real packages, writing to the disk only."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.trainers.toy_models import Toy, toy_data
from vaebench.hardware.device import Hardware
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer
from vaebench.trainers.callbacks.mlflow import MLflow
from vaebench.trainers.callbacks.tensorboard import TensorBoard
from vaebench.trainers.callbacks.tracker import numbers
from vaebench.trainers.callbacks.wandb import WandB

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the warnings of other packages are theirs


def train(callback, path, num_epochs=2):
    torch.manual_seed(0)
    trainer = BaseTrainer(num_epochs=num_epochs, batch_size=10)
    return trainer.train(Toy(), toy_data(), run=Run(path), callbacks=[callback], hardware=Hardware(device="cpu"))


def losses(path):
    return [row["loss"] for row in Run(path).read_metrics() if row["split"] == "validation"]


def test_tensorboard_shows_every_row_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(TensorBoard(), tmp_path)
    train(TensorBoard(), tmp_path, num_epochs=4)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = events.Scalars("validation/loss")
    assert [point.step for point in points] == [5, 10, 15, 20]
    assert [point.value for point in points] == pytest.approx(losses(tmp_path), rel=1e-6)


def test_wandb_keeps_a_run_offline_and_goes_on_with_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for key in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(key, str(tmp_path / "elsewhere"))
    first, second = WandB(), WandB()
    train(first, tmp_path)
    started = int(time.time())
    while int(time.time()) == started:  # wandb names its folders by the second
        time.sleep(0.02)
    train(second, tmp_path, num_epochs=4)
    assert first._id == second._id
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{first._id}/run-{first._id}.wandb"))
    assert len(files) == 2
    assert b"validation/loss" in files[0].read_bytes()


def test_mlflow_writes_files_and_goes_on_with_its_run(tmp_path):
    pytest.importorskip("mlflow")
    callback = MLflow()
    train(callback, tmp_path)
    train(MLflow(), tmp_path, num_epochs=4)
    history = callback._client.get_metric_history(callback._id, "validation/loss")
    assert [point.step for point in history] == [5, 10, 15, 20]
    assert [point.value for point in history] == pytest.approx(losses(tmp_path))
    run = callback._client.get_run(callback._id)
    assert run.info.status == "FINISHED"
    assert run.data.params["trainer.batch_size"] == "10"


@pytest.mark.parametrize("kind", [TensorBoard, WandB, MLflow])
def test_missing_package_is_one_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=rf"callback={kind.package} needs the package .*pip install 'vaebench\[trackers\]'"
    ):
        train(kind(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_folder_is_no_package(tmp_path, monkeypatch):
    class Missing(TensorBoard):
        package = "missing_tracker"

    (tmp_path / Missing.package / "offline-run").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="callback=missing_tracker needs the package"):
        train(Missing(), tmp_path / "run")


@pytest.mark.parametrize("kind", [TensorBoard, WandB, MLflow])
def test_importing_the_callback_does_not_import_the_package(kind):
    source = Path(sys.modules[kind.__module__].__file__).read_text()
    top = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not any(line.split()[1].partition(".")[0] == kind.package for line in top)


def test_wandb_mode_is_checked():
    with pytest.raises(ValueError, match=r"callback.wandb.mode must be one of online, offline, disabled; got 'ofline'"):
        WandB(mode="ofline")


def test_only_finite_numbers_are_shown():
    row = {"step": 1, "epoch": 1, "split": "train", "loss": 2, "bad": float("nan"), "text": "x"}
    assert numbers(row) == {"train/loss": 2.0}
