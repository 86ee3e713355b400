"""Signals: the first saves and leaves, the second ends at once, what was there before comes back."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.trainers.test_resume import At, contents, train
from vaebench.hardware.signals import Interrupted, SignalFlag
from vaebench.runs.run import Run

NAMES = ("SIGINT", "SIGTERM", "SIGUSR2")


def send(name):
    return lambda: os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", NAMES)
def test_signal_saves_and_leaves(name, tmp_path):
    before = [signal.getsignal(getattr(signal, other)) for other in NAMES]
    with pytest.raises(Interrupted, match=f"interrupted by {name}"):
        train("base", tmp_path, [At(5, send(name))])
    assert Run(tmp_path).read_status()["status"] == "interrupted"
    assert Run(tmp_path).read_status()["step"] == 5
    assert [signal.getsignal(getattr(signal, other)) for other in NAMES] == before


def test_interruption_is_a_keyboard_interrupt():
    assert issubclass(Interrupted, KeyboardInterrupt)  # so that the command line ends with 130
    assert pickle.loads(pickle.dumps(Interrupted(15))).signum == 15


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_former_handler_is_called_after_saving_and_may_go_on(name, tmp_path):
    """A cluster's handler requeues the job, or lets it go on until it is killed."""
    seen = []

    def former(signum, frame):
        seen.append(
            (signum, Run(tmp_path / "run").read_status()["status"], Run(tmp_path / "run").read_status()["step"])
        )

    old = signal.signal(getattr(signal, name), former)
    try:
        train("base", tmp_path / "run", [At(5, send(name)), At(9, send(name))])
    finally:
        signal.signal(getattr(signal, name), old)
    assert seen == [(getattr(signal, name), "interrupted", step) for step in (5, 9)]
    assert Run(tmp_path / "run").read_status()["status"] == "done"
    train("base", tmp_path / "whole")
    assert contents(tmp_path / "run").keys() == contents(tmp_path / "whole").keys()


def test_former_handler_may_leave(tmp_path):
    def former(signum, frame):
        raise SystemExit(0)

    old = signal.signal(signal.SIGUSR2, former)
    try:
        with pytest.raises(SystemExit):
            train("base", tmp_path, [At(5, send("SIGUSR2"))])
    finally:
        signal.signal(signal.SIGUSR2, old)
    assert Run(tmp_path).read_status()["status"] == "interrupted"


@pytest.mark.parametrize("name", NAMES)
def test_second_signal_ends_at_once(name):
    program = f"""
        import os, signal, time
        from vaebench.hardware.signals import SignalFlag
        with SignalFlag() as flag:
            os.kill(os.getpid(), signal.{name})
            assert flag.received == signal.{name}
            os.kill(os.getpid(), signal.{name})
            print("still here")
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == -getattr(signal, name)
    assert "still here" not in done.stdout


def test_process_that_does_not_write_ignores_signals():
    with SignalFlag(enabled=False) as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.received == 0
