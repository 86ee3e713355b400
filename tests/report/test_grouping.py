from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from safetensors.numpy import save

from tests.report.runs import write_run
from vaebench.report.grouping import column_label, headline, key_label, make_sections, short_labels, value_label
from vaebench.report.reading import read_run
from vaebench.runs.run import read_json, write_atomic, write_json


@pytest.fixture
def read(tmp_path):
    """Write a run and read it back; its number gives its place."""
    counter = iter(range(1000))

    def make(*arguments, **settings):
        return read_run(write_run(tmp_path / str(next(counter)), *arguments, **settings).path)

    return make


def summary(group, name):
    return next(summary for (own, _), summary in group.summaries.items() if own == name)


def test_mean_and_spread_over_seeds(read):
    (section,) = make_sections([read(seed, elbo=value) for seed, value in enumerate((-90.0, -92.0, -97.0))])
    (group,) = section.groups
    found = summary(group, "elbo_nats")
    assert found.mean == pytest.approx(-93)
    assert found.spread == pytest.approx(math.sqrt((9 + 1 + 16) / 2))
    assert found.num_seeds == 3
    assert found.error == pytest.approx(found.spread / math.sqrt(3))


def test_one_seed_has_no_spread(read):
    (section,) = make_sections([read(0, elbo=-90.0)])
    found = summary(section.groups[0], "elbo_nats")
    assert found.spread is None
    assert found.error == 0.5


def test_where_and_how_fast_is_not_what(read):
    records = [
        read(0, elbo=-90.0, hardware__device="gpu"),
        read(1, elbo=-90.0, dataset__root="/data", run="x", resume="y"),
    ]
    (section,) = make_sections(records)
    assert len(section.groups) == 1
    assert len(section.groups[0].counted) == 2


def test_who_watched_is_not_what(read):
    (section,) = make_sections([read(0), read(1, callback__tensorboard___target_="vaebench.trainers.x.TensorBoard")])
    assert len(section.groups) == 1
    (section,) = make_sections([read(0), read(1, callback__ema___target_="vaebench.trainers.x.EMA")])
    assert len(section.groups) == 2


def test_the_trainer_goes_with_the_model(read):
    aae = {"model___target_": "vaebench.models.aae.AAE", "trainer___target_": "vaebench.trainers.x.Adversarial"}
    (section,) = make_sections([read(0), read(0, **aae)])
    assert section.settings == ["model._target_"]
    (section,) = make_sections([read(0), read(0, **aae), read(0, trainer___target_="vaebench.trainers.x.Other")])
    assert section.settings == ["model._target_", "trainer._target_"]


def test_only_what_differs_is_shown(read):
    records = [
        read(0),
        read(0, model__latent_dim=2),
        read(0, model___target_="vaebench.models.rhvae.RHVAE", model__step_size=0.01),
    ]
    (section,) = make_sections(records)
    assert section.settings == ["model._target_", "model.latent_dim"]
    records.append(read(0, model___target_="vaebench.models.rhvae.RHVAE", model__step_size=0.02))
    (section,) = make_sections(records)
    assert section.settings == ["model._target_", "model.latent_dim", "model.step_size"]


def test_settings_that_come_with_the_model_are_not_shown(read):
    records = [
        read(0, model___target_="vaebench.models.aae.AAE", model__gamma=1, model__latent_dim=2),
        read(0, model___target_="vaebench.models.vae_gan.VAEGAN", model__gamma=2),
        read(0),
    ]
    assert make_sections(records)[0].settings == ["model._target_", "model.latent_dim"]


def test_absence_is_shown_where_nothing_else_tells_configurations_apart(read):
    (section,) = make_sections([read(0), read(0, trainer__ema_decay=0.99)])
    assert len(section.groups) == 2
    assert section.settings == ["model._target_", "trainer.ema_decay"]
    # It brings no settings that tell others apart: the step size goes with the model.
    rhvae = read(0, model___target_="vaebench.models.rhvae.RHVAE", model__step_size=0.01)
    (section,) = make_sections([read(0), read(0, trainer__ema_decay=0.99), rhvae])
    assert section.settings == ["model._target_", "trainer.ema_decay"]


@pytest.mark.parametrize(
    ("sort_by", "descending", "expected"),
    [
        (None, None, [-90, -95, -99]),
        ("elbo_nats", None, [-90, -95, -99]),
        ("elbo_nats", False, [-99, -95, -90]),
        ("mse", None, [-95, -99, -90]),
        ("mse", True, [-90, -99, -95]),
    ],
)
def test_sorted_by_a_column_in_its_direction(read, sort_by, descending, expected):
    records = [
        read(0, elbo=-95.0, mse=1.0, model__latent_dim=2),
        read(0, elbo=-90.0, mse=3.0, model__latent_dim=3),
        read(0, elbo=-99.0, mse=2.0, model__latent_dim=4),
    ]
    (section,) = make_sections(records, sort_by, descending)
    assert [summary(group, "elbo_nats").mean for group in section.groups] == expected


