from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.report.runs import write_run
from vaebench.cli import main as cli


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_run(Path(f"outputs/day/vae-{seed}"), seed, elbo=-90.0 - seed, pictures=True)
        write_run(
            Path(f"outputs/day/rhvae-{seed}"),
            seed,
            elbo=-85.0 - seed / 10,
            model___target_="vaebench.models.rhvae.RHVAE",
        )
    return tmp_path


def test_table_and_files(place, capsys):
    assert cli.main(["report"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if "vae" in line and "±" in line]
    assert lines[0][:6] == ["1", "rhvae", "2", "-85.050", "±", "0.071"]
    assert lines[1][:6] == ["1", "vae", "2", "-90.50", "±", "0.71"]  # two seeds cannot tell: p = 0.06
    assert {path.name for path in Path("outputs/report").iterdir()} == {
        "report.html",
        "report.json",
        "report.csv",
        "report.md",
    }
    assert len(json.loads(Path("outputs/report/report.json").read_text())["datasets"]) == 1


def test_chosen_runs_and_place(place, capsys):
    assert (
        cli.main(["report", "outputs/day/vae-0", "outputs/day/rhvae-*", "output=elsewhere", "sort_by=elbo_nats"]) == 0
    )
    found = json.loads(Path("elsewhere/report.json").read_text())["datasets"][0]["configurations"]
    assert sorted(len(group["runs"]) for group in found) == [1, 2]
    assert not Path("outputs/report").exists()


def test_damage_is_told_and_does_not_stop_the_report(place, capsys):
    Path("outputs/day/vae-1/status.json").write_text("{")
    assert cli.main(["report"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not readable: outputs/day/vae-1" in out
    assert "status.json" in Path("outputs/report/report.html").read_text()


def test_a_damaged_evaluation_is_told(place, capsys):
    file = next(Path("outputs/day/vae-1/evaluation").iterdir())
    file.write_text("{")
    assert cli.main(["report"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"outputs/day/vae-1: evaluation/{file.name} cannot be read" in out


def test_terminal_escapes_of_a_stranger_are_not_obeyed(place, capsys):
    write_run(Path("outputs/day/evil"), 0, elbo=-1.0, model__latent_dim="\x1b[31m[bold]red\x07")
    assert cli.main(["report"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]" in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere"], ["nowhere", "run"]),
        (["outputs/day/vae-9"], ["vae-9", "did you mean", "vae-"]),
        (["sort_by=elbow_nats"], ["sort_by", "did you mean 'elbo_nats'"]),
        (["sort_by=3"], ["sort_by", "column"]),
        (["descending=perhaps"], ["descending", "true"]),
        (["runs=[3]"], ["no key 'runs'", "did you mean 'run'"]),
        (["sortby=mse"], ["sort_by"]),
    ],
)
def test_mistakes_are_one_sentence(place, capsys, words, parts):
    assert cli.main(["report", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    for part in parts:
        assert part in error
    assert not Path("outputs/report").exists()


def test_nothing_to_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report"]) == 2
    assert "vaebench train" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(place, capsys):
    Path("closed").mkdir(mode=0o500)
    assert cli.main(["report", "output=closed"]) == 2
    assert "output: cannot write into 'closed'" in capsys.readouterr().err


def test_a_file_in_the_way_of_the_folder(place, capsys):
    Path("taken").write_text("")
    assert cli.main(["report", "output=taken"]) == 2
    error = capsys.readouterr().err.strip()
    assert "output: cannot write into 'taken': it is a file" in error
    assert "\n" not in error


def test_pictures_of_a_search_stand_in_the_report_of_its_sweep(place):
    folder = Path("outputs/day")
    Image.new("RGB", (30, 20), "red").save(folder / "history.png")
    (folder / "parallel_coordinates.png").write_bytes(b"no picture")
    assert cli.main(["report", "outputs/day"]) == 0
    assert "history.png" not in Path("outputs/report/report.html").read_text()  # it is no sweep
    (folder / "sweep.json").write_text("{}")
    assert cli.main(["report", "outputs/day"]) == 0
    text = Path("outputs/report/report.html").read_text()
    assert '<img src="data:image/png;base64,' in text[text.index("outputs/day/history.png") :]
    assert "parallel_coordinates.png" not in text
