"""Sweeps that are stopped in their middle, by Ctrl-C or by a kill, and go on; long ones; and failures."""

import os
import signal
import time

import pytest

from tests.sweeps.stand_in import StandIn, resident_kib, wait_for
from vaebench.sweeps.record import Sweep

WORDS = ("train", "-m", "hardware=submitit_local", "hardware.array_parallelism=2", "hydra.sweep.dir=s")


@pytest.fixture
def command(tmp_path):
    return StandIn(tmp_path)


def names(command):
    return [state.name for state in Sweep.open(command.folder / "s").states().values()]


def test_after_ctrl_c_the_same_line_runs_what_is_missing(command):
    words = (*WORDS, "seed=0,1,2", "trainer.optimizer=waits")
    process = command.start(*words)
    wait_for(lambda: (command.folder / "s/1/started").exists())
    os.killpg(process.pid, signal.SIGINT)
    command.end(process, 130)
    assert names(command) == ["interrupted", "interrupted", "waiting"]
    assert not list((command.folder / "active").iterdir())  # no job goes on behind the user's back
    (command.folder / "go").touch()
    command.run(*words)
    assert names(command) == ["done"] * 3
    assert len(command.started) == 5
    assert "all 3 jobs of 's' are done" in command.run("sweep", "resume", "s")
    assert len(command.started) == 5  # a finished job is not run again


def test_after_a_kill_jobs_that_are_under_way_are_waited_for_and_not_run_twice(command):
    words = (*WORDS, "seed=0,1,2", "trainer.optimizer=waits")
    process = command.start(*words)
    wait_for(lambda: all((command.folder / f"s/{number}/started").exists() for number in (0, 1)))
    process.kill()
    command.end(process, -signal.SIGKILL)
    record = command.folder / "s" / "sweep.json"
    before = record.stat().st_mtime_ns
    again = command.start("sweep", "resume", "s")
    wait_for(lambda: record.stat().st_mtime_ns > before)  # it has read what is under way
    time.sleep(1)
    (command.folder / "go").touch()
    command.end(again)
    assert names(command) == ["done"] * 3
    assert len(command.started) == 3
    assert command.most_at_once == 2


def test_two_hundred_jobs_two_at_a_time_in_flat_memory(command):
    process = command.start(*WORDS, "seed=range(0,200)")
    wait_for(lambda: len(command.started) >= 60)
    early = resident_kib(process.pid)
    wait_for(lambda: len(command.started) >= 190)
    late = resident_kib(process.pid)
    told = command.end(process)
    assert "200 jobs in this sweep" in told
    assert "200 done" in told
    assert command.most_at_once == 2
    assert late - early < 2_000, f"{early} KiB after 60 jobs, {late} KiB after 190"


def test_a_sweep_that_nobody_waits_for_goes_on_behind_and_can_be_cancelled(command):
    words = (*WORDS, "seed=0,1,2", "trainer.optimizer=waits", "sweep.wait=false")
    assert "submitted 3 jobs; vaebench sweep status s" in command.end(command.start(*words))
    wait_for(lambda: all((command.folder / f"s/{number}/started").exists() for number in (0, 1)))
    told = command.run("sweep", "status", "s")
    assert "seed=1" in told
    assert "2 submitted, 1 waiting" in told
    (command.folder / "go").touch()
    wait_for(lambda: names(command) == ["done"] * 3)
    assert command.most_at_once == 2


def test_every_failure_is_listed_with_its_reason_and_its_log(command):
    told = command.run(*WORDS, "seed=0,1", "trainer.optimizer=done,raises,killed", code=1)
    table = told[told.index("jobs that did not succeed") :]
    for number, reason in {1: "no luck", 2: "killed by SIGKILL", 4: "no luck", 5: "killed by SIGKILL"}.items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"{number} ")]
        assert reason in row
        assert row.endswith(f"s/.jobs/{number}.log")
    assert "4 of 6 jobs did not succeed" in told
    assert names(command) == ["done", "failed", "died"] * 2
