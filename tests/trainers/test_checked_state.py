"""A checkpoint is held against what the training would have written, whatever a stranger put into it."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import random
import shutil

import pytest
import torch

from tests.trainers.toy_models import Toy, ToyCoupled, toy_data
from vaebench.hardware.device import Hardware
from vaebench.runs.run import Run
from vaebench.trainers import BaseTrainer, CoupledOptimizerTrainer
from vaebench.trainers.callbacks.optimizer_monitor import OptimizerMonitor
from vaebench.trainers.checked_state import moments_of
from vaebench.trainers.optimizers import optimizer_names
from vaebench.trainers.state import load_state, save_state

ARGUMENTS = {"SGD": {"momentum": 0.9}, "Adam": {"amsgrad": True}, "RMSprop": {"momentum": 0.5, "centered": True}}
ODD = {  # what replaces an entry
    "none": None,
    "negative": -7,
    "huge": 2**60,
    "nan": math.nan,
    "infinite": math.inf,
    "text": "../../x\x1b]0;",
    "list": [],
    "dictionary": {},
    "empty tensor": torch.zeros(0),
    "long tensor": torch.zeros(3, 100),
    "complex": torch.zeros((), dtype=torch.complex64),
}


def start(path, num_epochs=2, model=Toy, trainer=BaseTrainer, **options):
    torch.manual_seed(3)
    options = {"batch_size": 8, "learning_rate": 1e-3, **options}
    return trainer(num_epochs=num_epochs, **options).start(
        model(),
        toy_data(),
        run=Run(path),
        callbacks=[OptimizerMonitor()],
        hardware=Hardware(device="cpu"),
        seed=5,
    )


def trained(path, **options):
    training = start(path, **options)
    training.run_to_end()
    return training


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name != "Muon"])
def test_every_optimizer_goes_on_and_no_moment_of_another_size_is_taken(tmp_path, name):
    options = {"optimizer": name, "optimizer_args": ARGUMENTS.get(name)}
    whole = trained(tmp_path / "whole", num_epochs=3, **options).weights()
    short = trained(tmp_path / "run", **options)
    untouched = tmp_path / "untouched"
    shutil.copytree(tmp_path / "run", untouched)
    continued = trained(untouched, num_epochs=3, **options).weights()
    assert all(torch.equal(whole[key], continued[key]) for key in whole)

    (optimizer,) = (part.optimizer for part in short.parts.values())
    moments = [dict(optimizer.state[p]) for group in optimizer.param_groups for p in group["params"]]
    for own, made in zip(moments, moments_of(optimizer), strict=True):
        shapes = [{key: (v.shape, v.dtype) for key, v in of.items() if torch.is_tensor(v)} for of in (own, made)]
        assert shapes[0] == shapes[1]
    state = tmp_path / "run" / "checkpoints" / "last.state"
    original, training = state.read_bytes(), start(tmp_path / "run", num_epochs=3, **options)
    for key, value in moments[0].items():
        if not torch.is_tensor(value):
            continue
        shapes = (0,), (100_000,), (1, *value.shape)
        for wrong in (*(value.new_zeros(shape) for shape in shapes), value.double(), 3.0):
            tree = load_state(state)
            tree["parts"]["model"]["optimizer"]["state"][0][key] = wrong
            save_state(state, tree)
            with pytest.raises(ValueError, match=rf"this training: parts.model.optimizer.state\[0\].{key}: "):
                training.check_checkpoint()
            state.write_bytes(original)


@pytest.fixture(scope="module")
def run_and_training(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    options = {"ema_decay": 0.9, "scheduler": "StepLR", "scheduler_args": {"step_size": 1, "gamma": 0.7}}
    trained(path, **options)
    return path, start(path, num_epochs=3, **options)


@pytest.mark.parametrize(
    ("entry", "value", "problem"),
    [
        ("position", 1_000, "position: step 14 is not step 1000 of epoch 3"),
        ("epoch", 1, "position: step 14 is not step 0 of epoch 2"),
        ("step", 2**70, "step: expected a whole number"),
        ("step", "ten", "step: expected a whole number, got 'ten'"),
        ("closed_step", 15, "closed_step: expected a step up to 14"),
        ("metrics_offset", -1, "metrics_offset: expected a whole number"),
        ("best", torch.zeros(2), "best: expected a number"),
        ("model", [], "model: expected a dictionary"),
        ("model/centre", torch.zeros(7), r"model.centre: expected a tensor of shape \(6,\)"),
        ("model/centre", torch.zeros(6, dtype=torch.float64), "got a tensor of shape .* and type float64"),
        ("model/other", torch.zeros(6), "model: 'other' is not of this model"),
        ("parts/model/optimizer/param_groups/0/lr", math.nan, "param_groups.lr|lr: expected a number"),
        ("parts/model/optimizer/param_groups/0/lr", torch.zeros(5), "lr: expected a number"),
        ("parts/model/optimizer/param_groups/0/betas", (0.9,), "betas: expected"),
        ("parts/model/optimizer/param_groups/0/params", [0], "it is of other parameters"),
        ("parts/model/optimizer/param_groups", [], "param_groups: expected"),
        ("parts/model/optimizer/state/99", {}, "there is no parameter 99"),
        ("parts/model/optimizer/state/0", {"step": torch.zeros(())}, r"expected \['exp_avg'"),
        ("parts/model/schedule/num_updates", -5, "num_updates: expected a number"),
        ("parts/model/schedule/torch/step_size", 0, "step_size: expected a number"),
        ("parts/model/schedule/torch/gamma", "x", "gamma: expected a number"),
        ("means/count", 3, "means: 0 sums over 3 examples"),
        ("means/sums", [torch.zeros(())], "means: expected as many names as sums|means: 1 sums"),
        ("means/names", ["\x1b]0;x"], "means.names: expected a short text"),
        ("callbacks/EMA/averages/0", torch.zeros(1), r"callbacks.EMA.averages\[0\]: expected a tensor"),
        ("callbacks/EMA/averages", [], "callbacks.EMA.averages: expected"),
        ("callbacks/OptimizerMonitor/sums", {"model": torch.zeros(2)}, "expected a number, got a tensor"),
        ("rng/numpy/2", 625, "rng.numpy: expected the state"),
        ("rng/python/1", (1, 2), "rng.python: expected the state"),
        ("rng/torch", torch.zeros(16, dtype=torch.uint8), "rng.torch: expected a tensor"),
        ("rng", {}, "rng: expected the states"),
    ],
)
def test_an_entry_that_this_training_would_not_write_is_named(run_and_training, entry, value, problem):
    path, training = run_and_training
    state = path / "checkpoints" / "last.state"
    original = state.read_bytes()
    place = tuple(int(key) if key.isdigit() else key for key in entry.split("/"))
    save_state(state, replaced(load_state(state), place, value))
    before = {path: path.read_bytes() for path in path.rglob("*") if path.is_file()}
    try:
        with pytest.raises(ValueError, match=rf"checkpoint '.*' does not fit this training: .*({problem})"):
            training.check_checkpoint()
        assert {path: path.read_bytes() for path in path.rglob("*") if path.is_file()} == before
    finally:
        state.write_bytes(original)


def leaves(node, path=()):
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        if path[:1] == ("rng",) and isinstance(value, tuple) and len(value) > 9:
            continue
        yield (*path, key), value
        yield from leaves(value, (*path, key))


def replaced(node, path, value):
    if not path:
        return value
    node, (key, *rest) = copy.copy(node), path  # the rest of the tree is shared
    if isinstance(node, tuple):
        return tuple(replaced(item, rest, value) if i == key else item for i, item in enumerate(node))
    node[key] = replaced(node[key], rest, value) if rest else value
    return node


def test_whatever_stands_in_a_checkpoint_training_goes_on_or_is_refused(tmp_path):
    kinds = {"model": ToyCoupled, "trainer": CoupledOptimizerTrainer}
    options = {**kinds, "ema_decay": 0.9, "scheduler": "ReduceLROnPlateau"}
    trained(tmp_path, **options)
    state = tmp_path / "checkpoints" / "last.state"
    tree, original = load_state(state), {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places = [path for path, _ in leaves(tree)]
    dice = random.Random(0)
    judge = start(tmp_path, num_epochs=3, **options)
    num_accepted = 0
    for _ in range(120):
        place, what = dice.choice(places), dice.choice(list(ODD))
        save_state(state, replaced(tree, place, ODD[what]))
        sentence = refusal(judge)
        assert "\x1b" not in sentence, (place, what)
        if not sentence:
            num_accepted += 1
            training = start(tmp_path, num_epochs=3, **options)
            with contextlib.suppress(ArithmeticError):
                training.run_to_end()
                assert training.step == 21, (place, what)
        for path, content in original.items():
            path.write_bytes(content)
    assert 0 < num_accepted < 40


def refusal(training):
    try:
        training.check_checkpoint()
    except ValueError as error:
        return str(error)
    return ""


def test_one_tensor_cannot_stand_for_many(tmp_path):
    from safetensors.torch import save_file

    from vaebench.trainers.state import FORMAT

    tree = {"dict": [[name, {"tensor": "0"}] for name in "ab"]}
    save_file({"0": torch.zeros(2)}, tmp_path / "s", {FORMAT: json.dumps(tree)})
    with pytest.raises(ValueError, match="the tensor '0' is used twice"):
        load_state(tmp_path / "s")


def test_a_checkpoint_far_larger_than_its_model_is_not_read(tmp_path):
    save_state(tmp_path / "s", {"step": 1})
    with open(tmp_path / "s", "ab") as file:
        file.truncate(2**33)
    with pytest.raises(ValueError, match="it holds 8,589,934,592 bytes, and the model 1,000"):
        load_state(tmp_path / "s", 1_000)
