"""Compiled transitions: the draws of uncompiled ones, and what happens where nothing can be compiled."""

from __future__ import annotations

import logging
import os
import shutil
import signal

import pytest
import torch

from tests.mcmc.targets import KERNELS, TARGETS
from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.learned.conv import ConvEnergy
from vaebench.energies.learned.mlp import MLPEnergy
from vaebench.hardware.signals import Interrupted
from vaebench.mcmc.chains import run_chains
from vaebench.mcmc.compiled import Graph
from vaebench.mcmc.kernels.hmc import HMCKernel
from vaebench.mcmc.kernels.nuts import NUTSKernel
from vaebench.mcmc.unfinished import Unfinished
from vaebench.schedules import LinearScheduler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it loads its compiler
COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="nothing can be compiled without a C++ compiler")
NAMES = ("hmc", "mala", "langevin")
# Schedules, because a number that became a constant of the graph would stay what it was at first.
SETTINGS = {"num_draws": 50, "num_warmup": 3, "step_size": LinearScheduler(0.02, 0.1, 50)}
HEAT = {"temperature": LinearScheduler(2.0, 0.5, 50)}


def run(name, energy=TARGETS["double_well"], dtype=torch.float64, **settings):
    torch.manual_seed(5)
    start = torch.randn(8, energy.num_dims, dtype=dtype)
    kernel = HMCKernel(4) if name == "hmc" else KERNELS[name]  # of 2 to 6 steps
    return run_chains(kernel, energy, start, **{**SETTINGS, **settings})


def assert_same(first, second, tolerance=1e-5):
    for name in ("positions", "total_energy", "acceptance_probability"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=tolerance, atol=tolerance)
    for name in ("is_divergent", "num_gradients"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.state.iteration == second.state.iteration


@pytest.fixture
def traced(monkeypatch):
    """Graphs as they are before translation to C++, which takes seconds for each."""
    made = []
    monkeypatch.setattr("torch._inductor.standalone_compile", lambda graph, *_, **__: made.append(graph) or graph)
    return made


@needs_a_compiler
@pytest.mark.parametrize("name", NAMES)
def test_compiled_transitions_are_the_uncompiled_ones(name, caplog):
    caplog.set_level(logging.INFO)
    compiled, eager = run(name, compile=True, **HEAT), run(name, **HEAT)
    assert_same(compiled, eager)
    assert eager.positions.std() > 0.3
    assert f"compiled the transitions of kernel={name} in" in caplog.text


PICTURES = ConvEnergy((1, 2, 2), (2,), 0)  # whose gradient comes by automatic differentiation


@pytest.mark.parametrize(("name", "energy"), [("hmc", MLPEnergy(2, (8,))), ("mala", PICTURES), ("langevin", PICTURES)])
def test_graphs_of_networks_are_the_networks(name, energy, traced):
    assert_same(run(name, energy.double(), compile=True), run(name, energy.double()))
    assert len(traced) == (4 if name == "hmc" else 1)


def test_a_dense_mass_matrix_is_a_part_of_the_graph(traced):
    energy, settings = TARGETS["gaussian"], {"num_warmup": 120, "step_size": None, "mass_matrix": "dense"}
    assert_same(run("hmc", energy, compile=True, **settings), run("hmc", energy, **settings))
    assert traced


def test_a_factor_beside_a_matrix_product_is_kept(traced):
    x, w = torch.randn(4, 3), torch.randn(3, 3)

    def piece(x, w):
        return torch.add(x @ w, x, alpha=0.25), (w @ w).add_(w, alpha=-2)

    results = Graph(piece, (x, w))([x, w])
    assert all(torch.equal(one, other) for one, other in zip(results, piece(x, w), strict=True))
    assert not any("alpha" in node.kwargs for node in traced[0].graph.nodes)  # the compiler would forget it


def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, traced):
    path = tmp_path / "unfinished.safetensors"

    def stop(done, total):
        if done == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run("hmc", compile=True, unfinished=Unfinished(path, "a"), progress=stop)
    assert_same(run("hmc", compile=True, unfinished=Unfinished(path, "a")), run("hmc", compile=True), tolerance=0)
    assert len(traced) == 12


class Branching(BaseEnergyFunction):
    """An energy in which the host reads a value, which no graph can hold."""

    num_dims = 2

    def forward(self, x):
        return x.square().sum(-1) if x.sum() < 1e6 else x.abs().sum(-1)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_compiled_runs_uncompiled(name, caplog):
    compiled = run(name, Branching(), compile=True)
    assert_same(compiled, run(name, Branching()), tolerance=0)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    words = f"compile=true: kernel={name} runs uncompiled, because its compilation failed: It appears"
    assert record.getMessage().startswith(words)
    assert "\n" not in record.getMessage()


def test_wrong_graphs_are_not_used(caplog, monkeypatch):
    def wrong(graph, *_, **__):
        return lambda *tensors: [x + 1 if x.is_floating_point() else x for x in graph(*tensors)]

    monkeypatch.setattr("torch._inductor.standalone_compile", wrong)
    assert_same(run("mala", compile=True), run("mala"), tolerance=0)
    assert "the compiled propose_and_judge gives other numbers than the uncompiled one" in caplog.text


def test_other_kernels_are_refused():
    words = r"compile must be false for kernel=nuts, whose transitions are no fixed sequence of tensor operations"
    with pytest.raises(ValueError, match=words):
        run_chains(NUTSKernel(), TARGETS["gaussian"], torch.zeros(4, 2), num_draws=4, compile=True)
