"""Shared by every test: one thread, a fixed seed, two workers for the whole suite, and what each test costs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator

import pytest
import torch

from tests import shared
from tests.budget import Budget
from vaebench.hardware import processes
from vaebench.hardware.device import cores

os.environ.setdefault("OMP_NUM_THREADS", "1")  # trainers leave the number of threads to who sets it
torch.set_num_threads(1)
NUM_WORKERS = 2


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give the whole suite two workers; a selection of files runs in this process, and `-n` decides otherwise."""
    is_worker = hasattr(config, "workerinput")
    is_chosen = is_worker or config.getoption("numprocesses", None) is not None or config.getoption("usepdb")
    if is_whole(config) and not is_chosen and cores() >= NUM_WORKERS:
        config.option.numprocesses = NUM_WORKERS
        config.option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    """Measure what tests cost."""
    config.pluginmanager.register(Budget(is_whole=is_whole(config)))


def is_whole(config: pytest.Config) -> bool:
    """Whether no folder or file was named."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.fixture(scope="session", autouse=True)
def _processes_start_quickly() -> Iterator[None]:
    """Fork the processes of `launch` from one that has imported what they need: a spawned one takes five seconds.

    The program itself spawns; tests/commands/test_train.py tries that.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_START_METHOD", "forkserver")
        modules = ["vaebench.models.base", "vaebench.trainers.base", "torch._dynamo", "tests.models.test_processes"]
        multiprocessing.set_forkserver_preload(modules)
        yield


@pytest.fixture(scope="session", autouse=True)
def _shared_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Name the folder of what is made once: beside those of the workers, or of this process alone."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    shared.STORE[:] = [folder]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
