from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save

from tests.composing import composed
from tests.shared import copied
from vaebench import factory
from vaebench.cli import main as cli
from vaebench.models.vae import VAE
from vaebench.runs.run import Run, now, write_atomic, write_json
from vaebench.trainers.state import save_weights


def make_run(path: Path, *overrides: str) -> Run:
    """A run as `vaebench train` leaves it, untrained."""
    copied(path, lambda folder: write_untrained(folder, *overrides), "tests/commands/test_evaluate.py", *overrides)
    return Run(path)


def write_untrained(path: Path, *overrides: str) -> None:
    cfg = composed("train", "model.network.hidden_dims=[16]", "model.latent_dim=3", *overrides)
    run = Run(path)
    factory.save_config(run, cfg)
    write_json(run.provenance, {"start": now()})
    run.set_status("done", epoch=1, step=14)
    data = factory.dataset(cfg)
    model = factory.model(cfg, data)
    save_weights(run.best_weights, model.state_dict())
    save_weights(run.last_weights, {name: value + 0.1 for name, value in model.state_dict().items()})


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "outputs" / "a")


def strict(text: str):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def evaluate(*words: str) -> int:
    return cli.main(["evaluate", "hardware=cpu", "metric.importance_bound.num_samples=7", *words])


def test_writes_every_metric_and_a_table(run, capsys):
    assert evaluate() == 0
    out = capsys.readouterr().out
    for name in ("elbo", "importance_bound", "bits_per_dim", "reconstruction", "active_units"):
        record = strict(run.evaluation(name).read_text())
        settings = record["settings"]
        assert settings["seed"] == 0
        assert settings["split"] == "test"
        assert settings["num_examples"] == 180
        assert settings["checkpoint"]["name"] == "best"
        assert len(settings["checkpoint"]["sha256"]) == 64
        assert settings["dataset"]["binarization"] == "none"
        assert settings["likelihood"] == "Binomial"
        for key, value in record["values"].items():
            assert math.isfinite(value["value"])
            assert value["n"] == 180
            assert value["standard_error"] >= 0
            assert key in out
    assert strict(run.evaluation("importance_bound").read_text())["settings"]["metric"]["num_samples"] == 7


def test_same_seed_same_numbers_and_order_does_not_matter(run):
    values = []
    for words in (["metric=[elbo,importance_bound]"], ["metric=[importance_bound,elbo]"], ["metric=elbo", "seed=1"]):
        assert cli.main(["evaluate", "hardware=cpu", *words]) == 0
        values.append(json.loads(run.evaluation("elbo").read_text())["values"]["elbo_nats"]["value"])
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_checkpoints_differ(run):
    values = []
    for name in ("best", "last"):
        assert evaluate("metric=[reconstruction,importance_bound]", f"checkpoint={name}", "num_examples=20") == 0
        record = json.loads(run.evaluation("reconstruction").read_text())
        assert record["settings"]["checkpoint"]["name"] == name
        values.append(record["values"]["mse"]["value"])
    assert values[0] != values[1]


def test_not_applicable_is_said_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "outputs" / "a", "model/likelihood=gaussian")
    assert evaluate() == 0
    record = strict(run.evaluation("bits_per_dim").read_text())
    assert "Gaussian is a density" in record["skipped"]
    assert "values" not in record
    assert "Gaussian is a density" in " ".join(capsys.readouterr().out.split())


