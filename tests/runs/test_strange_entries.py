"""Links, pipes and foreign files in a run's folder: refused, and untouched."""

from __future__ import annotations

import os

import pytest

from tests.runs.test_run import make_run, row
from vaebench.runs.run import Run, WriteError, write_atomic


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "train.log", "sub/notes.txt", ".tmp-notes"])
def test_a_folder_with_other_things_is_no_place_for_a_run(tmp_path, name):
    write_atomic(tmp_path / name, "mine")
    if name == "config.yaml":
        write_atomic(tmp_path / "main.py", "mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    with (
        pytest.raises(ValueError, match=r"^hydra.run.dir: .* holds other things than a run .*nothing was changed"),
        Run(tmp_path).lock(),
    ):
        pass
    assert sorted(path for path in tmp_path.rglob("*")) == before


STRANGE = {
    "images": lambda path, outside: path.symlink_to(outside),
    "checkpoints/last.state": lambda path, outside: path.symlink_to(outside / "victim"),
    "evaluation/elbo.json": lambda path, outside: path.symlink_to("../../outside/victim"),
    "samples/hmc/pipe": lambda path, outside: os.mkfifo(path),
    "metrics.jsonl": lambda path, outside: path.symlink_to(outside / "not yet"),
    ".lock": lambda path, outside: os.mkfifo(path),
    ".tmp-4194999-status.json": lambda path, outside: path.symlink_to(outside / "victim"),
    "notes/deep/er": lambda path, outside: path.symlink_to("/"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_file_of_the_run_is_refused_and_untouched(tmp_path, name):
    run, outside = make_run(tmp_path / "run"), tmp_path / "outside"
    write_atomic(outside / "victim", "mine")
    path = run.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    STRANGE[name](path, outside)
    with pytest.raises(ValueError, match=rf"^run: '.*' holds .*'{name}'"):
        Run.open(run.path)
    with pytest.raises(ValueError, match=rf"^hydra.run.dir: '.*' holds .*'{name}'"), run.lock():
        pass
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("victim", "mine")]


def test_links_within_the_run_and_a_link_to_the_run_are_not_refused(tmp_path):
    run = make_run(tmp_path / "run")
    (run.path / "wandb").mkdir()
    (run.path / "wandb" / "latest-run").symlink_to("../images")
    (run.path / "wandb" / "gone").symlink_to("nowhere")
    (tmp_path / "newest").symlink_to("run")
    assert Run.open(tmp_path / "newest") == run
    with Run(tmp_path / "newest").lock():
        pass


def test_a_link_in_the_place_of_a_file_is_not_written_through(tmp_path):
    run = make_run(tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    run.metrics.symlink_to(victim)
    with pytest.raises(WriteError, match=r"could not write '.*metrics.jsonl': it is a link"):
        run.append_metrics([row(1)])
    with pytest.raises(ValueError, match=r"metrics.jsonl' cannot be read: it is a link"):
        run.read_metrics()
    assert victim.read_text() == "mine"


def test_a_file_with_a_second_name_is_not_changed_under_it(tmp_path):
    run = make_run(tmp_path / "run")
    run.append_metrics([row(1)])
    snapshot = tmp_path / "snapshot"
    os.link(run.metrics, snapshot)
    before = snapshot.read_bytes()
    run.append_metrics([row(2)])
    run.truncate_metrics(len(before))
    assert snapshot.read_bytes() == before
    assert run.metrics.read_bytes() == before
    os.link(run.metrics, tmp_path / "another")
    run.truncate_metrics(0)
    assert (tmp_path / "another").read_bytes() == before


def test_a_run_that_was_moved_away_is_not_made_again(tmp_path):
    run = make_run(tmp_path / "run")
    with run.lock():
        os.rename(run.path, tmp_path / "elsewhere")
        for write in (
            lambda: run.set_status("running"),
            lambda: write_atomic(run.last_weights, b""),
            lambda: run.append_metrics([row(1)]),
        ):
            with pytest.raises(WriteError, match="could not write"):
                write()
        assert not run.path.exists()
        run.path.mkdir()  # another of that name is not it
        with pytest.raises(WriteError, match=r"the directory '.*run' was moved away or removed"):
            run.set_status("running")
    run.set_status("running")  # nobody holds it now
