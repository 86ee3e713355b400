"""Devices that exist and those that do not, precision, seeds, and streams of random numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.trainers.toy_models import History, Toy, toy_data
from vaebench.core import Batch
from vaebench.hardware.device import Hardware, rank_of_environment, world_size_of_environment
from vaebench.hardware.random_streams import fixed_rng, rng_state, seed_everything, seed_stream, set_rng_state
from vaebench.trainers import BaseTrainer


def draws():
    return random.random(), float(np.random.rand()), torch.rand(3).tolist()


def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def gpus(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    gpus(monkeypatch, 1)
    assert Hardware().torch_device == torch.device("cuda", 0)
    no_gpu(monkeypatch)
    assert Hardware().torch_device == torch.device("cpu")


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    gpus(monkeypatch, 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Hardware(device="gpu", num_devices=4).torch_device == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda"}, r"hardware.device must be one of auto, cpu, gpu, mps; got 'cuda'; did you mean 'gpu'\?$"),
        ({"device": "cuda:0"}, r"got 'cuda:0'; did you mean 'gpu'\?$"),
        ({"device": "gpuu"}, r"did you mean 'gpu'"),
        ({"precision": "fp8"}, r"hardware.precision must be one of fp32, tf32, bf16, fp16; got 'fp8'"),
        ({"threads": 0}, r"hardware.threads must be at least 1, or null"),
        ({"threads": 1_000_000}, r"hardware.threads must be at most 1024, or null for all cores; got 1000000"),
        ({"num_devices": 0}, r"hardware.num_devices must be at least 1"),
        ({"data_on_device": "maybe"}, r"hardware.data_on_device must be auto, true or false"),
        ({"device": "gpu"}, r"hardware.device=gpu: PyTorch sees no GPU on this machine; it has cpu"),
        ({"device": "mps"}, r"hardware.device=mps: PyTorch sees no Apple GPU on this machine; it has cpu"),
        (
            {"precision": "fp16"},
            r"precision=fp16 needs a GPU, and this run is on a CPU; choose .*bf16 or fp32",
        ),
        ({"precision": "tf32"}, r"hardware.precision=tf32 is a format of NVIDIA GPUs"),
        ({"num_devices": 999}, r"hardware.num_devices=999: on a CPU each process needs a core, and this machine has"),
    ],
)
def test_what_cannot_be_is_one_sentence(options, words, monkeypatch):
    no_gpu(monkeypatch)
    with pytest.raises(ValueError, match=words):
        Hardware(**options).prepare()


def test_more_gpus_than_there_are_is_one_sentence(monkeypatch):
    gpus(monkeypatch, 1)
    with pytest.raises(
        ValueError, match=r"hardware.num_devices=2: this machine has 1 GPU; choose hardware.num_devices=1"
    ):
        _ = Hardware(device="gpu", num_devices=2).torch_device


def test_threads_are_set_unless_the_environment_says(monkeypatch):
    before = torch.get_num_threads()
    try:
        Hardware(device="cpu", threads=2).prepare()
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        Hardware(device="cpu").prepare()
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr("vaebench.hardware.device.cores", lambda: 6)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
        Hardware(device="cpu").prepare()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_seed_reaches_every_generator():
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_seed_is_checked():
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        seed_everything(-1)


def test_state_brings_every_generator_back():
    state = rng_state()
    first = draws()
    set_rng_state(state)
    assert draws() == first


def test_fixed_stream_leaves_no_trace():
    seed_everything(0)
    expected = draws()
    seed_everything(0)
    with fixed_rng(1, 2):
        inside = draws()
    assert draws() == expected
    torch.rand(5)
    with fixed_rng(1, 2):
        assert draws() == inside
    with fixed_rng(2, 1):
        assert draws() != inside


def test_streams_of_one_seed_differ():
    found = []
    for numbers in [(0, 1), (0, 1, 0), (0, 1, 1), (0, 2), (1, 1), (1, 2, 0)]:
        seed_stream(*numbers)
        found.append(torch.rand(2).tolist())
    assert len({tuple(values) for values in found}) == len(found)


def test_deterministic_mode_refuses_other_algorithms():
    try:
        Hardware(device="cpu", deterministic=True).prepare()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        Hardware(device="cpu").prepare()
    assert not torch.are_deterministic_algorithms_enabled()


def test_autocast_follows_the_precision():
    x = torch.randn(4, 4)
    with Hardware(device="cpu", precision="bf16").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with Hardware(device="cpu").autocast():
        assert (x @ x).dtype == torch.float32
    assert Hardware(device="cpu", precision="bf16").scaler() is None


def test_data_go_where_they_are_told(monkeypatch):
    assert Hardware(device="cpu").fits(2**60)
    gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert Hardware(device="gpu").fits(500)
    assert not Hardware(device="gpu").fits(501)
    assert Hardware(device="gpu", data_on_device=True).fits(2**60)
    assert not Hardware(device="gpu", data_on_device=False).fits(1)


def test_images_take_the_layout_that_was_asked_for():
    batch = Batch(torch.randn(2, 3, 4, 4))
    assert Hardware(channels_last=True).prepared(batch).x.is_contiguous(memory_format=torch.channels_last)
    assert Hardware().prepared(batch) is batch
    flat = Batch(torch.randn(2, 3))
    assert Hardware(channels_last=True).prepared(flat) is flat


def test_what_cannot_be_compiled_is_one_sentence():
    error = RuntimeError("torch.compile with aot_autograd does not currently support double backward")
    words = r"the loss of RHVAE takes gradients of its own.*set hardware.compile=false"
    with pytest.raises(ValueError, match=words), Hardware(compile=True).explained("RHVAE"):
        raise error
    with pytest.raises(RuntimeError), Hardware().explained("RHVAE"):
        raise error


def test_launcher_is_seen_in_the_environment(monkeypatch):
    assert (world_size_of_environment(), rank_of_environment()) == (None, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert (world_size_of_environment(), rank_of_environment()) == (4, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_training_is_the_same_and_compiles_once():
    def train(compile):
        torch.manual_seed(0)
        model = Toy(plain=True)
        hardware = Hardware(device="cpu", threads=1, compile=compile)
        # 50 examples in batches of 8: the last of each epoch holds 2
        rows = History()
        BaseTrainer(num_epochs=3, batch_size=8).train(model, toy_data(), callbacks=[rows], hardware=hardware)
        return rows.rows[-1]["loss"], model

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._inductor.config.patch(fallback_random=True):  # the numbers of eager mode
        compiled, model = train(compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    eager, expected = train(compile=False)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
    assert compiled == pytest.approx(eager, rel=1e-4)