def test_values_that_are_not_finite_fail_and_are_said(run, capsys):
    weights = factory.load_run(run)[2].state_dict()
    save_weights(run.best_weights, {name: torch.full_like(value, math.nan) for name, value in weights.items()})
    assert evaluate() == 1
    assert "not finite for 180 of 180" in strict(run.evaluation("elbo").read_text())["failed"]
    captured = capsys.readouterr()
    assert "metric elbo: " in captured.err
    assert "metric importance_bound: " in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run=nowhere"], ["run", "nowhere"]),
        (["run=3"], ["run", "'3' does not exist"]),
        (["metric=[elbow]"], ["metric", "elbo"]),
        (["metric=[]"], ["metric="]),
        (["metric.importance_bound.num_samples=0"], ["metric.importance_bound.num_samples", "at least 1", "0"]),
        (["metric.importance_bound.chunk_size=-1"], ["metric.importance_bound.chunk_size", "at least 1"]),
        (["metric.active_units.threshold=-1"], ["metric.active_units.threshold", "negative"]),
        (["metric.importance_bound.num_sample=5"], ["num_samples"]),
        (["split=tset"], ["split", "test"]),
        (["checkpoint=bset"], ["checkpoint", "best"]),
        (["seed=a"], ["seed", "integer"]),
        (["seed=-1"], ["seed", "-1"]),
        (["num_examples=0"], ["num_examples", "1 to 180"]),
        (["num_examples=1000"], ["num_examples", "1 to 180"]),
        (["batch_size=0"], ["batch_size", "at least 1"]),
        (["samples=hmc"], ["samples", "hmc", "vaebench sample"]),
        (["extractor=pixel"], ["extractor", "pixels"]),
        (["hardware.num_devices=2"], ["hardware.num_devices", "one device"]),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, words, parts):
    assert cli.main(["evaluate", "hardware=cpu", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    for part in parts:
        assert part in error
    assert not (run.path / "evaluation").exists()


def test_a_run_without_weights_is_refused(run, capsys):
    for path in (run.best_weights, run.last_weights):
        path.unlink()
    assert evaluate(f"run={run.path}") == 2
    assert ".safetensors' are missing" in capsys.readouterr().err


def test_what_cannot_be_written_fails_in_one_sentence(run, capsys):
    run.evaluation("importance_bound").mkdir(parents=True)  # in the way
    assert evaluate("metric=importance_bound") == 1
    error = capsys.readouterr().err.strip()
    assert "evaluation/importance_bound.json" in error
    assert "Traceback" not in error
    assert run.evaluation("importance_bound").is_dir()


def test_an_empty_split_is_refused(run, capsys):
    config = OmegaConf.load(run.config)
    config.dataset.num_test = 0
    OmegaConf.save(config, run.config)
    assert evaluate() == 2
    assert "test split of 'digits' is empty" in capsys.readouterr().err


def test_weights_of_another_model_are_refused(run, capsys):
    save_weights(run.best_weights, {"a": torch.zeros(1)})
    assert evaluate() == 2
    assert "best.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(("likelihood", "measure"), [("auto", "mass"), ("gaussian", "density"), ("bernoulli", None)])
def test_says_what_log_p_is_the_logarithm_of(tmp_path, monkeypatch, capsys, likelihood, measure):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "outputs" / "a", f"model/likelihood={likelihood}")
    assert cli.main(["evaluate", "hardware=cpu", "metric=[reconstruction]"]) == 0
    assert strict(run.evaluation("reconstruction").read_text())["settings"]["measure"] == measure


def test_a_run_that_did_not_end_is_told_of(run, capsys):
    assert cli.main(["evaluate", "hardware=cpu", "metric=[active_units]"]) == 0
    assert "is not done" not in capsys.readouterr().err
    run.set_status("failed", reason="no space")
    assert cli.main(["evaluate", "hardware=cpu", "metric=[active_units]"]) == 0
    assert "outputs/a' is not done: failed, at epoch 1" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(run, capsys, monkeypatch):
    (run.path / "evaluation").write_text("in the way")
    monkeypatch.setattr(factory, "load_run", lambda *_: pytest.fail("it began to work"))
    assert cli.main(["evaluate"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vaebench evaluate: run: cannot write into ")
    assert "evaluation': it is a file" in error


def judge(*words: str) -> int:
    return cli.main(["evaluate", "hardware=cpu", *words])


def test_batch_size_is_the_number_of_examples_at_a_time(run, monkeypatch):
    sizes: list[int] = []
    posterior = VAE.posterior
    monkeypatch.setattr(VAE, "posterior", lambda self, x, y=None: sizes.append(len(x)) or posterior(self, x, y))
    assert judge("metric=[active_units]", "batch_size=70") == 0
    assert sizes == [70, 70, 40]


def test_values_of_single_examples_lie_beside_the_record(run):
    assert judge("metric=[elbo,active_units]", "num_examples=50") == 0
    record = strict(run.evaluation("elbo").read_text())
    beside = run.evaluation("elbo").with_suffix(".safetensors")
    assert record["per_example"]["file"] == beside.name
    assert record["per_example"]["sha256"] == hashlib.sha256(beside.read_bytes()).hexdigest()
    values = load_file(beside)
    assert set(values) == {"elbo_nats", "distortion_nats", "rate_nats"}
    for name, found in values.items():
        assert found.shape == (50,)
        assert found.double().mean().item() == pytest.approx(record["values"][name]["value"], rel=1e-6)
    assert beside.stat().st_size < 50 * 3 * 4 + 400
    assert not run.evaluation("active_units").with_suffix(".safetensors").exists()


def test_values_of_single_examples_go_with_the_numbers_that_they_belong_to(run):
    beside = run.evaluation("reconstruction").with_suffix(".safetensors")
    assert judge("metric=[reconstruction]") == 0
    assert beside.exists()
    weights = factory.load_run(run)[2].state_dict()
    save_weights(run.best_weights, {name: torch.full_like(value, math.nan) for name, value in weights.items()})
    assert judge("metric=[reconstruction]") == 1
    assert not beside.exists()


def test_samples_of_the_prior_and_of_a_sampler(run, capsys):
    assert judge("metric=[fd]") == 0
    of_prior = strict(run.evaluation("fd").read_text())
    assert of_prior["settings"]["samples"] == "prior"
    assert of_prior["settings"]["extractor"]["_target_"].endswith(".Pixels")
    assert of_prior["details"]["source"] == "the prior"
    assert of_prior["values"]["fd_pixels"]["n"] == 180
    images = factory.load_run(run)[1].test.x[:120]
    write_atomic(run.samples("mine") / "samples.safetensors", save({"images": images.contiguous()}))
    assert judge("metric=[fd,active_units]", "samples=mine", "num_examples=120") == 0
    record = strict(run.evaluation("fd-mine").read_text())
    assert record["values"]["fd_pixels"]["value"] == pytest.approx(0, abs=1e-6)
    assert record["details"]["source"] == "sampler=mine"
    assert record["settings"]["temperature"] is None  # nothing beside the samples tells
    beside = run.samples("mine") / "diagnostics.json"
    write_json(beside, {"settings": {"temperature": 0.7}})
    assert judge("metric=[fd]", "samples=mine", "num_examples=120") == 0
    record = strict(run.evaluation("fd-mine").read_text())
    assert (record["settings"]["temperature"], of_prior["settings"]["temperature"]) == (0.7, 1.0)
    assert "sampler=mine at temperature 0.7" in capsys.readouterr().out
    write_json(beside, {})
    assert judge("metric=[fd]", "samples=mine", "num_examples=120") == 2
    assert "diagnostics.json' is damaged ('settings'); draw anew: vaebench sample run=" in capsys.readouterr().err
    beside.unlink()
    assert run.evaluation("active_units").exists()  # it looks at no samples, and so has no other name
    capsys.readouterr()
    assert judge("metric=[fd]", "samples=mine") == 0
    assert "holds 120 samples, fewer than 180" in strict(run.evaluation("fd-mine").read_text())["skipped"]
    assert judge("metric=[fd]", "samples=mime") == 2
    assert "no samples of 'mime'; did you mean 'mine'?" in capsys.readouterr().err
    write_atomic(run.samples("mine") / "samples.safetensors", b"no tensors")
    assert judge("metric=[fd]", "samples=mine") == 2
    assert "samples.safetensors' is damaged" in capsys.readouterr().err


def test_factors_of_a_data_set_that_has_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "outputs" / "a", "dataset=xy_squares")
    assert judge("metric=[mig]") == 0
    record = strict(run.evaluation("mig").read_text())
    assert 0 <= record["values"]["mig"]["value"] <= 1
    assert list(record["details"]["gap_per_factor"]) == ["x0", "y0", "x1", "y1", "x2", "y2"]


def test_a_metric_of_factors_is_skipped_without_them(run):
    assert judge("metric=[mig]") == 0
    assert "without their ground-truth factors" in strict(run.evaluation("mig").read_text())["skipped"]
