from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from vaebench import factory
from vaebench.cli.application import conf_dir
from vaebench.factory.stored_dataset import moved, stored_data
from vaebench.factory.targets import ConfigError
from vaebench.runs.run import Run, now, read_json, write_json
from vaebench.trainers.state import save_weights


@pytest.fixture
def run(tmp_path):
    """A run on a file of arrays, with a record of its data."""
    np.savez(tmp_path / "x.npz", x=np.random.RandomState(0).rand(40, 4, 4).astype(np.float32))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = ["dataset=arrays", f"dataset.path={tmp_path / 'x.npz'}", "model.network.hidden_dims=[4]"]
        cfg = compose("train", overrides=[*words, "model.latent_dim=2"])
    data = factory.dataset(cfg)
    tree = factory.with_likelihood(cfg, data)
    run = Run(tmp_path / "run")
    factory.save_config(run, tree)
    write_json(run.provenance, {"start": now(), "data": data.describe()})
    run.set_status("done", epoch=1, step=1)
    save_weights(run.last_weights, factory.model(tree, data).state_dict())
    return run


def test_the_same_data_pass(run):
    _, data, _ = factory.load_run(run, "last")
    factory.check_data(run, data, ("train", "validation", "test"))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.concatenate([x, x[:1]]),  # another split
        lambda x: 1 - x,
        lambda x: x[::-1],
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 77, 0.5, x),  # one pixel
    ],
)
def test_other_data_are_refused_by_the_key(run, tmp_path, change, caplog):
    path = tmp_path / "x.npz"
    np.savez(path, x=change(np.load(path)["x"]).astype(np.float32))
    _, data, _ = factory.load_run(run, "last")
    with pytest.raises(ConfigError, match=r"the data are not those that '.*run' was trained on .*dataset.path="):
        factory.check_data(run, data, ("train", "validation", "test"))
    assert not caplog.records
    factory.check_data(run, data, ("train", "validation", "test"), is_named=True)
    assert "the data are not those" in caplog.records[-1].message


def test_a_part_that_is_not_used_may_change_and_is_told(run, caplog):
    record = read_json(run.provenance)
    record["data"]["splits"]["train"]["sha256"] = "another"
    write_json(run.provenance, record)
    _, data, _ = factory.load_run(run, "last")
    factory.check_data(run, data, ("test",))
    assert "train: 32 examples then, 32 now" in caplog.records[-1].message


def test_a_run_without_a_record_has_nothing_to_compare(run, caplog):
    write_json(run.provenance, {"start": now()})
    _, data, _ = factory.load_run(run, "last")
    factory.check_data(run, data, ("test",))
    assert not caplog.records
    assert stored_data(run) is None


def test_the_model_is_rebuilt_without_its_data(run, tmp_path):
    _, _, expected = factory.load_run(run, "last")
    (tmp_path / "x.npz").unlink()
    with pytest.raises(
        ConfigError, match=r"x.npz', which is not there; if the data of .* name their new place: dataset.path="
    ):
        factory.load_run(run, "last")
    _, kept, model = factory.load_model(run, "last")
    assert (kept.name, kept.shape, kept.num_classes) == ("arrays", (1, 4, 4), None)
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_data_that_moved_are_found_where_the_user_says(run, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "elsewhere" / "y.npz")
    monkeypatch.chdir(tmp_path)
    cfg, data, _ = factory.load_run(run, "last", {"path": "elsewhere/y.npz", "root": None})
    assert cfg["dataset"]["path"] == str(tmp_path / "elsewhere" / "y.npz")
    factory.check_data(run, data, ("train", "test"))
    assert len(factory.load_data(run, {"path": "elsewhere/y.npz"}).train) == 32


def test_the_training_split_is_read_when_it_is_asked_for(run, tmp_path):
    path = tmp_path / "x.npz"
    content = path.read_bytes()
    path.unlink()
    split = factory.TrainingSplit(run)
    with pytest.raises(ConfigError, match="which is not there"):
        len(split)
    path.write_bytes(content)
    assert len(split) == len(next(split.batches(None, 100))) == 32
    np.savez(path, x=np.zeros((40, 4, 4), np.float32))
    with pytest.raises(ConfigError, match="the data are not those"):
        len(factory.TrainingSplit(run))


def test_only_the_place_can_be_changed():
    tree = {"dataset": {"_target_": "vaebench.data.mnist.MNIST", "root": "/a"}}
    assert moved(tree, {"root": "/b"})["dataset"]["root"] == "/b"
    assert moved(tree, {"root": None}) == tree
    with pytest.raises(ConfigError, match=r"dataset.path: the run's data set has no such setting; it has dataset.root"):
        moved(tree, {"path": "/b"})
    with pytest.raises(ConfigError, match="only where it lies"):
        moved(tree, {"binarization": "static"})


@pytest.mark.parametrize("shape", [None, "x", [], [0, 2], [1, 2, 3, 4, 5], [1.5], [True], [2**20, 2**20]])
def test_a_record_that_lies_is_not_used(run, shape):
    record = read_json(run.provenance)
    record["data"]["shape"] = shape
    write_json(run.provenance, record)
    assert stored_data(run) is None
    factory.load_model(run, "last")  # from the data themselves
