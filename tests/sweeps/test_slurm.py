"""Sweeps on a real Slurm of one node, on the loopback address; the quick tests need none."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sweeps.development_cluster import needs_slurm
from tests.sweeps.job_script import Script
from tests.sweeps.stand_in import StandIn, wait_for
from vaebench.cli import sweeper
from vaebench.cli.checks import refuse_mistakes
from vaebench.cli.job import CommandJob, UnsuccessfulJobError
from vaebench.cli.main import main
from vaebench.hardware.cluster import Slurm
from vaebench.runs import provenance
from vaebench.runs.run import Run
from vaebench.sweeps.accounting import _outcome_of, log_of, states_of
from vaebench.sweeps.check import examine
from vaebench.sweeps.pipeline import Evaluation, Variant, steps
from vaebench.sweeps.pool import Outcome
from vaebench.sweeps.record import Sweep, continued
from vaebench.sweeps.runner import run_to_end, submit_all
from vaebench.sweeps.slurm import SlurmPool

pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
SMALL = ("trainer.num_epochs=1", "model.network.hidden_dims=[8]", "model.latent_dim=2")
ON_SLURM = ("hardware=slurm", "hardware.partition=dev", "hardware.cpus_per_task=1")


@pytest.fixture
def command(cluster, tmp_path, monkeypatch, capsys):
    """Return what runs a command in this process, which has imported torch already, and returns what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setattr(sweeper, "examine", examine_here)

    def run(*words: str, code: int = 0) -> str:
        found = main(words)
        told = capsys.readouterr()
        assert found == code, told.out + told.err
        return told.out + told.err

    return run


def examine_here(question):
    answer = examine(question)
    refuse_mistakes(answer["mistakes"])
    return answer


def accounted(job):
    shown = subprocess.run(["scontrol", "-o", "show", "job", str(job.job_id)], capture_output=True, text=True).stdout
    return re.search(r"JobState=(\w+)", shown)[1]


@needs_slurm
@pytest.mark.slow
def test_a_job_that_fails_is_told_and_slurms_books_agree(command):
    words = ("train", "-m", "model=vae", "trainer.learning_rate=1e30", *SMALL, *ON_SLURM, "hydra.sweep.dir=s")
    told = command(*words, code=1)
    assert "is nan" in told
    assert "1 of 1 job did not succeed" in told
    sweep = Sweep.open("s")
    assert sweep.state(sweep.jobs[0]).name == "failed"
    wait_for(lambda: accounted(sweep.jobs[0]) == "FAILED", pause=0.5)  # it may take a second to complete


@needs_slurm
@pytest.mark.slow
def test_a_grid_is_an_array_of_which_only_what_was_killed_or_cancelled_runs_again(command, tmp_path, monkeypatch):
    stand_in = StandIn(tmp_path)
    monkeypatch.setattr(sweeper, "CommandJob", lambda words, _: Script(str(stand_in.script), words))
    words = ("seed=0,1", "trainer.optimizer=done,crashes,waits", *ON_SLURM, "hydra.sweep.dir=s")
    assert "submitted 6 jobs; vaebench sweep status s" in command("train", "-m", *words, "sweep.wait=false")
    sweep = Sweep.open("s")
    array = str(sweep.jobs[0].job_id).partition("_")[0]
    assert [job.job_id for job in sweep.jobs] == [f"{array}_{number}" for number in range(6)]
    wait_for(lambda: all((sweep.run(sweep.jobs[number]).path / "started").exists() for number in (2, 5)))
    wait_for(lambda: states(sweep) == ["done", "died", "running"] * 2, pause=0.5)
    wait_for(lambda: accounted(sweep.jobs[1]) == "FAILED", pause=0.5)
    told = command("sweep", "status", "s")
    assert re.search(rf"\n1 .* died .*{array}_1 +its process crashed or was killed: Slurm says FAILED\n", told)
    assert command("sweep", "cancel", "s") == "asked 2 jobs to save and end\n"
    wait_for(lambda: not {"running", "submitted"} & set(states(sweep)), pause=0.5)
    (tmp_path / "go").touch()
    assert "6 done" in command("sweep", "resume", "s")
    assert len(stand_in.started) == 6 + 4


