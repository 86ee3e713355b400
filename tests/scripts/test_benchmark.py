"""The benchmark program: it runs, prints, and stores valid JSON. No test looks at how long anything took."""

import importlib
import json
import logging
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from vaebench.cli.main import main

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.startswith("bench")]:
        del sys.modules[name]


def _run(tmp_path, *names):
    import benchmark

    output = tmp_path / "new" / "benchmark.json"
    assert benchmark.main(["--quick", "--only", *names, "--output", str(output)]) == 0
    return json.loads(output.read_text())


def test_a_tiny_run_prints_a_table_and_stores_it(scripts, tmp_path, capsys):
    stored = _run(tmp_path, "vae", "sampler")
    printed = capsys.readouterr().out
    assert stored["settings"] == {"repeats": 1, "quick": True, "threads": 1}
    assert {"vaebench", "torch", "python", "cores", "threads"} <= stored["machine"].keys()
    by_name = {(row["benchmark"], row["name"]): row for row in stored["rows"]}
    bare, ours = by_name["vae", "bare loop"], by_name["vae", "vaebench"]
    assert bare["ratio"] is None
    assert ours["against"] == "bare loop"
    # Rates: the faster one has the greater number, and the ratio is ours to theirs.
    assert ours["ratio"]["median"] == pytest.approx(ours["value"]["median"] / bare["value"]["median"])
    # Durations: the faster one has the smaller number.
    bare, ours = by_name["sampler", "autograd, 20 centroids"], by_name["sampler", "vaebench, 20 centroids"]
    assert ours["cpu_ratio"]["median"] == pytest.approx(bare["cpu_value"]["median"] / ours["cpu_value"]["median"])
    for row in stored["rows"]:
        assert f"{row['benchmark']}: {row['name']}" in printed


def test_what_sweeps_cost_is_measured(scripts, tmp_path, monkeypatch):
    each_command_once(monkeypatch, "bench_sweeps")
    by_name = {row["name"]: row for row in _run(tmp_path, "sweeps")["rows"]}
    assert by_name["job of a sweep"]["against"] == "bare process"
    assert by_name["dry run of 10 jobs"]["against"] == "dry run of 1 job"
    for name in ("sweep status, 10 jobs", "sweep status, 10 jobs that Slurm is asked for"):
        assert by_name[name]["value"]["median"] > 0


def each_command_once(monkeypatch, module):
    """Start no command a second time only to warm it up."""
    module = importlib.import_module(module)
    child, answers = module.child, {}

    def child_once(arguments, threads, cwd=None):
        if tuple(arguments) not in answers:
            answers[tuple(arguments)] = child(arguments, threads, cwd)
        return answers[tuple(arguments)]

    monkeypatch.setattr(module, "child", child_once)


def here(arguments, threads, cwd=None):
    """Run a command of Python in this process, which has imported torch."""
    kind, what, *words = arguments
    before = logging.root.handlers[:]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd or ".")
        if kind == "-c":
            exec(what, {"__name__": "__main__"})
        else:
            assert (kind, what, main(words)) == ("-m", "vaebench", 0)
    for handler in set(logging.root.handlers) - set(before):
        logging.root.removeHandler(handler)
        handler.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rhvae", "start", "memory", "memory-centroids", "conv", "checkpoint", "streaming"])
def test_every_benchmark_runs(scripts, tmp_path, monkeypatch, name):
    monkeypatch.setattr(importlib.import_module("bench_start"), "child", here)
    for module in ("bench_start", "bench_measure"):
        each_command_once(monkeypatch, module)
    rows = _run(tmp_path, name)["rows"]
    assert rows
    assert all(row["value"]["median"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it loads its compiler
def test_the_compiled_benchmark_runs(scripts, tmp_path, monkeypatch):
    # Traced, but not translated to C++, which takes minutes; tests/hardware/test_device.py does that once.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    assert len(_run(tmp_path, "compiled")["rows"]) == 4


def test_a_job_may_time_a_part_of_itself(scripts):
    from bench_measure import Stopwatch, interleaved

    def part():
        watch = Stopwatch()
        watch.wall, watch.cpu = 3.0, 2.0
        return watch

    times = interleaved({"part": part, "whole": lambda: None}, repeats=2)
    assert times["part"].wall == [3.0, 3.0]
    assert times["part"].cpu == [2.0, 2.0]
    assert len(times["whole"].wall) == 2


def test_the_alternatives_are_the_same_networks(scripts):
    from bench_training import NETWORKS, BareVAE, new_vae

    for kind in NETWORKS:
        bare, ours = BareVAE(kind), new_vae(kind)
        assert sum(p.numel() for p in bare.parameters()) == sum(p.numel() for p in ours.parameters())


def test_the_bare_loss_is_the_negative_elbo(scripts):
    from bench_training import SHAPE, BareVAE, new_vae

    from vaebench.core import Batch

    bare, ours = BareVAE("mlp"), new_vae("mlp")
    bare.head.bias.data[:10] += 3  # a rate that weighs as much as the tolerance can see
    for mine, theirs in zip(ours.parameters(), bare.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    x = torch.rand(5, *SHAPE).round()
    torch.manual_seed(1)
    expected = ours.loss(Batch(x), 0).total
    torch.manual_seed(1)
    torch.testing.assert_close(bare(x), expected, rtol=1e-4, atol=0)  # theirs bounds the log-variance softly


def test_the_bare_energy_is_the_manifolds_where_no_wall_stands(scripts):
    from bench_sampler import BareEnergy, metric_of

    from vaebench.energies.latent.manifold import ManifoldEnergy
    from vaebench.objectives.riemannian_metric import pack

    centroids, factor = torch.randn(30, 10), 0.3 * torch.randn(30, 10, 10)
    full = factor @ factor.mT
    z = centroids[:4] + 0.1
    bare = BareEnergy(centroids, full).value_and_grad(z)
    ours = ManifoldEnergy(metric_of(centroids, pack(full))).value_and_grad(z)
    torch.testing.assert_close(bare[0], ours[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bare[1], ours[1], rtol=1e-2, atol=1e-2)


def test_the_metric_is_the_models_default(scripts):
    from inspect import signature

    from bench_sampler import LATENT_DIM, REGULARIZATION, TEMPERATURE

    from vaebench.models.rhvae import RHVAE

    defaults = signature(RHVAE).parameters
    assert defaults["temperature"].default == TEMPERATURE
    assert defaults["regularization"].default == REGULARIZATION
    assert defaults["latent_dim"].default == LATENT_DIM


def test_ratios_pair_what_was_measured_together(scripts):
    from bench_measure import Times, rows

    times = {"a": Times([1.0, 10.0, 2.0], [1.0, 1.0, 1.0]), "b": Times([2.0, 20.0, 4.0], [4.0, 4.0, 4.0])}
    base, other = rows("g", times, against="a", unit="s", value=float)
    assert (base.ratio, base.against) == (None, None)
    assert (other.ratio.median, other.ratio.low, other.ratio.high) == (0.5, 0.5, 0.5)
    assert other.cpu_ratio.median == 0.25
    assert other.value.median == 4


def test_a_misspelt_name_is_one_sentence(scripts, capsys):
    import benchmark

    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--only", "samplr"])
    assert stop.value.code == 2
    assert "--only: unknown name 'samplr'; did you mean 'sampler'?" in capsys.readouterr().err
