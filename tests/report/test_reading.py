from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.runs import write_run
from vaebench.report.grouping import make_sections
from vaebench.report.reading import VALIDATION_LOSS, Conditions, find_runs, flatten, read_run
from vaebench.runs.run import write_json


def value(record, name):
    return next(value for (own, _), value in record.values.items() if own == name)


def test_reads_what_a_run_says(tmp_path):
    run = write_run(tmp_path / "a", 3, elbo=-90.0, pictures=True, model__latent_dim=4)
    record = read_run(run.path)
    assert record.problem is None
    assert record.config["model.latent_dim"] == 4
    assert record.seed == 3
    assert record.is_done
    assert record.is_evaluated
    assert value(record, "elbo_nats").value == -90
    assert value(record, "elbo_nats").standard_error == 0.5
    assert value(record, VALIDATION_LOSS).value == 100
    assert record.curves["validation"] == [(1, 200), (2, 120), (3, 100)]
    assert record.images.keys() == {"samples"}
    assert record.measure == "mass"
    assert not record.notes


def test_validation_loss_is_the_lowest(tmp_path):
    record = read_run(write_run(tmp_path / "a", losses=(5.0, 2.0, 3.0)).path)
    assert value(record, VALIDATION_LOSS).value == 2
    assert not record.is_evaluated


@pytest.mark.parametrize("elbo", [None, -90.0])
def test_a_loss_that_compares_nothing_ranks_nothing(tmp_path, elbo):
    run = write_run(tmp_path / "a", elbo=elbo, losses=(5.0, 2.0))
    write_json(run.provenance, {"model": {"best_criterion": None}, **json.loads(run.provenance.read_text())})
    record = read_run(run.path)
    assert VALIDATION_LOSS not in {name for name, _ in record.values}
    assert record.curves["validation"] == [(1, 5), (2, 2)]
    assert any("evaluate it to rank it" in note for note in record.notes) == (elbo is None)
    (section,) = make_sections([record], None, None)
    assert section.groups[0].rank == (None if elbo is None else 1)


def test_skipped_metrics_keep_their_reason(tmp_path):
    run = write_run(tmp_path / "a")
    run.evaluation("bits_per_dim").parent.mkdir()
    run.evaluation("bits_per_dim").write_text(json.dumps({"skipped": "a density"}))
    record = read_run(run.path)
    assert record.skipped == {"bits_per_dim": "skipped: a density"}
    assert not record.is_evaluated


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("config.yaml", "a: [", "config.yaml"),
        ("config.yaml", "- 1", "mapping"),
        ("config.yaml", "a: &x [1]\nb: *x", "alias"),
        ("config.yaml", "a: " + "[" * 5000 + "]" * 5000, "nesting"),
        ("config.yaml", "a: !!python/object/apply:os.system [ls]", "config.yaml"),
        ("config.yaml", "\x00", "config.yaml"),
        ("status.json", "{", "status.json"),
        ("status.json", "[]", "status.json"),
        ("provenance.json", "1", "provenance.json"),
        ("provenance.json", None, "provenance.json is missing"),
        ("config.yaml", None, "config.yaml is missing"),
    ],
)
def test_a_damaged_run_is_a_problem_not_an_error(tmp_path, file, content, part):
    run = write_run(tmp_path / "a")
    if content is None:
        (run.path / file).unlink()
    else:
        (run.path / file).write_text(content)
    record = read_run(run.path)
    assert part in record.problem
    assert "\n" not in record.problem


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"values": 3}', '{"values": {"a": 3}}', '{"values": {"a": {}}}', '{"settings": 1}', "\xff" * 9],
)
def test_a_damaged_evaluation_is_a_note(tmp_path, content):
    run = write_run(tmp_path / "a", elbo=-90.0)
    run.evaluation("other").write_text(content, encoding="latin-1")
    record = read_run(run.path)
    assert any("evaluation/other.json" in note for note in record.notes)
    assert value(record, "elbo_nats").value == -90