def states(sweep):
    found, problem = states_of(sweep)
    assert problem is None
    return [state.name for state in found.values()]


PAUSE = """
import time
from vaebench.trainers.callbacks.callback import Callback

class Pause(Callback):
    def on_train_start(self, training):
        self.waits = training.step == 0

    def on_step_end(self, training):
        if self.waits and training.step > 30:  # until it is disturbed
            time.sleep(0.5)
"""


@needs_slurm
@pytest.mark.slow
def test_a_job_at_its_time_limit_and_one_that_is_pre_empted_end_with_the_same_bits(command, tmp_path, monkeypatch):
    (tmp_path / "pause.py").write_text(PAUSE)
    monkeypatch.setenv("VAEBENCH_ALLOW", "pause")
    words = ["model=vae", *SMALL[1:3], "trainer.num_steps=600", "seed=3", "hardware=cpu", "hardware.threads=1"]
    paused = [*words, "+callback.pause._target_=pause.Pause"]
    settings = Slurm(cpus_per_task=1, timeout_min=20, signal_delay_s=150)
    sweeps = {name: continued(tmp_path / name, [], "slurm", [paused]) for name in ("limited", "pre_empted")}
    started = time.monotonic()
    for partition, sweep in zip(("dev", "low"), sweeps.values(), strict=True):
        sweep.path.mkdir()
        pool = SlurmPool({**vars(settings), "partition": partition}, lambda words: CommandJob(tuple(words)))
        submit_all(sweep, pool, sweep.jobs)
    runs = {name: sweep.run(sweep.jobs[0]) for name, sweep in sweeps.items()}
    wait_for(lambda: all((sweep.state(sweep.jobs[0]).epoch or 0) > 1 for sweep in sweeps.values()), 300)
    # Two minutes at most are left now, and Slurm warns 150 s before the end, when it next looks: each half minute.
    limit(sweeps["limited"], 2 + int(time.monotonic() - started) // 60)
    # This needs both processors: the one of the job that leaves, and the one of the job in the lower partition.
    subprocess.run(["sbatch", "-p", "high", "-c", "2", "-o", "/dev/null", "--wrap", "true"], check=True)
    log = log_of(sweeps["limited"], sweeps["limited"].jobs[0])
    wait_for(lambda: "Requeued job" in log.read_text(), 120)
    limit(sweeps["limited"], 20)
    command("train", *words, "hydra.run.dir=alone")
    wait_for(lambda: all(states(sweep) == ["done"] for sweep in sweeps.values()), 300, pause=1.0)
    for run in runs.values():
        assert len(set(requeues(run))) > 1
    weights = [run.path / "checkpoints" / "last.safetensors" for run in (*runs.values(), Run(tmp_path / "alone"))]
    assert weights[0].read_bytes() == weights[1].read_bytes() == weights[2].read_bytes()


def limit(sweep, minutes):
    subprocess.run(["scontrol", "update", f"JobId={sweep.jobs[0].job_id}", f"TimeLimit={minutes}"], check=True)


def requeues(run):
    record = provenance.read(run)
    return [start["slurm"]["requeues"] for start in (record, *record["restarts"])]


@needs_slurm
@pytest.mark.slow
def test_one_above_its_memory_and_one_warned_too_often_are_told_and_the_others_end(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    script = StandIn(tmp_path).script
    options = {**vars(Slurm(partition="dev", cpus_per_task=1, mem_gb=0.15, max_requeues=0, timeout_min=1))}
    kinds = ("done", "eats", "waits", "done")
    sweep = continued(
        tmp_path / "s", [], "slurm", [[f"trainer.optimizer={kind}", f"seed={n}"] for n, kind in enumerate(kinds)]
    )
    sweep.path.mkdir()
    warned = []

    class Warns(SlurmPool):
        def outcome(self, sweep, job):
            if job.number == 2 and not warned and (sweep.run(job).path / "started").exists():
                warned.append(subprocess.run(["scancel", "--signal=USR2", job.job_id]))
            return super().outcome(sweep, job)

    unsuccessful = run_to_end(
        sweep, Warns(options, lambda words: Script(str(script), tuple(words))), sweep.jobs, lambda *_: None
    )
    assert [state.name for state in sweep.states().values()] == ["done", "died", "failed", "done"]
    assert {job.number: job.reason for job in unsuccessful} == {
        1: "it ran out of memory; raise hardware.mem_gb",
        2: "it ran out of time; raise hardware.timeout_min or hardware.max_requeues",
    }
    assert accounted(sweep.jobs[1]) in ("FAILED", "OUT_OF_MEMORY")


@needs_slurm
@pytest.mark.slow
def test_the_steps_of_a_benchmark_wait_for_each_other(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    command = StandIn(tmp_path)
    pool = SlurmPool(
        vars(Slurm(partition="dev", cpus_per_task=1)), lambda words: Script(str(command.script), tuple(words))
    )
    trainings = [["seed=0"], ["seed=1", "trainer.optimizer=raises"]]
    variant = Variant(("sampler=normal",), "normal", (None, None))
    planned = steps(trainings, [variant], Evaluation((), ("elbo", "fd"), ("fd",)), [])
    sweep = continued(tmp_path / "s", [], "slurm", planned, "benchmark")
    sweep.path.mkdir()
    unsuccessful = run_to_end(sweep, pool, sweep.jobs, lambda *_: None)
    assert [job.number for job in sorted(unsuccessful, key=lambda job: job.number)] == [1, 3, 5, 7]
    assert [sweep.jobs[number].outcome for number in (1, 3, 5, 7)] == ["failed", "skipped", "skipped", "skipped"]
    order = [line.split()[0] for line in command.started]
    assert order[:2] == ["train", "train"]
    assert sorted(order[2:5]) == ["evaluate", "evaluate", "sample"]
    assert order[5:] == ["report"]
    assert order.index("sample") < max(place for place, verb in enumerate(order) if verb == "evaluate")
    assert accounted(sweep.jobs[3]) == "CANCELLED"  # it does not stay in the queue
    assert sweep.unfinished()[-1].verb == "report"  # what is mended is reported anew


def test_a_job_that_was_requeued_leaves_without_a_result(monkeypatch):
    def main(words):
        try:
            signal.raise_signal(signal.SIGUSR2)
        except SystemExit:
            return 1  # as Hydra and the command make of it
        return 0

    def handler(signum, frame):  # as submitit's
        sys.exit(-1)

    monkeypatch.setattr("vaebench.cli.main.main", main)
    monkeypatch.setenv("VAEBENCH_JOB", "")  # put back at the end
    former = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(SystemExit):
            CommandJob(("train",))()
        assert signal.getsignal(signal.SIGUSR2) is handler
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_a_job_comes_back_as_often_as_it_may(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("vaebench.cli.main.main", lambda words: ran.append(words) or 0)
    monkeypatch.setenv("VAEBENCH_JOB", "")  # put back at the end
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    CommandJob(("train", "seed=1"), 2)()
    CommandJob(("train", "seed=2"))()
    with pytest.raises(UnsuccessfulJobError, match=r"2 times, more than hardware\.max_requeues=1"):
        CommandJob(("train", "seed=3"), 1)()
    assert ran == [["train", "seed=1"], ["train", "seed=2"]]
    assert "vaebench train: put back into the queue 2 times" in capsys.readouterr().err


@needs_slurm
@pytest.mark.slow
def test_two_processes_of_one_job_share_a_run(command):
    words = ("train", "-m", "model=vae", *SMALL, "hydra.sweep.dir=s", "hardware=slurm_ddp", *ON_SLURM[1:])
    command(*words)
    rows = [json.loads(line) for line in Path("s/0/metrics.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows].count("validation") == 1  # one of them writes
    assert sorted(path.name[-12:] for path in Path("s/.submitit").glob("*/*_result.pkl")) == [
        "0_result.pkl",
        "1_result.pkl",
    ]


@needs_slurm
@pytest.mark.slow
def test_slurms_own_words_in_one_sentence(command):
    words = ("train", "-m", "model=vae", "hardware=slurm", "hardware.partition=nosuch", "hydra.sweep.dir=s")
    told = command(*words, code=2)
    assert told.splitlines() == [
        "sweep directory: s", "vaebench train: hardware=slurm: invalid partition specified: nosuch",
    ]  # fmt: skip


def test_the_words_of_hydras_users_do_the_same(tmp_path, monkeypatch, capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra 'cluster' is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeper, "examine", examine_here)
    words = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=dev", "hydra.launcher.timeout_min=5")
    assert main(["train", "-m", "model=vae", "seed=0,1", *words, "sweep.dry_run=true"]) == 0
    script = capsys.readouterr().out
    for line in ("--partition=dev", "--time=5", "--array=0-1%2"):
        assert f"#SBATCH {line}" in script.splitlines()


def test_the_script_carries_what_was_asked_for(tmp_path):
    options = {**vars(Slurm(partition="gpu", account="me", qos="low", mem_gb=2.5, gpus_per_node=1, timeout_min=90))}
    options.update(constraint="a100", cpus_per_task=4, array_parallelism=2, signal_delay_s=33)
    options.update(setup=["module load cuda"], additional_parameters={"mail-user": "me@here"})
    sweep = continued(tmp_path / "s", [], "slurm", [["seed=0"], ["seed=1"], ["seed=2"]])
    script = SlurmPool(options, lambda words: print).describe(sweep, sweep.jobs)
    for line in (
        "--partition=gpu", "--account=me", "--qos=low", "--mem=2560M", "--gpus-per-node=1", "--time=90",
        "--constraint=a100", "--cpus-per-task=4", "--array=0-2%2", "--signal=USR2@33", "--mail-user=me@here",
        "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {line}" in script.splitlines()
    assert script.index("module load cuda") < script.index("srun")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot leave the working folder out")
def test_a_job_does_not_run_a_file_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "queue.py").write_text("raise SystemExit('not the module')\n")
    run_here = {"sbatch": 'sh "$1" > told 2>&1; echo Submitted batch job 7', "srun": 'shift 5; exec "$@"'}
    for name, does in run_here.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    sweep = continued(tmp_path / "s", [], "slurm", [["seed=0"]])
    SlurmPool(vars(Slurm()), lambda words: print).submit(sweep, sweep.jobs)
    told = (tmp_path / "told").read_text()
    assert "submitit" in told, told
    assert "not the module" not in told, told


def test_without_slurm_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    sweep = continued(tmp_path / "s", [], "slurm", [["seed=0"]])
    with pytest.raises(ValueError, match=r"there is no Slurm on this machine \(no sbatch\)"):
        SlurmPool(vars(Slurm()), lambda words: print).submit(sweep, sweep.jobs)


def test_results_are_read_without_running_anything(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    for name, value in (("good", ("success", None)), ("bad", ("error", "Traceback\nValueError: no")), ("evil", Evil())):
        (tmp_path / name).write_bytes(pickle.dumps(value))
    assert _outcome_of(tmp_path / "good") == Outcome("done")
    assert _outcome_of(tmp_path / "bad") == Outcome("failed", "ValueError: no")
    assert "cannot be read" in str(_outcome_of(tmp_path / "evil").reason)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"timeout_min": 0}, "timeout_min must be a whole number of at least 1; got 0"),
        ({"mem_gb": -1.0}, "mem_gb must be above 0, or null; got -1"),
        ({"gpus_per_node": -1}, "gpus_per_node must be a whole number of at least 0, or null; got -1"),
    ],
)
def test_values_out_of_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Slurm(**options)
