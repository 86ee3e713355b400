"""Chains that were interrupted end with the numbers of chains that never stopped."""

from __future__ import annotations

import logging
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from tests.mcmc.targets import KERNELS, TARGETS
from vaebench.energies.base import BaseEnergyFunction
from vaebench.hardware.signals import Interrupted
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.unfinished import Unfinished
from vaebench.schedules import LinearScheduler

SETTINGS = {"num_draws": 12, "num_warmup": 25, "thinning": 2}
STOP = 25 + 9  # between two draws
TUNED = [name for name in KERNELS if KERNELS[name].can_be_tuned and name != "riemannian_hmc"]  # which takes minutes


def run(kernel, unfinished=None, stop=None, own_generator=False, energy=TARGETS["double_well"], **settings):
    torch.manual_seed(3)
    start = TARGETS["double_well"].start(16).double()

    def progress(done, total):
        if done == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    generator = torch.Generator().manual_seed(1) if own_generator else None
    settings = {**SETTINGS, **settings}
    return run_chains(kernel, energy, start, unfinished=unfinished, progress=progress, generator=generator, **settings)


def assert_same(first, second):
    for name in ("positions", "acceptance_probability", "is_divergent", "total_energy", "num_gradients"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    pairs = [(first.state, second.state), (first.parameters, second.parameters)]
    if hasattr(first.state, "replicas"):
        pairs.append((first.state.replicas, second.state.replicas))
    for one, other in pairs:
        for name, value in vars(one).items():
            assert not isinstance(value, torch.Tensor) or torch.equal(value, vars(other)[name]), name


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("kernel", TUNED)
def test_a_signal_keeps_the_chains(kernel, own_generator, tmp_path):
    move, path = KERNELS[kernel], tmp_path / "unfinished.safetensors"
    whole = run(move, own_generator=own_generator)
    with pytest.raises(Interrupted, match="SIGTERM"):
        run(move, Unfinished(path, "a"), STOP, own_generator)
    kept = load_file(path)
    assert torch.equal(kept["positions"], whole.positions[:4])
    assert torch.equal(kept["total_energy"], whole.total_energy[:9])
    seen = []
    again = Unfinished(path, "a", every=0)
    again.is_due = lambda: seen.append(1)
    assert_same(run(move, again, own_generator=own_generator), whole)
    assert len(seen) == 24 - 9  # only the rest was drawn


class Signalling(BaseEnergyFunction):
    """The double well, which sends a signal at one of its gradients and counts the rest."""

    def __init__(self, at):
        super().__init__()
        self.at, self.num_calls = at, 0

    def forward(self, x):
        self.num_calls += 1
        if self.num_calls == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return TARGETS["double_well"](x)


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_signal_breaks_a_transition_off_and_the_chains_go_on_before_it(own_generator, tmp_path):
    """A transition may take minutes: Riemannian HMC in hundreds of dimensions."""
    path, settings = tmp_path / "unfinished.safetensors", {"own_generator": own_generator, "step_size": 0.1}
    kernel = HMCKernel(num_leapfrog=10, jitter=0)
    energy = Signalling(1 + 10 * (25 + 9) + 5)
    with pytest.raises(Interrupted, match="SIGTERM"):
        run(kernel, Unfinished(path, "a"), energy=energy, **settings)
    assert energy.num_calls == energy.at  # the transition did not go on
    whole = run(kernel, **settings)
    kept = load_file(path)
    assert torch.equal(kept["total_energy"], whole.total_energy[:9])
    assert_same(run(kernel, Unfinished(path, "a"), **settings), whole)


@pytest.mark.parametrize("at", [1, 5, 60])  # at the start, while a first step size is sought, in the warm-up
def test_a_signal_breaks_a_warm_up_off_anywhere(at, tmp_path):
    path, energy = tmp_path / "unfinished.safetensors", Signalling(at)
    with pytest.raises(Interrupted):
        run(HMCKernel(), Unfinished(path, "a"), energy=energy)
    assert energy.num_calls == at
    assert not path.exists()


def test_a_signal_breaks_nothing_off_where_a_former_handler_may_let_the_chains_go_on(tmp_path):
    path, seen = tmp_path / "unfinished.safetensors", []
    kernel, energy = HMCKernel(num_leapfrog=10, jitter=0), Signalling(1 + 10 * (25 + 9) + 5)
    old = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(len(load_file(path)["total_energy"])))
    try:
        chains = run(kernel, Unfinished(path, "a"), energy=energy, step_size=0.1)
    finally:
        signal.signal(signal.SIGTERM, old)
    assert seen == [10]
    assert_same(chains, run(kernel, step_size=0.1))


def test_a_schedule_goes_on_where_it_was(tmp_path):
    path, settings = tmp_path / "unfinished.safetensors", {"step_size": LinearScheduler(0.1, 0.3, 60)}
    with pytest.raises(Interrupted):
        run(HMCKernel(), Unfinished(path, "a"), STOP, **settings)
    assert_same(run(HMCKernel(), Unfinished(path, "a"), **settings), run(HMCKernel(), **settings))


def test_a_process_that_is_killed_leaves_what_it_wrote_last(tmp_path):
    class Killed(BaseException):
        pass

    class Fatal(Unfinished):
        def is_due(self):
            if self.path.is_file():
                raise Killed  # nothing more is done, as after SIGKILL
            return True

    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(Killed):
        run(HMCKernel(), Fatal(path, "a"))
    assert_same(run(HMCKernel(), Unfinished(path, "a")), run(HMCKernel()))


def test_a_signal_during_warm_up_leaves_nothing_and_the_chains_begin_again(tmp_path):
    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(Interrupted):
        run(HMCKernel(), Unfinished(path, "a"), 5)
    assert not path.exists()
    assert_same(run(HMCKernel(), Unfinished(path, "a")), run(HMCKernel()))


def test_chains_of_other_settings_or_damaged_ones_are_not_used(tmp_path, caplog):
    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(Interrupted):
        run(HMCKernel(), Unfinished(path, "a"), STOP)
    content = path.read_bytes()
    whole = run(HMCKernel())
    with caplog.at_level(logging.WARNING):
        assert_same(run(HMCKernel(), Unfinished(path, "b")), whole)
        assert "other settings" in caplog.messages[-1]
        assert Unfinished(path, "b").is_of_others()
        for damaged in (content[:200], content[:-50], b"", b"{" * 5000):
            path.write_bytes(damaged)
            assert_same(run(HMCKernel(), Unfinished(path, "a")), whole)
            assert "damaged" in caplog.messages[-1]
        path.write_bytes(content)
        shorter = run(HMCKernel(), Unfinished(path, "a"), num_draws=3)
        assert "damaged (it holds 9 transitions)" in caplog.messages[-1]
        assert_same(shorter, run(HMCKernel(), num_draws=3))
