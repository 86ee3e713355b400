"""Sweeps on a real Slurm of one node, on the loopback address; the quick tests need none."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vaebench.hardware.cluster import Slurm
from vaebench.sweeps.pool import Outcome
from vaebench.sweeps.record import Sweep, continued
from vaebench.sweeps.slurm import SlurmPool, _outcome_of

pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_dev.sh"
SMALL = ("trainer.num_epochs=1", "model.network.hidden_dims=[8]", "model.latent_dim=2", "hardware.cpus_per_task=1")
HAS_SLURM = all(shutil.which(name) for name in ("sbatch", "slurmctld", "munged")) and os.geteuid() == 0
needs_slurm = pytest.mark.skipif(not HAS_SLURM, reason="needs Slurm's programs and root: scripts/slurm_dev.sh install")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Point the environment at a cluster of this process's own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = {
        "SLURM_DEV_DIR": str(tmp_path_factory.mktemp("slurm")),
        "SLURM_DEV_PORT": str(17_017 + 10 * worker),
        "SLURM_DEV_CPUS": "2",
    }
    before = dict(os.environ)
    os.environ.update(own)
    try:
        # Its daemons keep what they inherit, so the output goes to files and not into a pipe that would never end.
        with open(Path(own["SLURM_DEV_DIR"]) / "start.log", "w") as log:
            subprocess.run(["bash", str(SCRIPT), "start"], check=True, timeout=120, stdout=log, stderr=log)
        lines = subprocess.run(["bash", str(SCRIPT), "env"], check=True, capture_output=True, text=True).stdout.strip()
        shell = subprocess.run(
            ["bash", "-c", f'{lines} && printf "%s\\n%s" "$SLURM_CONF" "$PATH"'], capture_output=True, text=True
        )
        os.environ["SLURM_CONF"], os.environ["PATH"] = shell.stdout.split("\n")
        yield
    finally:
        subprocess.run(["bash", str(SCRIPT), "stop"], timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.environ.clear()
        os.environ.update(before)


def vaebench(*words: str, cwd: Path, code: int | None = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vaebench", *words], cwd=cwd, capture_output=True, text=True, timeout=280
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_for(condition, seconds: float = 150.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.3)


@needs_slurm
@pytest.mark.slow
def test_one_that_fails_and_one_that_is_killed_take_no_other_with_them(cluster, tmp_path):
    words = (
        "train", "-m", "model=vae", "trainer.learning_rate=1e-3,-1", "hardware=slurm", "hardware.partition=dev",
        "hydra.sweep.dir=s", *SMALL,
    )  # fmt: skip
    told = vaebench(*words, cwd=tmp_path, code=1)
    assert "learning_rate" in told
    assert "got -1" in told
    sweep = Sweep.open(tmp_path / "s")
    assert [state.name for state in sweep.states().values()] == ["done", "failed"]
    accounted = subprocess.run(
        ["scontrol", "-o", "show", "job", sweep.jobs[1].job_id], capture_output=True, text=True
    ).stdout
    assert "JobState=FAILED" in accounted  # Slurm's own books agree

    log = "trainer.num_epochs=100000"
    vaebench(
        "train", "-m", "model=vae", log, "seed=0,1", "hardware=slurm", "sweep.wait=false", "hydra.sweep.dir=k",
        *SMALL[1:], cwd=tmp_path,
    )  # fmt: skip
    long = Sweep.open(tmp_path / "k")
    wait_for(lambda: [long.state(job).name for job in long.jobs] == ["running"] * 2)
    subprocess.run(["scancel", "--signal=KILL", long.jobs[0].job_id], check=True)
    pool = SlurmPool(vars(Slurm()), lambda words: print)
    outcomes: list[Outcome | None] = [None]
    wait_for(lambda: outcomes.append(pool.outcome(long, long.jobs[0])) or outcomes[-1] is not None)
    assert outcomes[-1] is not None
    assert outcomes[-1].name in ("died", "cancelled")
    assert pool.outcome(long, long.jobs[1]) is None  # the other goes on
    assert "asked 1 job to save and end" in vaebench("sweep", "cancel", str(long.path), cwd=tmp_path).replace(
        "2 jobs", "1 job"
    )
    wait_for(lambda: pool.outcome(long, long.jobs[1]) is not None)


@needs_slurm
@pytest.mark.slow
def test_a_job_that_is_pre_empted_ends_with_the_same_bits(cluster, tmp_path):
    words = ("model=vae", *SMALL[1:3], "trainer.num_epochs=1500", "seed=3")
    vaebench(
        "train", "-m", *words, "hardware=slurm", "hardware.partition=low", "hardware.threads=1", "sweep.wait=false",
        "hydra.sweep.dir=s", cwd=tmp_path,
    )  # fmt: skip
    sweep = Sweep.open(tmp_path / "s")
    (job,) = sweep.jobs
    wait_for(lambda: (sweep.state(job).epoch or 0) > 5)
    subprocess.run(
        ["sbatch", "-p", "high", "-c", "2", "-o", "/dev/null", "--wrap", "sleep 1"], check=True, cwd=tmp_path
    )
    wait_for(lambda: sweep.state(job).name == "done", 280)
    provenance = (sweep.run(job).path / "provenance.json").read_text()
    assert '"restarts": []' not in provenance  # it did start twice
    vaebench("train", *words, "hardware=cpu", "hardware.threads=1", "hydra.run.dir=alone", cwd=tmp_path)
    weights = [path / "checkpoints" / "last.safetensors" for path in (sweep.run(job).path, tmp_path / "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@needs_slurm
@pytest.mark.slow
def test_two_processes_of_one_job_share_a_run(cluster, tmp_path):
    words = ("train", "-m", "model=vae", *SMALL, "hydra.sweep.dir=s", "hardware=slurm_ddp", "hardware.partition=dev")
    vaebench(*words, cwd=tmp_path)
    vaebench("train", "model=vae", *SMALL[:3], "hardware=cpu", "hydra.run.dir=alone", cwd=tmp_path)
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (tmp_path / "s" / "0", tmp_path / "alone")]
    assert len(lines[0]) == len(lines[1])


@needs_slurm
@pytest.mark.slow
def test_slurms_own_words_in_one_sentence(cluster, tmp_path):
    words = ("train", "-m", "model=vae", "hardware=slurm", "hardware.partition=nosuch", "hydra.sweep.dir=s")
    told = vaebench(*words, cwd=tmp_path, code=2)
    assert told.strip().splitlines()[-1] == "vaebench train: hardware=slurm: invalid partition specified: nosuch"


@needs_slurm
@pytest.mark.slow
def test_the_words_of_hydras_users_do_the_same(cluster, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra 'cluster' is not installed")
    vaebench(
        "train", "-m", "model=vae", *SMALL[:3], "hydra/launcher=submitit_slurm", "hydra.launcher.partition=dev",
        "hydra.launcher.timeout_min=5", "hydra.sweep.dir=s", cwd=tmp_path,
    )  # fmt: skip
    assert Sweep.open(tmp_path / "s").place == "slurm"


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
