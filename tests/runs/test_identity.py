"""What makes two runs the same experiment."""

from __future__ import annotations

import pytest

from vaebench.runs.identity import counts, flat, identity

CONFIG = {
    "seed": 0,
    "init_from": None,
    "model": {"_target_": "vaebench.models.vae.VAE", "network": {"hidden_dims": [8]}},
    "trainer": {"learning_rate": 0.1, "num_epochs": 5, "patience": None},
    "dataset": {"root": "/a", "num_examples": 60},
    "hardware": {"device": "cpu"},
    "callback": {"progress": {"bar": None}, "ema": {"decay": 0.9}, "early_stopping": {"patience": 3}, "mine": {}},
}


def test_identity_is_what_counts_under_dotted_keys():
    assert identity(CONFIG) == {
        "seed": 0,
        "init_from": None,
        "model._target_": "vaebench.models.vae.VAE",
        "model.network.hidden_dims": [8],
        "trainer.learning_rate": 0.1,
        "dataset.num_examples": 60,
        "callback.ema.decay": 0.9,  # whose weights are kept
    }
    assert identity(flat(CONFIG)) == identity(CONFIG)


@pytest.mark.parametrize(
    "key",
    ["hardware", "hardware.device", "callback", "callback.tensorboard.x", "dataset.root", "run", "resume", "hydra.job"],
)
def test_the_apparatus_never_counts(key):
    assert not counts(key)
    assert not counts(key, seed=False, length=True)


@pytest.mark.parametrize("key", ["trainer.num_epochs", "trainer.num_steps", "trainer.max_minutes", "trainer.patience"])
def test_the_length_counts_where_results_are_compared(key):
    assert not counts(key)
    assert counts(key, length=True)
    assert counts("callback.early_stopping.patience", length=True)


def test_repetitions_differ_in_their_seed_alone():
    other = {**CONFIG, "seed": 1}
    assert identity(other) != identity(CONFIG)
    assert identity(other, seed=False) == identity(CONFIG, seed=False)


@pytest.mark.parametrize("key", ["trainer.num_epochs_more", "seeds", "hardwares", "dataset.rooted", "model.run"])
def test_only_whole_names_are_left_out(key):
    assert counts(key, seed=False)