def test_ranks_are_shared_within_two_standard_errors(read):
    # One seed each: every mean has the standard error 0.5, every difference 0.71.
    records = [read(0, elbo=-90.0 - i, model__latent_dim=i + 1) for i in range(4)]
    (section,) = make_sections(records)
    assert [group.rank for group in section.groups] == [1, 1, 2, 3]


def test_lower_is_better_where_the_metric_says_so(read):
    records = [read(0, mse=10.0 * i, model__latent_dim=i + 1) for i in range(3)]
    (section,) = make_sections(records, "mse")
    assert [(summary(group, "mse").mean, group.rank) for group in section.groups] == [(0, 1), (10, 2), (20, 3)]


def test_ranks_follow_the_spread_over_seeds(read):
    records = [read(seed, elbo=-90.0 + seed / 100, model__latent_dim=1) for seed in range(3)]
    records += [read(seed, elbo=-91.0 + seed / 100, model__latent_dim=2) for seed in range(3)]
    assert [group.rank for group in make_sections(records)[0].groups] == [1, 2]
    assert [group.rank for group in make_sections(records, "elbo_nats", False)[0].groups] == [2, 1]


def test_configurations_without_the_number_come_last_and_say_so(read):
    (section,) = make_sections([read(0, model__latent_dim=2), read(0, elbo=-1000.0)])
    first, last = section.groups
    assert first.state == ""
    assert first.rank == 1
    assert last.state == "not evaluated"
    assert last.rank is None
    assert summary(last, "validation_loss").mean == 100


def test_configurations_without_the_number_are_sorted_by_the_validation_loss(read):
    records = [read(0, losses=(float(loss),), model__latent_dim=loss) for loss in (3, 1, 2)]
    (section,) = make_sections([*records, read(0, elbo=-90.0, losses=(9.0,))])
    assert [summary(group, "validation_loss").mean for group in section.groups] == [9, 1, 2, 3]


def test_without_any_evaluation_the_validation_loss_sorts(read):
    records = [read(0, losses=(9.0, 3.0), model__latent_dim=2), read(0, losses=(9.0, 2.0), model__latent_dim=3)]
    (section,) = make_sections(records)
    assert section.sort_by[0] == "validation_loss"
    assert section.groups[0].config["model.latent_dim"] == 3


def test_unfinished_runs_do_not_count_beside_finished_ones(read):
    (section,) = make_sections([read(0, elbo=-90.0), read(1, elbo=-50.0, status="failed")])
    (group,) = section.groups
    assert summary(group, "elbo_nats").mean == -90
    assert len(group.records) == 2
    assert group.state == ""
    (section,) = make_sections([read(1, elbo=-50.0, status="failed")])
    assert section.groups[0].state == "failed"


def test_a_repeated_seed_counts_once(read):
    records = [
        read(0, elbo=-90.0, start="2026-01-02T00:00:00+00:00"),
        read(0, elbo=-95.0, start="2026-01-03T00:00:00+00:00"),
        read(0, start="2026-01-04T00:00:00+00:00"),
        read(1, elbo=-80.0),
    ]
    (group,) = make_sections(records)[0].groups
    assert summary(group, "elbo_nats").num_seeds == 2
    assert summary(group, "elbo_nats").mean == pytest.approx(-87.5)
    assert len(group.records) == 4


def test_other_data_and_other_measures_stand_apart(read):
    bernoulli = {"model__likelihood": {"_target_": "vaebench.distributions.likelihoods.Bernoulli"}}
    gaussian = {"model__likelihood": {"_target_": "vaebench.distributions.likelihoods.Gaussian"}}
    records = [
        read(0, elbo=-90.0, **bernoulli),
        read(0, elbo=-20.0, evaluation={"measure": "density"}, **gaussian),
        read(1, **gaussian),  # not evaluated: its likelihood tells where it belongs
        read(0, elbo=-70.0, dataset__binarization="dynamic"),
    ]
    sections = make_sections(records)
    assert [(section.dataset, len(section.groups)) for section in sections] == [
        ("digits, probability density", 1),
        ("digits, probability mass", 1),
        ("digits (dynamic)", 1),
    ]
    assert len(sections[0].groups[0].records) == 2


