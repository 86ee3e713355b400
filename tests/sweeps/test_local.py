"""Jobs as processes: bounded, cancelled, timed out, told why they failed; a stand-in for the program keeps it cheap."""

import os
import sys
import time

import pytest

from vaebench.sweeps.local import LocalPool, read_end
from vaebench.sweeps.pool import last_line
from vaebench.sweeps.record import Sweep, continued
from vaebench.sweeps.runner import run_to_end

PROGRAM = """
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[2:])
run = pathlib.Path(words["hydra.run.dir"]); run.mkdir(parents=True, exist_ok=True)
kind = words["kind"]
if kind == "raises": print("vaebench train: seed must be at least 0, got -1", file=sys.stderr); sys.exit(2)
if kind == "killed": os.kill(os.getpid(), signal.SIGKILL)
if kind == "waits":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    (run / "started").touch(); time.sleep(60)
(run / "status.json").write_text(json.dumps({"status": "done", "epoch": 1, "step": 1}))
"""


def sweep_of(tmp_path, *kinds) -> Sweep:
    made = continued(tmp_path / "s", [], "local", [[f"kind={kind}", f"seed={n}"] for n, kind in enumerate(kinds)])
    made.path.mkdir()
    return made


def pool_of(tmp_path, parallelism=2, **options) -> LocalPool:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return LocalPool(parallelism, program=(sys.executable, str(program)), **options)


def test_one_that_dies_takes_no_other_with_it(tmp_path):
    sweep, told = sweep_of(tmp_path, "done", "raises", "killed", "done"), []
    bad = run_to_end(sweep, pool_of(tmp_path), sweep.jobs, lambda job, outcome: told.append(job.number), pause=0.02)
    assert sorted(told) == [0, 1, 2, 3]
    assert {job.number: (job.outcome, job.reason) for job in bad} == {
        1: ("failed", "vaebench train: seed must be at least 0, got -1"),
        2: ("died", "killed by SIGKILL, as the system does where memory runs out"),
    }
    assert [state.name for state in sweep.states().values()] == ["done", "failed", "died", "done"]
    assert Sweep.open(sweep.path) == sweep
    assert [job.number for job in sweep.unfinished()] == [1, 2]


def test_never_more_at_a_time_than_allowed(tmp_path, monkeypatch):
    sweep, pool, most = sweep_of(tmp_path, *["done"] * 7), pool_of(tmp_path, 2), []
    submit = pool.submit

    def watched(of, jobs):
        submit(of, jobs)
        most.append(len(pool._processes))

    monkeypatch.setattr(pool, "submit", watched)
    assert run_to_end(sweep, pool, sweep.jobs, lambda *_: None, pause=0.01) == []
    assert max(most) == 2
    assert all(state.name == "done" for state in sweep.states().values())


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_job_that_is_cancelled_saves_and_can_run_again(tmp_path):
    sweep, pool = sweep_of(tmp_path, "waits"), pool_of(tmp_path)
    (job,) = sweep.jobs
    pool.submit(sweep, [job])
    wait_for((sweep.run(job).path / "started").exists)
    pool.cancel(sweep, job)
    wait_for(lambda: job.number not in pool._processes or pool.outcome(sweep, job) is not None)
    assert job.submissions == 1


def test_a_job_over_its_time_is_asked_to_end(tmp_path):
    sweep, pool = sweep_of(tmp_path, "waits"), pool_of(tmp_path, timeout_min=1e-9)
    (job,) = sweep.jobs
    pool.submit(sweep, [job])
    wait_for((sweep.run(job).path / "started").exists)
    found = []
    wait_for(lambda: found.append(pool.outcome(sweep, job)) or found[-1] is not None)
    assert found[-1].name in ("interrupted", "died")  # SIGTERM may come before Python listens


def test_an_interruption_ends_the_jobs_and_leaves_a_record(tmp_path):
    sweep, pool = sweep_of(tmp_path, "waits", "waits", "done"), pool_of(tmp_path, 2)

    def interrupt(of, job):
        if all((of.run(job).path / "started").exists() for job in of.jobs[:2]):
            raise KeyboardInterrupt

    outcome = pool.outcome
    pool.outcome = lambda of, job: interrupt(of, job) or outcome(of, job)
    with pytest.raises(KeyboardInterrupt):
        run_to_end(sweep, _Once(pool, outcome), sweep.jobs, lambda *_: None, pause=0.02)
    assert [job.outcome for job in Sweep.open(sweep.path).jobs] == ["interrupted", "interrupted", None]


class _Once:
    """Raises in its first look only, as a keyboard does."""

    def __init__(self, pool, outcome):
        self.pool, self.later, self.raised = pool, outcome, False
        self.capacity = pool.capacity

    def submit(self, sweep, jobs):
        self.pool.submit(sweep, jobs)

    def is_under_way(self, sweep, job):
        return False

    def cancel(self, sweep, job):
        self.pool.cancel(sweep, job)

    def outcome(self, sweep, job):
        if self.raised:
            return self.later(sweep, job)
        try:
            return self.pool.outcome(sweep, job)
        except KeyboardInterrupt:
            self.raised = True
            raise


def test_gpus_are_taken_in_turn(tmp_path):
    pool = pool_of(tmp_path, 3, gpus=["0", "1"])
    sweep = sweep_of(tmp_path, "done", "done", "done")
    assert [pool._environment(job)["CUDA_VISIBLE_DEVICES"] for job in sweep.jobs] == ["0", "1", "0"]


def test_cores_are_shared(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("vaebench.sweeps.local._cores", lambda: 8)
    sweep = sweep_of(tmp_path, "done")
    assert pool_of(tmp_path, 3)._environment(sweep.jobs[0])["OMP_NUM_THREADS"] == "2"


def test_the_process_of_an_earlier_command_that_is_gone_is_told(tmp_path):
    sweep = sweep_of(tmp_path, "done")
    sweep.jobs[0].job_id, sweep.jobs[0].host = "999999999", os.uname().nodename
    assert pool_of(tmp_path).outcome(sweep, sweep.jobs[0]).name == "died"


def test_the_last_line_of_a_log(tmp_path):
    (tmp_path / "log").write_text("a\n\x1b[31mred\x1b[0m\n\n")
    assert last_line(read_end(tmp_path / "log")) == "[31mred [0m"
    assert last_line("") is None
    assert read_end(tmp_path / "none") == ""
