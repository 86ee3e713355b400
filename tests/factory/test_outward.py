"""A stored configuration does not send the run away, and does not fetch anything, without the user's word."""

from __future__ import annotations

import pytest

from vaebench.data.io import download
from vaebench.factory.outward import refuse_unasked
from vaebench.factory.targets import ConfigError

MLFLOW, WANDB = "vaebench.trainers.callbacks.mlflow.MLflow", "vaebench.trainers.callbacks.wandb.WandB"


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        (MLFLOW, "tracking_uri", "http://127.0.0.1:1/x\x1b]0;"),
        (MLFLOW, "tracking_uri", "file:///home/somebody"),
        (MLFLOW, "tracking_uri", ""),
        (WANDB, "mode", "online"),
    ],
)
def test_an_address_counts_if_the_command_line_names_it_too(target, key, value):
    tree = {"callback": {"mine": {"_target_": target, key: value}}}
    others = [
        {},
        {"callback": {}},
        {"callback": {"mine": {"_target_": target}}},
        {"callback": {"other": tree["callback"]["mine"]}},
    ]
    for composed in [*others, {"callback": {"mine": {"_target_": target, key: "elsewhere"}}}]:
        with pytest.raises(
            ConfigError, match=r"callback.mine: .* sends the run away .*give callback=\[mine\]"
        ) as caught:
            refuse_unasked(tree, composed)
        assert "\x1b" not in str(caught.value)
    refuse_unasked(tree, tree)


@pytest.mark.parametrize(
    "callback",
    [
        None,
        {},
        {"progress": None},
        {"mlflow": {"_target_": MLFLOW, "tracking_uri": None, "experiment": "x"}},
        {"wandb": {"_target_": WANDB, "mode": "offline"}},
        {"wandb": {"_target_": WANDB}},
        {"ema": {"_target_": "vaebench.trainers.callbacks.ema.EMA", "decay": 0.5}},
    ],
)
def test_what_stays_here_needs_no_word(callback):
    refuse_unasked({"callback": callback}, {})


def test_nothing_is_downloaded_for_a_stored_configuration(tmp_path, monkeypatch):
    def reach_out(*_: object) -> None:
        raise AssertionError("asked for the network")

    monkeypatch.setattr(download, "import_torchvision", reach_out)
    with (
        download.downloads_forbidden(),
        pytest.raises(ValueError, match=r"is not there .* is not downloaded unasked"),
    ):
        download.download(tmp_path, "a.gz", ["http://127.0.0.1:1/a.gz"], "0")
    assert list(tmp_path.iterdir()) == []
    with download.downloads_forbidden(False), pytest.raises(AssertionError, match="asked for the network"):
        download.download(tmp_path, "a.gz", ["http://127.0.0.1:1/a.gz"], "0")
