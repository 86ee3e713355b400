"""Values that are paths are taken as they are typed; runs are named in one way in every verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaebench.cli.paths import is_path, quoted, several, unquoted, with_quoted_path

AWKWARD = [
    "a=b.npz",
    "x[1].npz",
    "[x]",
    "r#1",
    "two words",
    "a,b",
    "{a:b}",
    "it's",
    'a"b',
    "(a)",
    "a:b=c",
    "100%",
    "end\\",
    "null_",
    "-x",
]


@pytest.mark.parametrize("key", ["dataset.path", "dataset.root"])
@pytest.mark.parametrize("path", AWKWARD)
def test_a_path_is_what_was_typed(command, key, path):
    seen = []
    dataset = ["dataset=arrays"] if key == "dataset.path" else ["dataset=mnist"]
    answer = command(
        "train", *dataset, f"{key}={path}", task=lambda cfg: seen.append(cfg.dataset[key.partition(".")[2]])
    )
    assert (answer.code, answer.err) == (0, "")
    assert seen == [path]


@pytest.mark.parametrize("path", [path for path in AWKWARD if not path.endswith("\\")])
def test_a_run_directory_is_what_was_typed(command, tmp_path, path):
    assert command("train", f"hydra.run.dir={path}").code == 0
    assert [found.name for found in tmp_path.iterdir()] == [path]


def test_home_is_put_in(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    seen = []
    words = ("dataset=mnist", "dataset.root=~/data", "hydra.run.dir=~/run")
    assert command("train", *words, task=lambda cfg: seen.append(cfg.dataset.root)).code == 0
    assert seen == [str(tmp_path / "home" / "data")]
    assert (tmp_path / "home" / "run").is_dir()


def test_quotes_for_hydra_still_do(command):
    seen = []
    command("train", "dataset=mnist", "dataset.root='a, b'", task=lambda cfg: seen.append(cfg.dataset.root))
    command("train", "dataset=mnist", 'dataset.root="it\'s"', task=lambda cfg: seen.append(cfg.dataset.root))
    command("train", "dataset=images", "dataset.path=null", task=lambda cfg: seen.append(cfg.dataset.path))
    assert seen == ["a, b", "it's", None]


def test_interpolations_in_the_place_of_data(command, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    seen = []
    word = "dataset.root=${oc.env:SCRATCH}/a=b"
    command("train", "dataset=mnist", word, task=lambda cfg: seen.append(cfg.dataset.root))
    assert seen == ["/scratch/a=b"]


def test_commas_are_jobs_in_a_sweep_unless_the_path_exists(command, tmp_path):
    (tmp_path / "c,d").mkdir()
    seen = []
    for value in ("a=1,b[2]", "c,d"):
        command("train", "-m", "dataset=mnist", f"dataset.root={value}", task=lambda cfg: seen.append(cfg.dataset.root))
    assert seen == ["a=1", "b[2]", "c,d"]


def test_what_is_a_path():
    assert all(map(is_path, ["dataset.root", "dataset.path", "resume", "output", "hydra.run.dir", "hydra.sweep.dir"]))
    assert not any(map(is_path, ["model.directions", "trainer.patience", "seed", "dataset.size", "trainer.optimizer"]))
    assert with_quoted_path("model.x=a=b", False) == "model.x=a=b"


def test_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert several("[a,'b,c' , d e]") == ["a", "b,c", "d e"]
    assert several("a,b") == ["a", "b"]
    Path("a,b").mkdir()
    assert several("a,b") == ["a,b"]


def run_at(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 0\n")
    for name in ("status.json", "provenance.json"):
        (path / name).write_text(json.dumps({"status": "done", "start": path.name}))
    return path


@pytest.fixture
def sweep(tmp_path) -> list[str]:
    return [str(run_at(tmp_path / "sweep" / name).relative_to(tmp_path)) for name in ("0", "1", "a=2,[c]")]


@pytest.mark.parametrize("verb", ["sample", "evaluate"])
@pytest.mark.parametrize(
    "words",
    [
        ["sweep"],
        ["run=sweep"],
        ["sweep/*"],
        ["run=sweep/*"],
        ["run=glob(sweep/*)"],
        ["sweep/0", "sweep/1", "sweep/a=2,[c]"],
        ["run=[sweep/0,sweep/1,'sweep/a=2,[c]']"],
        ["run=sweep/0,sweep/1,'sweep/a=2,[c]'"],
        ["-m", "run=glob(sweep/*)"],
    ],
)
def test_every_verb_takes_several_runs(command, tmp_path, sweep, verb, words):
    seen = []
    answer = command(verb, *words, task=lambda cfg: seen.append(cfg.run))
    assert (answer.code, seen) == (0, sweep)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]  # a sweep leaves no empty folders


def test_report_takes_them_all_at_once(command, sweep):
    seen = []
    command("report", "run=sweep/0,sweep/1", task=lambda cfg: seen.append(cfg.run))
    command("report", "sweep", task=lambda cfg: seen.append(cfg.run))
    command("report", task=lambda cfg: seen.append(cfg.run))
    assert seen == [["sweep/0", "sweep/1"], ["sweep"], None]


def test_one_that_fails_does_not_stop_the_others(command, sweep):
    seen = []

    def task(cfg):
        seen.append(cfg.run)
        if cfg.run == sweep[1]:
            raise ValueError("no")

    answer = command("evaluate", "sweep", task=task)
    assert (answer.code, seen, answer.err) == (2, sweep, f"vaebench evaluate: {sweep[1]}: no\n")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["sweep/0", "run=sweep/1"], ["both name runs"]),
        (["run=nowhere/*"], ["found no run in 'nowhere/*'"]),
        (["-m", "run=glob(nowhere/*)"], ["found no run in 'nowhere/*'"]),
        (["elbo"], ["did you mean metric=elbo?"]),
    ],
)
def test_mistakes_in_naming_runs(command, sweep, words, parts):
    answer = command("evaluate", *words)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert all(part in answer.err for part in parts)


def test_train_says_how_to_go_on(command, sweep):
    assert "resume=sweep/0" in command("train", "sweep/0").err


@pytest.mark.parametrize("text", ["d/${oc.env:X}", "a\\${b}", "it's ${x}", "plain", "a\\\\${b}", "x\\", "${a}${b}"])
def test_what_was_quoted_is_found_again(text):
    assert unquoted(quoted(text)) == text
