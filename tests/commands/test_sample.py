"""`vaebench sample` from the command line: files, messages, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.composing import composed
from tests.shared import copied
from vaebench import factory
from vaebench.cli import main as cli
from vaebench.commands import sample as command
from vaebench.mcmc.unfinished import Unfinished
from vaebench.runs.images import to_image
from vaebench.runs.run import Run, now, write_json
from vaebench.samplers.gaussian_mixture import GaussianMixtureSampler
from vaebench.trainers.state import save_weights

QUICK = ("sampler.num_chains=4", "sampler.num_warmup=20", "sampler.num_draws=20", "sampler.num_leapfrog=3")


def make_run(path: Path, *overrides: str) -> Run:
    """A run as `vaebench train` leaves it, untrained."""
    copied(path, lambda folder: write_untrained(folder, *overrides), "tests/commands/test_sample.py", *overrides)
    return Run(path)


def write_untrained(path: Path, *overrides: str) -> None:
    cfg = composed("train", "model.network.hidden_dims=[16]", "model.latent_dim=3", *overrides)
    run = Run(path)
    factory.save_config(run, cfg)
    write_json(run.provenance, {"start": now()})
    run.set_status("done", epoch=1, step=14)
    data = factory.dataset(cfg)
    model = factory.model(cfg, data)
    with torch.no_grad():
        model.end_epoch(data.train, 500)
    save_weights(run.best_weights, model.state_dict())
    save_weights(run.last_weights, {name: value + 0.1 for name, value in model.state_dict().items()})


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "outputs" / "a")


@pytest.fixture
def rhvae_run(tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "outputs" / "b", "model=rhvae")


def sample(*words: str) -> int:
    return cli.main(["sample", "hardware=cpu", *words])


def test_the_newest_run_is_sampled_from_its_prior(run, capsys):
    assert sample("num_samples=10") == 0
    folder = run.samples("normal")
    assert sorted(file.name for file in folder.iterdir()) == ["diagnostics.json", "grid.png", "samples.safetensors"]
    tensors = load_file(folder / "samples.safetensors")
    assert tensors["latents"].shape == (10, 3)
    assert tensors["images"].shape == (10, 1, 8, 8)
    _, _, model = factory.load_run(run)
    with torch.no_grad():
        torch.testing.assert_close(tensors["images"], model.decode(tensors["latents"]))
    with Image.open(folder / "grid.png") as grid:
        assert grid.size[0] > 100
    record = json.loads((folder / "diagnostics.json").read_text())
    assert record["diagnostics"] is None
    assert record["settings"]["seed"] == 0
    assert record["settings"]["checkpoint"]["name"] == "best"
    assert str(folder.relative_to(Path.cwd())) in capsys.readouterr().out


def test_chains_are_diagnosed_in_numbers_and_words(rhvae_run, capsys):
    assert sample("sampler=rhvae", "num_samples=6", *QUICK) == 0
    record = json.loads((rhvae_run.samples("rhvae") / "diagnostics.json").read_text())
    diagnostics = record["diagnostics"]
    assert (diagnostics["num_chains"], diagnostics["num_draws"]) == (4, 20)
    for name in ("r_hat", "ess_bulk", "ess_tail", "mcse_mean"):
        assert len(diagnostics[name]) == 3
    assert record["settings"]["sampler"]["num_leapfrog"] == 3
    out = capsys.readouterr().out
    for word in ("acceptance rate", "R-hat", "ESS bulk", "ESS tail", "divergences", "E-BFMI"):
        assert word in out
    assert diagnostics["verdict"]  # 20 draws are too few, and it says so
    for sentence in diagnostics["verdict"]:
        assert sentence in out


@pytest.mark.parametrize("words", [["sampler=hmc"], ["sampler=hmc", "target=prior"], ["sampler=gaussian_mixture"]])
def test_other_samplers(run, words):
    assert sample(*words, "num_samples=5", *(QUICK if "hmc" in words[0] else ())) == 0
    name = words[0].removeprefix("sampler=")
    assert load_file(run.samples(name) / "samples.safetensors")["latents"].shape == (5, 3)


@pytest.mark.parametrize("sampler", ["normal", "gaussian_mixture", "hmc"])
def test_the_seed_and_the_checkpoint_decide(run, sampler):
    quick = QUICK if sampler == "hmc" else ()
    draws = []
    for words in ((), (), ("seed=1",), ("checkpoint=last",)):
        assert sample(f"sampler={sampler}", "num_samples=4", *quick, *words) == 0
        draws.append(load_file(run.samples(sampler) / "samples.safetensors")["images"])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sampler=rhvae"], r"no Riemannian metric; samplers that do: .*sampler=hmc.* and \d+ others\n"),
        (["sampler=hmc", "target=manifold"], "target=manifold does not serve VAE"),
        (["target=prior"], "sampler=normal draws from no target"),
        (["num_samples=0"], "num_samples: expected at least 1, got 0"),
        (["num_samples=many"], "num_samples"),
        (["sampler=hmk"], "did you mean 'hmc'"),
        (["sampler=hmc", "target=priors"], "did you mean 'prior'"),
        (["sampler=hmc", "sampler.num_chains=0"], "sampler.num_chains"),
        (["sampler=hmc", "sampler.num_chain=4"], "num_chains"),
        (["sampler=hmc", "sampler.step_size=long"], "sampler.step_size"),
        (["checkpoint=worst"], "checkpoint"),
        (["run=outputs/c"], "does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(run, capsys, words, sentence):
    assert sample(*words) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert re.search(sentence, captured.err), captured.err
    assert not (run.path / "samples").exists()


def test_a_failure_keeps_the_samples_from_before(run, monkeypatch, capsys):
    assert sample("num_samples=3") == 0
    folder = run.samples("normal")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fail(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(command, "write_json", fail)  # the last of the three
    assert sample("num_samples=9") == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [entry.name for entry in folder.parent.iterdir()] == ["normal"]
    assert "No space left" in capsys.readouterr().err


def test_latents_that_are_not_finite_are_not_written(run, capsys):
    weights = load_file(run.best_weights)
    name = next(name for name in weights if name.startswith("decoder") and name.endswith("bias"))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_weights(run.best_weights, weights)
    assert sample() == 1
    assert "64 of 64 images are not finite" in capsys.readouterr().err
    assert not (run.path / "samples").exists()


def test_a_sample_that_is_replaced_is_told_of(run, capfd):
    file = run.samples("normal") / "diagnostics.json"
    assert sample("num_samples=4", "seed=7") == 0
    first = json.loads(file.read_text())
    assert first["replaced"] is None
    assert "replaced" not in capfd.readouterr().err
    assert sample("num_samples=5", "seed=8") == 0
    second = json.loads(file.read_text())["replaced"]
    assert second == {"time": first["time"], "seed": 7, "num_samples": 4, "checkpoint": "best"}
    message = capfd.readouterr().err
    assert f"replaced an earlier sample in {run.samples('normal').relative_to(Path.cwd())}" in message
    assert "seed 7, num_samples 4" in message
    file.write_text("{")
    assert sample("num_samples=5") == 0
    assert json.loads(file.read_text())["replaced"] == {}
    assert "nothing is known" in capfd.readouterr().err


def test_a_sweep_over_seeds_tells_of_what_it_replaces(run, capfd):
    assert sample("-m", "seed=0,1", "num_samples=4") == 0
    assert "replaced an earlier sample" in capfd.readouterr().err
    assert json.loads((run.samples("normal") / "diagnostics.json").read_text())["replaced"]["seed"] == 0


def test_a_place_that_cannot_be_written_is_said_before_anything_is_drawn(run, capsys, monkeypatch):
    (run.path / "samples").write_text("in the way")
    monkeypatch.setattr(factory, "load_run", lambda *_: pytest.fail("it began to work"))
    assert cli.main(["sample", "sampler=normal"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vaebench sample: run: cannot write into ")
    assert "samples': it is a file" in error


def test_a_fitted_sampler_is_stored_and_used_again(run, capfd, monkeypatch):
    fits = []
    right = GaussianMixtureSampler.fit
    monkeypatch.setattr(GaussianMixtureSampler, "fit", lambda self, *a, **k: fits.append(1) or right(self, *a, **k))
    words = ("sampler=gaussian_mixture", "num_samples=4")
    folder, draws = run.samples("gaussian_mixture"), []

    def go(*more: str) -> int:
        assert sample(*words, *more) == 0
        draws.append(load_file(folder / "samples.safetensors")["latents"])
        return len(fits)

    assert go() == 1
    stored = (folder / "sampler.safetensors").read_bytes()
    assert go() == 1
    assert "using the fitted sampler" in capfd.readouterr().err
    assert torch.equal(draws[0], draws[1])  # as if it had been fitted anew
    assert json.loads((folder / "diagnostics.json").read_text())["fitted_sampler_reused"] is True
    assert go("seed=1", "sampler.temperature=0.5") == 1  # neither changes what is learned
    assert not torch.equal(draws[0], draws[2])
    assert (folder / "sampler.safetensors").read_bytes() == stored
    assert go("sampler.refit=true") == 2
    assert torch.equal(draws[0], draws[3])
    assert go("sampler.num_components=3") == 3
    assert "was fitted with other settings; fitting anew" in capfd.readouterr().err
    assert go("sampler.num_components=3", "checkpoint=last") == 4
    assert "belongs to another checkpoint; fitting anew" in capfd.readouterr().err
    (folder / "sampler.safetensors").write_bytes(stored[:-9])
    assert go() == 5
    assert "is damaged" in capfd.readouterr().err


def test_an_interrupted_fit_waits_beside_the_samples_and_goes_on(run, monkeypatch, capfd):
    words = ("sampler=two_stage", "sampler.num_epochs=3", "sampler.hidden_dim=8", "num_samples=3")
    folder = run.samples("two_stage")

    def interrupt(self, training):
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("vaebench.samplers.fitting._KeepBest.on_epoch_end", interrupt)
        assert sample(*words) == 130
    assert "the same command goes on with it" in capfd.readouterr().err
    assert (folder / "fit" / "checkpoints" / "last.state").is_file()
    assert sample(*words) == 0
    assert "continuing at step" in capfd.readouterr().err
    assert {path.name for path in folder.iterdir()} >= {"fit.jsonl", "sampler.safetensors", "grid.png"}
    assert not (folder / "fit").exists()
    first = load_file(folder / "samples.safetensors")["images"]
    assert sample(*words, "sampler.refit=true") == 0  # as if it had never stopped
    assert torch.equal(first, load_file(folder / "samples.safetensors")["images"])
    assert sample(*words) == 0
    assert (folder / "fit.jsonl").is_file()


@pytest.fixture
def conditional_run(tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "outputs" / "c", "model=conditional_vae")
    _, data, model = factory.load_run(run)
    model.before_training(data.train)
    save_weights(run.best_weights, model.state_dict())
    return run


@pytest.mark.parametrize("name", ["normal", "gaussian_mixture", "kernel_density", "maf"])
def test_a_label_for_all_samples_or_as_many_of_each(conditional_run, name):
    quick = [f"sampler={name}", *(["sampler.num_epochs=1"] if name == "maf" else [])]
    assert sample(*quick, "num_samples=5", "sampler.y=3") == 0
    folder = conditional_run.samples(name)
    assert load_file(folder / "samples.safetensors")["labels"].tolist() == [3] * 5
    assert sample(*quick, "num_samples=8", "y=[0,7,2]") == 0
    tensors = load_file(folder / "samples.safetensors")
    assert tensors["labels"].tolist() == [0] * 3 + [7] * 3 + [2] * 2
    _, _, model = factory.load_run(conditional_run)
    with torch.no_grad():
        decoded = model.decode(tensors["latents"], tensors["labels"])
    torch.testing.assert_close(tensors["images"], decoded)
    record = json.loads((folder / "diagnostics.json").read_text())
    assert record["settings"]["y"] == [0, 7, 2]
    assert record["fitted_sampler_reused"] in (None, True)  # labels are no setting of what is fitted
    assert sample(*quick, "num_samples=6") == 0
    assert len(load_file(folder / "samples.safetensors")["labels"]) == 6


def test_the_grid_has_a_row_for_each_label(conditional_run):
    assert sample("num_samples=11", "y=[4,1,8]") == 0
    folder = conditional_run.samples("normal")
    images = load_file(folder / "samples.safetensors")["images"]
    rows = torch.cat([images[0:3], images[4:7], images[8:11]])
    expected = to_image(rows, 3, row_labels=["4", "1", "8"])
    with Image.open(folder / "grid.png") as grid:
        assert grid.convert("RGB").tobytes() == expected.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("y=10",), "y: expected labels from 0 to 9, got 10"),
        (("y=[0,-1]",), r"y: expected labels from 0 to 9, got [0, -1]"),
        (("y=[0,1,2]", "num_samples=2"), "num_samples: expected one for each of 3 labels, got 2"),
        (("y=[[0.5,0.5]]",), "y: expected label vectors of 10 entries, got 2"),
        (("sampler.y=three",), "y: expected"),
        (
            ("sampler=langevin", "target=double_well", "y=1"),
            "draws from an energy, which knows no labels",
        ),
    ],
)
def test_labels_that_do_not_fit(conditional_run, capsys, words, sentence):
    assert sample(*words) == 2
    assert sentence in capsys.readouterr().err


def test_a_model_without_labels_takes_none(run, capsys):
    assert sample("y=3") == 2
    assert "y: VAE has no labels; leave it out, or train model=conditional_vae" in capsys.readouterr().err


def test_codes_of_a_class_and_their_length(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = ["channels=[4,4]", "kernel_size=4", "stride=2", "decoder_channels=[4,4]", "block_channels=2"]
    words = ["model=vq_vae", *(f"model.network.{setting}" for setting in network)]
    words += ["model.quantizer.num_embeddings=8", "model.quantizer.embedding_dim=2"]
    cfg = composed("train", *words)
    run = Run(tmp_path / "outputs" / "v")
    factory.save_config(run, cfg)
    write_json(run.provenance, {"start": now()})
    run.set_status("done", epoch=1, step=14)
    data = factory.dataset(cfg)
    model = factory.model(cfg, data)
    model.before_training(data.train)
    torch.nn.init.normal_(model.quantizer.embedding)
    save_weights(run.best_weights, model.state_dict())
    save_weights(run.last_weights, model.state_dict())
    evaluate = ["evaluate", "hardware=cpu", "metric=[code_length,codebook]"]
    assert cli.main(evaluate) == 0
    assert "there is no prior over its codes yet" in json.loads(run.evaluation("code_length").read_text())["skipped"]

    quick = ["sampler=code_transformer", "sampler.num_epochs=2", "sampler.hidden_channels=16", "num_samples=12"]
    assert sample(*quick) == 0
    assert cli.main([*evaluate, "samples=code_transformer"]) == 0
    record = json.loads(run.evaluation("code_length-code_transformer").read_text())
    assert set(record["values"]) == {"code_length_nats", "code_elbo_nats", "code_bits_per_dim"}
    assert record["details"]["uniform_rate_nats"] == pytest.approx(4 * 2.0794415)
    assert "codebook_usage" in json.loads(run.evaluation("codebook").read_text())["values"]

    assert sample(*quick, "y=3") == 2
    assert "y: VQVAE has no labels; leave it out, or train model=conditional_vae, or give sampler.num_classes=" in (
        capsys.readouterr().err
    )
    assert sample(*quick, "sampler.num_classes=10", "y=3") == 0
    assert load_file(run.samples("code_transformer") / "samples.safetensors")["labels"].tolist() == [3] * 12
    assert cli.main([*evaluate, "samples=code_transformer", "checkpoint=last"]) == 0  # the same weights
    save_weights(run.last_weights, {name: value + 0.1 for name, value in model.state_dict().items()})
    assert cli.main([*evaluate, "samples=code_transformer", "checkpoint=last"]) == 2
    assert "belongs to another checkpoint; draw anew: vaebench sample" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("target=double_well",), ("sampler.step_size=0.2", "target=aggregate_posterior")])
def test_interrupted_chains_go_on_to_the_same_numbers(words, run, monkeypatch, capsys):
    """Of an energy the directory is named; of a model the sampler's folder is found again."""
    words = ("sampler=hmc", "num_samples=8", "seed=3", *QUICK, *words)
    from_model = "target=aggregate_posterior" in words
    folders = [run.samples("hmc")] * 2 if from_model else [Path("a/samples/hmc"), Path("b/samples/hmc")]
    places = [()] * 2 if from_model else [(f"hydra.run.dir={name}",) for name in "ab"]
    assert sample(*words, *places[0]) == 0
    whole = load_file(folders[0] / "samples.safetensors")
    calls = []

    def is_due(self):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    monkeypatch.setattr(Unfinished, "is_due", is_due)
    capsys.readouterr()
    assert sample(*words, *places[1]) == 130
    words_said = capsys.readouterr().err
    assert "kept 8 of 20 draws of each chain" in words_said
    assert "goes on from what was drawn" in words_said
    assert (folders[1] / "unfinished.safetensors").is_file()
    if not from_model:
        assert sample("sampler=hmc", "target=funnel", *places[1]) == 2
        assert "unfinished chains of other settings" in capsys.readouterr().err
    assert sample(*words, *places[1]) == 0
    assert "going on from 8 of 20 draws" in capsys.readouterr().err
    assert len(calls) == 7 + 12
    found = load_file(folders[1] / "samples.safetensors")
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    assert not (folders[1] / "unfinished.safetensors").exists()
