from __future__ import annotations

import pytest

from vaebench.factory import ConfigError, continued, refuse_differences

STORED = {
    "seed": 3,
    "model": {"_target_": "A", "latent_dim": 2, "network": {"_target_": "N", "sizes": [1]}},
    "trainer": {"_target_": "T", "num_epochs": 5, "learning_rate": 0.1},
    "hardware": {"device": "cpu"},
}
COMPOSED = {
    "seed": 0,
    "model": {"_target_": "A", "latent_dim": 10, "network": {"_target_": "M", "sizes": [2]}, "extra": 1},
    "trainer": {"_target_": "T", "num_epochs": 9, "learning_rate": 0.5},
    "hardware": {"device": "gpu"},
    "callback": {"ema": {"decay": 0.9}},
}


def merged(*words: str) -> dict:
    return continued(STORED, COMPOSED, words)


def test_nothing_typed_is_what_was_stored():
    assert merged() == STORED
    assert merged("resume=outputs/x", "hydra.run.dir=outputs/x") == STORED


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("seed=0", "seed"),
        ("trainer.num_epochs=9", "trainer.num_epochs"),
        ("hardware=gpu", "hardware"),
        ("model=a", "model"),
        ("+model.extra=1", "model.extra"),
        ("model/network=m", "model.network"),
        ("model/other@model.network=m", "model.network"),
        ("++trainer.learning_rate=0.5", "trainer.learning_rate"),
        ("callback=[ema]", "callback"),
    ],
)
def test_a_typed_key_takes_its_value_from_the_command_line_and_no_other_does(word, path):
    result = merged(word)
    for key, value in flat(result).items():
        typed = key == path or key.startswith(f"{path}.")
        assert value == flat(COMPOSED if typed else STORED)[key]


def flat(tree: dict, key: str = "") -> dict:
    found = {}
    for name, value in tree.items():
        found.update(flat(value, f"{key}{name}.") if isinstance(value, dict) else {f"{key}{name}": value})
    return found


def test_a_removed_key_is_removed():
    composed = {**COMPOSED, "trainer": {"_target_": "T", "num_epochs": 9}}
    assert "learning_rate" not in continued(STORED, composed, ["~trainer.learning_rate"])["trainer"]


def test_an_experiment_sets_keys_anywhere():
    assert merged("experiment=paper") == COMPOSED


def test_the_arguments_are_not_changed():
    before = repr((STORED, COMPOSED))
    merged("hardware=gpu", "model/network=m")["model"]["network"]["sizes"] = [9]
    assert repr((STORED, COMPOSED)) == before


def test_all_differing_keys_are_listed_with_both_values():
    after = merged("seed=0", "trainer.num_epochs=9", "+model.extra=1", "hardware=gpu")
    with pytest.raises(ConfigError) as caught:
        refuse_differences(STORED, after)
    assert str(caught.value).startswith(
        "the run was started with another configuration: seed was 3, now 0; model.extra was absent, now 1; leave"
    )


def test_keys_that_may_differ_are_returned():
    after = merged("trainer.num_epochs=9", "hardware=gpu")
    assert refuse_differences(STORED, after) == [
        "trainer.num_epochs",
        "hardware.device",
    ]
    assert refuse_differences(STORED, STORED) == []


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (0, None), ([1], [1, 2]), ({"a": 1}, None)])
def test_values_of_different_kinds_differ(before, after):
    with pytest.raises(ConfigError, match="k was"):
        refuse_differences({"k": before}, {"k": after})
    assert refuse_differences({"k": 1}, {"k": 1.0}) == []
