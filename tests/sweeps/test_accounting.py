"""What `vaebench sweep` says of jobs of a cluster that nobody waited for; Slurm's programs are three scripts here."""

import pickle

import pytest

from vaebench.cli.main import main
from vaebench.commands.sweep import BETWEEN_LOOKS
from vaebench.hardware.cluster import Slurm
from vaebench.sweeps.pool import Outcome
from vaebench.sweeps.record import continued
from vaebench.sweeps.slurm import SlurmPool

PROGRAM = """#!/bin/sh
echo "${{0##*/}} $*" >> "{folder}/asked"
if [ -e "{folder}/down" ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; fi
while read -r line; do echo "$line"; done < "$0.txt"
"""


class StandInSlurm:
    """squeue, sacct and scancel that say what a test puts into their files, and note what they were asked."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("squeue", "sacct", "scancel"):
            program = folder / name
            program.write_text(PROGRAM.format(folder=folder))
            program.chmod(0o755)
            self.says(name)

    def says(self, name, *lines):
        (self.folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))

    @property
    def asked(self):
        log = self.folder / "asked"
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # a machine may have a Slurm of its own
    return StandInSlurm(tmp_path / "bin")


def sweep_of(tmp_path, *statuses):
    """A sweep that was submitted as array 7, and what its jobs wrote: a status, and a log where they began."""
    made = continued(tmp_path / "s", [], "slurm", [[f"seed={number}"] for number in range(len(statuses))])
    made.path.mkdir()
    for job, status in zip(made.jobs, statuses, strict=True):
        job.job_id = f"7_{job.number}"
        if status is not None:
            run = made.run(job)
            run.path.mkdir()
            run.config.touch()
            run.set_status(status, epoch=2)
            log = made.path / ".submitit" / job.job_id / f"{job.job_id}_0_log.err"
            log.parent.mkdir(parents=True)
            log.write_text("")
    made.save()
    return made


def status(capsys):
    """State and reason of each job as the table says them."""
    assert main(["sweep", "status", "s"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit() and "seed=" in line]
    return [(row.split()[2], row.partition(f"7_{number}")[2].strip()) for number, row in enumerate(rows)]


def test_states_are_those_of_slurm_where_the_files_leave_them_open(slurm, tmp_path, capsys):
    sweep = sweep_of(
        tmp_path, "done", "running", "running", "running", "interrupted", None, None, "failed", "running", "running"
    )
    before = sweep.file.read_bytes()
    slurm.says(
        "squeue", "7_1|RUNNING|None", "7_2|FAILED|NonZeroExitCode", "7_4|PENDING|BeginTime", "7_5|PENDING|Resources",
        "7_7|FAILED|NonZeroExitCode", "7_9|RUNNING|None",
    )  # fmt: skip
    slurm.says("sacct", "7_3|NODE_FAIL", "7_8|CANCELLED by 1000")
    assert status(capsys) == [
        ("done", ""),
        ("running", ""),
        ("died", "its process crashed or was killed: Slurm says FAILED"),
        ("died", "its node failed"),
        ("submitted", "Slurm waits: BeginTime"),
        ("submitted", "Slurm waits: Resources"),
        ("cancelled", "it left the queue before it began"),
        ("failed", ""),
        ("cancelled", "it was cancelled"),
        ("running", ""),
    ]
    assert slurm.asked == ["squeue", "sacct"]  # once for all jobs
    assert sweep.file.read_bytes() == before  # another command may be at work on it


def test_nobody_is_asked_where_all_jobs_are_done(slurm, tmp_path, capsys):
    sweep_of(tmp_path, "done", "done")
    assert [state for state, _ in status(capsys)] == ["done", "done"]
    assert slurm.asked == []


def test_a_job_that_wrote_its_result_while_slurm_was_asked_is_told_by_it(slurm, tmp_path, capsys):
    sweep = sweep_of(tmp_path, "running", "running", "running")
    for job, result in zip(sweep.jobs, [("error", "ValueError: no"), ("success", None), None], strict=True):
        if result is not None:
            place = sweep.path / ".submitit" / str(job.job_id) / f"{job.job_id}_0_result.pkl"
            place.write_bytes(pickle.dumps(result))
    slurm.says("squeue", "7_2|COMPLETED|None")
    assert status(capsys) == [("failed", "ValueError: no"), ("running", ""), ("running", "")]
    assert slurm.asked == ["squeue"]


@pytest.mark.parametrize(
    ("break_slurm", "sentence"),
    [
        (lambda folder: (folder / "down").touch(), "slurm_load_jobs error: Unable to contact slurm controller"),
        (lambda folder: folder.rename(folder.with_name("gone")), "there is no Slurm on this machine (no squeue)"),
    ],
    ids=["down", "missing"],
)
def test_where_slurm_cannot_be_asked_it_is_said_and_nothing_is_run_twice(
    slurm, tmp_path, capsys, monkeypatch, break_slurm, sentence
):
    monkeypatch.setattr("vaebench.sweeps.slurm.SETTLE", 0.0)
    sweep = sweep_of(tmp_path, "running", None)
    break_slurm(slurm.folder)
    assert main(["sweep", "status", "s"]) == 0
    told = capsys.readouterr()
    assert told.err == f"Slurm was not asked: {sentence}; the states are what the jobs last wrote\n"
    assert "1 running, 1 submitted" in told.out
    pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
    pool = SlurmPool(vars(Slurm()), lambda words: print)
    with pytest.raises(ValueError, match="cannot tell which jobs are under way: "):
        pool.is_under_way(sweep, sweep.jobs[0])
    assert pool.outcome(sweep, sweep.jobs[0]) is None  # a controller that is restarted loses no job
    assert main(["sweep", "cancel", "s"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("vaebench sweep: ")


def test_what_slurm_says_is_an_outcome(slurm, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
    monkeypatch.setattr("vaebench.sweeps.slurm.SETTLE", 0.0)
    sweep = sweep_of(tmp_path, "running", "running", "running", "running")
    slurm.says("squeue", "7_0|TIMEOUT|TimeLimit", "7_1|RUNNING|None", "7_2|COMPLETED|None")
    pool = SlurmPool(vars(Slurm()), lambda words: print)
    for _ in range(2):  # the first look only notes that a job has left the queue
        outcomes = [pool.outcome(sweep, job) for job in sweep.jobs]
    assert outcomes == [
        Outcome("died", "it ran out of time; raise hardware.timeout_min or hardware.max_requeues"),
        None,
        Outcome("done"),
        Outcome("died", "it left the queue without a result"),
    ]


def test_cancel_asks_once_and_only_for_jobs_that_are_under_way(slurm, tmp_path, capsys):
    sweep_of(tmp_path, "done", "running", "interrupted", "running", None)
    slurm.says("squeue", "7_1|RUNNING|None", "7_2|PENDING|BeginTime", "7_3|FAILED|None", "7_4|PENDING|Priority")
    assert main(["sweep", "cancel", "s"]) == 0
    assert capsys.readouterr().out == "asked 3 jobs to save and end\n"
    assert (slurm.folder / "asked").read_text().splitlines()[-1] == "scancel 7_1 7_2 7_4"


def test_watch_shows_each_change_until_no_job_is_under_way(slurm, tmp_path, capsys, monkeypatch):
    sweep = sweep_of(tmp_path, "running", "done")
    slurm.says("squeue", "7_0|RUNNING|None")
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if looks.count(BETWEEN_LOOKS) == 2:  # others sleep, too
            sweep.run(sweep.jobs[0]).set_status("done", epoch=3)

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["sweep", "watch", "s"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("1 running", "2 done"))]
    assert shown == ["1 running, 1 done", "2 done"]
