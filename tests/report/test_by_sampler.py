"""Samplers side by side: a line for each, under one name."""

from __future__ import annotations

import pytest

from tests.report.runs import write_run
from vaebench.report import files, page
from vaebench.report.grouping import make_sections, value_label
from vaebench.report.reading import VALIDATION_LOSS, read_run
from vaebench.runs.run import write_json

FD = {"maf": 2.0, "hmc": 3.0}


def judged(run, samples: str, value: float, **settings: object) -> None:
    suffix = "" if samples == "prior" else f"-{samples}"
    own = {"split": "test", "samples": samples, "temperature": 1.0, "metric": {"num_samples": None}, **settings}
    entry = {"value": value, "standard_error": 0.1, "n": 100, "unit": "squared", "better": "lower"}
    write_json(run.evaluation(f"fd{suffix}"), {"settings": own, "values": {"fd_pixels": entry}, "how": "by hand"})


@pytest.fixture
def runs(tmp_path):
    """Two seeds: the prior at 5, maf at 2 and hmc at 3, each 0.5 further with the second seed; kid of hmc skipped."""
    made = [write_run(tmp_path / str(seed), seed, elbo=-90.0, pictures=True) for seed in range(2)]
    for seed, run in enumerate(made):
        for samples, value in {"prior": 5.0, **FD}.items():
            judged(run, samples, value + seed / 2)
        write_json(run.evaluation("kid-hmc"), {"settings": {"samples": "hmc"}, "skipped": "too few"})
    return made


def rows(section):
    return [(group.config["sampler"], next(iter(group.summaries.values())).mean) for group in section.groups]


def test_each_sampler_has_a_line(runs):
    own, samples = make_sections([read_run(run.path) for run in runs])
    assert samples.dataset == "digits, samples"
    assert samples.sort_by[0] == "fd_pixels"
    assert samples.settings == ["model._target_", "sampler"]
    assert rows(samples) == [("maf", 2.25), ("hmc", 3.25), ("prior", 5.25)]
    assert {group.rank for group in samples.groups} == {1, 2}
    assert len(samples.columns) == 1
    assert [name for name, _ in own.columns] == ["elbo_nats", "fd_pixels", VALIDATION_LOSS]
    assert own.groups[0].summaries[own.columns[1]].mean == 5.25
    assert not own.groups[0].records[0].skipped
    assert [sorted(group.records[0].skipped) for group in samples.groups] == [[], ["kid"], []]


def test_samples_of_the_prior_alone_stay_with_the_run(runs):
    for run in runs:
        for path in run.evaluation("").parent.glob("*-*.json"):
            path.unlink()
    (section,) = make_sections([read_run(run.path) for run in runs])
    assert "fd_pixels" in [name for name, _ in section.columns]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": 0.8}, "maf at temperature 0.8"),
        ({"temperature": 1}, "maf"),
        ({"temperature": None}, "maf"),
        ({"temperature": [0.5, 1.0]}, "maf at temperature [0.5, 1.0]"),
    ],
)
def test_temperatures_do_not_mix(runs, settings, name):
    judged(runs[0], "maf", 1.0, **settings)
    _, samples = make_sections([read_run(run.path) for run in runs])
    groups = {group.config["sampler"]: len(group.records) for group in samples.groups}
    assert groups == ({"prior": 2, "hmc": 2, "maf": 2} if name == "maf" else {"prior": 2, "hmc": 2, "maf": 1, name: 1})


def test_unequally_many_samples_do_not_compare(runs):
    judged(runs[0], "maf", 1.0, metric={"num_samples": 1000})
    _, samples = make_sections([read_run(run.path) for run in runs])
    assert len(samples.columns) == 2


def test_every_format_names_the_sampler(runs):
    sections = make_sections([read_run(run.path) for run in runs], "elbo_nats")
    assert [row["settings"]["sampler"] for row in files.as_json(sections, [])["datasets"][1]["configurations"]] == [
        "maf",
        "hmc",
        "prior",
    ]
    assert "| 1 | vae | maf | 2 | 2.25 ± 0.35 |" in files.as_markdown(sections, [])
    assert files.as_csv(sections).count("hmc") == 2
    shown = page.render(sections, [])
    assert "2 runs, 1 configuration ·" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("vaebench.samplers.langevin.LangevinDynamics", "langevin"),
        ("vaebench.samplers.hmc.HamiltonianMonteCarlo", "hmc"),
        ("vaebench.samplers.maf.MAFSampler", "maf"),
        ("vaebench.mcmc.kernels.hmc.HMCKernel", "hmc"),
        ("vaebench.trainers.contrastive_divergence.ContrastiveDivergenceTrainer", "contrastive_divergence"),
        ("vaebench.energies.analytic.two_moons.TwoMoonsEnergy", "two_moons"),
        ("vaebench.distributions.likelihoods.Bernoulli", "Bernoulli"),
    ],
)
def test_a_class_is_shown_by_the_name_of_its_option(target, name):
    assert value_label(target) == name


def test_energies_are_ranked_by_their_likelihood(tmp_path):
    for dim, nll in ((1, 1.4), (2, 0.9)):
        run = write_run(tmp_path / str(dim), model__latent_dim=dim, losses=(0.0,))
        values = {
            name: {"value": value, "standard_error": 0.01, "n": 100, "unit": "nats", "better": better}
            for name, value, better in (("energy_nll_nats", nll, "lower"), ("log_normalizer_nats", 9.0, None))
        }
        write_json(run.evaluation("energy_nll"), {"settings": {"split": "test"}, "values": values, "how": ""})
    (section,) = make_sections([read_run(tmp_path / name) for name in ("1", "2")])
    assert section.sort_by[0] == "energy_nll_nats"
    assert [group.config["model.latent_dim"] for group in section.groups] == [2, 1]
    assert [group.rank for group in section.groups] == [1, 2]


def test_chains_are_ranked_by_the_first_number_with_a_direction(tmp_path):
    for name, ess in (("a", 3.0), ("b", 7.0)):
        run = write_run(tmp_path / name, losses=(), sampler=name)
        values = {
            key: {"value": value, "standard_error": None, "unit": "", "better": better}
            for key, value, better in (("seconds", 1.0, None), ("ess_per_1000_gradients", ess, "higher"))
        }
        write_json(run.evaluation("chains"), {"settings": {"temperature": 1.0}, "values": values, "how": ""})
    (section,) = make_sections([read_run(tmp_path / name) for name in "ab"])
    assert section.sort_by[0] == "ess_per_1000_gradients"
    assert [group.config["sampler"] for group in section.groups] == ["b", "a"]
