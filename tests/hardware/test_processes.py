"""Processes that work on one run."""

from __future__ import annotations

import pytest
import torch

from vaebench.hardware import collective
from vaebench.hardware.device import Hardware, cores
from vaebench.hardware.processes import launch

TWO = Hardware(device="cpu", num_devices=2, threads=1)
needs_two_cores = pytest.mark.skipif(cores() < 2, reason="two processes need two cores")


def total(start):
    value = torch.tensor([float(start + collective.rank())])
    torch.distributed.all_reduce(value)
    return float(value), collective.rank(), collective.world_size()


def mistake_in_second():
    if collective.rank() == 1:
        raise ValueError("trainer.something must be else")
    torch.distributed.all_reduce(torch.zeros(1))


def failure_in_second():
    if collective.rank() == 1:
        raise KeyError("lost")
    torch.distributed.all_reduce(torch.zeros(1))


def failure_in_first():
    if collective.rank() == 0:
        raise ValueError("only here")
    torch.distributed.all_reduce(torch.zeros(1))


def test_one_process_is_a_plain_call():
    assert launch(Hardware(device="cpu"), int, "7") == 7


@needs_two_cores
@pytest.mark.slow
def test_two_processes_exchange_tensors():
    assert launch(TWO, total, 10) == (21.0, 0, 2)


@needs_two_cores
@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        (mistake_in_second, ValueError, "trainer.something must be else"),
        (failure_in_second, RuntimeError, "process 1 failed: KeyError: 'lost'"),
        (failure_in_first, ValueError, "only here"),
    ],
)
def test_error_of_any_process_is_told(function, kind, words):
    with pytest.raises(kind, match=words):
        launch(TWO, function)
    assert not torch.distributed.is_initialized()


def test_more_processes_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr("vaebench.hardware.device.cores", lambda: 2)
    with pytest.raises(ValueError, match=r"hardware.num_devices=3: .* it has|this machine has 2"):
        launch(Hardware(device="cpu", num_devices=3), total, 1)
