"""Energies from the command line: trained, drawn from and scored; what they lack is said."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from tests.commands.training_runs import Answer, trained
from vaebench.cli.main import main
from vaebench.runs.run import Run

ON_CPU = ("hardware=cpu", "hardware.threads=1")
TINY = (
    *ON_CPU,
    "dataset=two_moons",
    "dataset.num_points=200",
    "trainer.num_epochs=2",
    "trainer.batch_size=40",
    "model.network.hidden_dims=[8]",
)
CHAINS = ("trainer.k_steps=2", "trainer.buffer_size=60")


@pytest.fixture
def run(command) -> Run:
    words = (*CHAINS, "model=ebm", "trainer=contrastive_divergence", "callback.images.every_epochs=1")
    return trained(command, "a", *words, small=TINY)


def call(capfd, *words: str) -> Answer:
    code = main([*words, *ON_CPU])
    out, err = capfd.readouterr()
    return Answer(code, out, err)


def test_train_sample_and_evaluate(run, capfd):
    pictures = {path.name for path in run.images.iterdir()}
    assert {"density.png", "epoch-00001-density.png", "epoch-00002-density.png", "losses.png"} <= pictures
    assert not run.best_weights.is_file()  # nothing says which weights are best
    chains = ("sampler.num_chains=4", "sampler.num_warmup=20", "sampler.num_draws=8")
    assert call(capfd, "sample", "run=a", "sampler=mala", "num_samples=9", *chains).code == 0
    drawn = load_file(run.samples("mala") / "samples.safetensors")
    assert drawn["latents"].shape == drawn["images"].shape == (9, 2)
    assert (run.samples("mala") / "landscape.png").is_file()
    answer = call(
        capfd, "evaluate", "run=a", "metric=[energy_nll,elbo]", "metric.energy_nll.num_temperatures=20",
        "metric.energy_nll.num_leapfrog=2", "metric.energy_nll.num_chains=32",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    record = json.loads(run.evaluation("energy_nll").read_text())
    assert record["values"]["energy_nll_nats"]["n"] == 20
    assert "an energy of x has no latent" in json.loads(run.evaluation("elbo").read_text())["skipped"]


def test_what_an_energy_cannot_do_is_one_sentence(run, capfd):
    answer = call(capfd, "sample", "run=a")
    assert answer.code == 2
    assert "sampler=normal does not serve EBM" in answer.sentence
    assert "sampler=hmc" in answer.sentence  # those that do
    answer = call(capfd, "encode", "run=a")
    assert answer.code == 2
    assert "EBM has no posterior: an energy of x has no latent" in answer.sentence
    answer = call(capfd, "evaluate", "run=a", "metric=elbo")
    assert "none of these metrics applies; those that do: metric=energy_nll\n" in answer.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model=vae", "trainer=contrastive_divergence"), "VAE needs trainer=base, got trainer=contrastive_divergence"),
        (("model=ebm", "trainer=base"), "EBM needs trainer=contrastive_divergence, got trainer=base"),
        (("model=ebm", "trainer.buffer_size=0"), "trainer.buffer_size must be a whole number of at least 1; got 0"),
        (("model=ebm", "trainer.buffer_size=30"), "trainer.buffer_size must be at least the 40 examples of a step"),
        (("model=score_matching", "model.network.activation=relu"), "score matching needs second derivatives"),
    ],
)
def test_a_mistake_is_one_sentence(command, words, sentence):
    tiny = [word for word in TINY if "hidden_dims" not in word]
    answer = command(*tiny, *words, "hydra.run.dir=a")
    assert answer.code == 2
    assert sentence in answer.sentence
