"""The record of a sweep: written, read, continued, refused; and states that follow from the files of the runs."""

import json

import pytest

from vaebench.runs.run import Run
from vaebench.sweeps import record
from vaebench.sweeps.record import Job, Sweep, continued, search_in

GRID = [["model=vae", "seed=0"], ["model=vae", "seed=1"]]


@pytest.fixture
def sweep(tmp_path):
    made = continued(tmp_path / "s", ["model=vae", "seed=0,1"], "local", GRID)
    made.path.mkdir()
    made.save()
    return made


def finished(run: Run, status: str, **values: object) -> None:
    run.path.mkdir(exist_ok=True)
    run.config.touch()
    run.set_status(status, **values)


def test_what_is_saved_is_read(sweep):
    sweep.jobs[1].job_id, sweep.jobs[1].submissions = "77_1", 2
    sweep.save()
    assert Sweep.open(sweep.path) == sweep


def test_states_follow_from_the_runs(sweep):
    first, second = sweep.jobs
    assert [state.name for state in sweep.states().values()] == ["waiting", "waiting"]
    first.job_id = "1"
    assert sweep.state(first).name == "submitted"
    finished(sweep.run(first), "running", epoch=3)
    assert sweep.state(first).name == "died"  # nobody holds its lock
    with sweep.run(first).lock():
        assert (sweep.state(first).name, sweep.state(first).epoch) == ("running", 3)
    finished(sweep.run(first), "done", epoch=9)
    assert sweep.state(first).name == "done"
    finished(sweep.run(second), "failed", reason="loss is nan")
    assert (sweep.state(second).name, sweep.state(second).reason) == ("failed", "loss is nan")
    assert [job.number for job in sweep.unfinished()] == [1]


def test_on_a_cluster_the_lock_may_be_held_where_it_cannot_be_seen(sweep):
    sweep.place = "slurm"
    finished(sweep.run(sweep.jobs[0]), "running")
    assert sweep.state(sweep.jobs[0]).name == "running"


def test_the_same_grid_again_keeps_numbers_and_a_larger_one_adds_jobs(sweep):
    again = continued(sweep.path, sweep.words, "local", list(reversed(GRID)))
    assert [job.overrides for job in again.jobs] == GRID
    more = continued(sweep.path, ["model=vae", "seed=0,1,2"], "local", [["model=vae", "seed=2"], *GRID])
    assert [(job.number, job.overrides[1]) for job in more.jobs] == [(0, "seed=0"), (1, "seed=1"), (2, "seed=2")]


@pytest.mark.parametrize(
    ("jobs", "keys"),
    [([["model=vae", "seed=0"]], "seed"), ([["model=rhvae", "seed=0"], ["model=rhvae", "seed=1"]], "model")],
)
def test_another_grid_is_refused_with_the_keys(sweep, jobs, keys):
    with pytest.raises(ValueError, match=f"holds another sweep; it differs in {keys}; a sweep can only gain jobs"):
        continued(sweep.path, [], "local", jobs)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        continued(tmp_path, [], "here", GRID)


def test_a_search_may_only_gain_trials(tmp_path):
    words = ["seed=range(0,9)", "sweep=optuna", "sweep.num_trials=4"]
    made = search_in(tmp_path / "o", words, "local")
    made.path.mkdir()
    made.save()
    assert search_in(made.path, [*words[:2], "sweep.num_trials=9"], "local").words[2] == "sweep.num_trials=9"
    with pytest.raises(ValueError, match="differs in seed"):
        search_in(made.path, ["seed=range(0,5)", *words[1:]], "local")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("jobs"), "'jobs'"),
        (lambda content: content.update(version=9), "version 9, expected 1"),
        (lambda content: content["jobs"][0].update(number=5), "job 0"),
        (lambda content: content["jobs"][0].update(overrides=[{"a": 1}]), "job 0"),
        (lambda content: content["jobs"][1].update(reason=7), "job 1 holds something else than text"),
        (lambda content: content["jobs"][1].update(evil=7), "evil"),
        (lambda content: content.update(words="rm"), "expected words"),
    ],
)
def test_a_damaged_record_is_one_sentence(sweep, change, reason):
    content = json.loads(sweep.file.read_text())
    change(content)
    sweep.file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"sweep.json' is damaged: .*{reason}"):
        Sweep.open(sweep.path)


def test_what_is_no_sweep_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"is not a sweep directory: it has no sweep\.json"):
        Sweep.open(tmp_path)
    with pytest.raises(ValueError, match="there is no directory"):
        Sweep.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found none under"):
        Sweep.newest(tmp_path)


def test_the_newest_is_the_one_made_last(tmp_path):
    for day, created in (("b", "2026-01-02"), ("a", "2026-01-03")):
        Sweep(tmp_path / "multirun" / day / "t", [], "here", [Job(0, [])], created).save()
    assert Sweep.newest(tmp_path).path.parent.name == "a"


def test_a_record_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, vaebench.commands.sweep, vaebench.sweeps.slurm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_lock_is_seen_without_being_taken(tmp_path):
    run = Run(tmp_path / "r")
    assert not record.is_locked(run)
    with run.lock():
        assert record.is_locked(run)
    assert not record.is_locked(run)