def test_a_likelihood_that_suits_one_data_set_may_be_wrong_for_another(read):
    bernoulli = {"model__likelihood": {"_target_": "vaebench.distributions.likelihoods.Bernoulli"}}
    records = [
        read(0, elbo=-90.0),
        read(0, mse=1.0, evaluation={"measure": None}, **bernoulli),  # grey values: no probabilities
        read(0, elbo=-70.0, dataset__binarization="dynamic", **bernoulli),
    ]
    assert [section.dataset for section in make_sections(records)] == [
        "digits, likelihood Bernoulli",
        "digits, probability mass",
        "digits (dynamic)",
    ]


def test_numbers_under_other_conditions_are_other_columns(read):
    records = [
        read(0, elbo=-90.0),
        read(1, elbo=-91.0),
        read(0, elbo=-10.0, evaluation={"split": "train"}, model__latent_dim=2),
    ]
    (section,) = make_sections(records)
    labels = [column_label(column, section.columns) for column in section.columns]
    assert labels == ["elbo_nats (split test)", "elbo_nats (split train)", "validation_loss"]
    assert section.groups[0].summaries[section.columns[0]].mean == -90.5
    assert section.columns[0] not in section.groups[1].summaries


def test_headline_shows_the_tightest_bound_only(read):
    record = read(0, elbo=-90.0)
    (_, conditions), value = next((c, v) for c, v in record.values.items() if c[0] == "elbo_nats")
    for k in (1, 10, 100):
        record.values[f"importance_bound_{k}_nats", conditions] = value
    (section,) = make_sections([record])
    assert section.sort_by[0] == "importance_bound_100_nats"
    names = [name for name, _ in headline(section, 9)]
    assert names == ["importance_bound_100_nats", "elbo_nats", "validation_loss"]


def test_sorted_by_what_most_configurations_have(read):
    records = [read(0, elbo=-90.0 - latent_dim, model__latent_dim=latent_dim) for latent_dim in (1, 2, 3)]
    (_, conditions), value = next((c, v) for c, v in records[0].values.items() if c[0] == "elbo_nats")
    for record, rungs in zip(records, ((10, 100, 500), (10, 100), (10, 100)), strict=True):
        for k in rungs:
            record.values[f"importance_bound_{k}_nats", conditions] = value
    assert make_sections(records)[0].sort_by[0] == "importance_bound_100_nats"
    for k in (10, 100):
        del records[2].values[f"importance_bound_{k}_nats", conditions]
    assert make_sections(records)[0].sort_by[0] == "elbo_nats"


def test_a_misspelt_column_is_named(read):
    with pytest.raises(ValueError, match="sort_by: no run has 'elbow_nats'; did you mean 'elbo_nats'"):
        make_sections([read(0, elbo=-90.0)], "elbow_nats")


def test_headings_are_short_where_they_stay_apart():
    keys = ["model._target_", "model.likelihood._target_", "model.network.activation", "model.head.activation"]
    assert short_labels(keys) == ["model", "likelihood", "model.network.activation", "model.head.activation"]


def test_labels():
    assert value_label("vaebench.models.beta_tc_vae.BetaTCVAE") == "beta_tc_vae"
    assert value_label("vaebench.distributions.quantizers.vq.VectorQuantizer") == "vq"
    assert value_label("vaebench.distributions.likelihoods.Bernoulli") == "Bernoulli"
    assert value_label("somewhere.else.Thing") == "somewhere.else.Thing"
    assert value_label([1, 2]) == "[1, 2]"
    assert value_label(None) == "none"
    assert key_label("model.likelihood._target_") == "model.likelihood"


def test_runs_of_one_seed_are_compared_example_by_example(tmp_path):
    hard = np.linspace(-200, -20, 100)
    for dim, gain in ((1, 0.0), (2, 1.0)):
        values = (hard + gain + 0.5 * np.sin(np.arange(100.0) * dim)).astype(np.float32)
        run = write_run(tmp_path / str(dim), elbo=float(values.mean()), model__latent_dim=dim)
        record = read_json(run.evaluation("elbo"))
        content = save({"elbo_nats": values})
        write_atomic(run.evaluation("elbo").with_suffix(".safetensors"), content)
        record["per_example"] = {"sha256": hashlib.sha256(content).hexdigest()}
        write_json(run.evaluation("elbo"), record)
    runs = [read_run(tmp_path / name) for name in ("1", "2")]
    (section,) = make_sections(runs)
    assert [group.config["model.latent_dim"] for group in section.groups] == [2, 1]
    assert [group.rank for group in section.groups] == [1, 2]
    behind = section.groups[1].behind
    assert behind.how == "100 examples, paired"
    assert behind.value == pytest.approx(-1, abs=0.05)
    assert behind.error < 0.06
    assert section.groups[0].behind is None
    (tmp_path / "1" / "evaluation" / "elbo.safetensors").unlink()
    (section,) = make_sections([read_run(tmp_path / name) for name in ("1", "2")])
    assert [group.rank for group in section.groups] == [1, 1]