@pytest.mark.parametrize("number", [None, "12", True, 1e999, 10**400, [1]])
def test_what_is_no_number_is_not_taken_for_one(tmp_path, number):
    run = write_run(tmp_path / "a", elbo=-90.0)
    content = json.loads(run.evaluation("elbo").read_text())
    content["values"]["elbo_nats"]["value"] = number
    run.evaluation("elbo").write_text(json.dumps(content))
    record = read_run(run.path)
    assert not record.is_evaluated
    assert "not finite" in record.notes[0]


def test_a_cut_or_damaged_history(tmp_path):
    run = write_run(tmp_path / "a")
    with open(run.metrics, "a") as file:
        file.write('{"epoch": 4, "lo')
    record = read_run(run.path)
    assert len(record.curves["validation"]) == 3
    assert not record.notes
    with open(run.metrics, "a") as file:
        file.write("\n")
    record = read_run(run.path)
    assert len(record.curves["validation"]) == 3  # what came before it is shown
    assert "line 7" in record.notes[0]
    run.metrics.write_text("not json\n")
    assert "line 1" in read_run(run.path).notes[0]


def test_an_evaluation_older_than_the_weights_is_noted(tmp_path):
    run = write_run(tmp_path / "a", elbo=-90.0)
    elbo = run.path / "evaluation" / "elbo.json"
    elbo.with_name("again.json").write_text(elbo.read_text())
    run.set_status("done", epoch=9, step=90)
    assert read_run(run.path).notes == ["again, elbo: of step 30, the run is at step 90: evaluate it again"]


def test_conditions_tell_splits_apart(tmp_path):
    record = read_run(write_run(tmp_path / "a", elbo=-90.0, evaluation={"split": "train", "limit": 10}).path)
    (conditions,) = (c for name, c in record.values if name == "elbo_nats")
    assert conditions == Conditions((("checkpoint", "best"), ("first", "10 examples"), ("split", "train")))


@pytest.mark.parametrize(("samples", "shown"), [("hmc", (("samples", "hmc"),)), ("prior", ())])
def test_conditions_tell_the_samples_of_one_sampler_from_anothers(tmp_path, samples, shown):
    record = read_run(write_run(tmp_path / "a", elbo=-90.0, evaluation={"samples": samples}).path)
    (conditions,) = (c for name, c in record.values if name == "elbo_nats")
    assert tuple(pair for pair in conditions.items if pair[0] == "samples") == shown


def test_finds_runs_folders_and_globs_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/day/a", "outputs/day/b", "outputs/multirun/0"):
        write_run(Path(name))
    (tmp_path / "outputs/report").mkdir()
    assert [str(p) for p in find_runs(["outputs"])] == ["outputs/day/a", "outputs/day/b", "outputs/multirun/0"]
    assert len(find_runs(["outputs", "outputs/day/a", "outputs/*/a", str(tmp_path)])) == 3
    assert [p.name for p in find_runs(["outputs/d*/*"])] == ["a", "b"]
    assert [p.name for p in find_runs(["outputs/day/b"])] == ["b"]


def test_finds_damaged_runs(tmp_path):
    run = write_run(tmp_path / "a")
    run.status.unlink()
    assert find_runs([str(tmp_path)]) == [run.path]


@pytest.mark.parametrize("place", ["nowhere", "empty", "outputs/dya/a", "none*"])
def test_a_place_without_runs_is_named(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(Path("outputs/day/a"))
    with pytest.raises(ValueError, match=place.replace("*", r"\*")):
        find_runs(["outputs", place])


def test_what_only_yaml_knows_becomes_text(tmp_path):
    run = write_run(tmp_path / "a")
    run.config.write_text("seed: 2026-01-02\nmodel: {a: !!binary aGk=, 3: .nan}\n")
    record = read_run(run.path)
    assert record.config["seed"] == "2026-01-02"
    json.dumps(record.config)


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "d": [1, 2]}
