"""A process of its own for each memory measurement: prints by how many MiB its job raised the high-water mark."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from bench_measure import Row, Settings, Spread, memory_growth

MIB = 2**20


def training(settings: Settings) -> list[Row]:
    """Training of `vae` by the trainer against the bare loop."""
    found = {job: _repeated(job, settings) for job in ("bare loop", "vaebench")}
    pairs = [ours / bare for ours, bare in zip(found["vaebench"], found["bare loop"], strict=True)]
    return [
        Row("memory", "bare loop", Spread.of(found["bare loop"]), "MiB"),
        Row("memory", "vaebench", Spread.of(found["vaebench"]), "MiB", Spread.of(pairs), "bare loop"),
    ]


def metric(settings: Settings) -> list[Row]:
    """The manifold's density and gradient for 500 points, by number of centroids."""
    result = []
    before: Row | None = None
    for count in (100, 200) if settings.quick else (1_000, 10_000, 20_000, 40_000):
        value = Spread.of(_repeated(f"metric {count}", settings))
        ratio = None if before is None else value.median / max(before.value.median, 1e-3)
        note = "quoted: 2,355 MiB by the best-known implementation" if count == 10_000 else ""
        row = Row(
            "memory",
            f"manifold, batch 500, {count:,} centroids",
            value,
            "MiB",
            None if ratio is None else Spread(ratio, ratio, ratio),
            None if before is None else before.name,
            note,
        )
        result.append(row)
        before = row
    return result


def _repeated(job: str, settings: Settings) -> list[float]:
    return [memory_growth(job, settings.threads, settings.quick) for _ in range(1 if settings.quick else 3)]


def _prepare_metric(count: int) -> Callable[[], object]:
    from bench_sampler import metric_of

    from vaebench.energies.latent.manifold import ManifoldEnergy

    centroids, matrices = torch.randn(count, 10), torch.rand(count, 55)
    z = torch.randn(500, 10)
    # Warm up on few points: libraries allocate their work space once.
    ManifoldEnergy(metric_of(centroids[:10], matrices[:10])).value_and_grad(z[:10])
    # The energy keeps a transposed copy of what it is given, which counts.
    return lambda: ManifoldEnergy(metric_of(centroids, matrices)).value_and_grad(z)


def _prepare(job: str, quick: bool) -> Callable[[], object]:
    if job.startswith("metric "):
        return _prepare_metric(int(job.split()[1]))
    from bench_training import binary_images, training_jobs

    data = binary_images(*((200, 100) if quick else (10_000, 1_000)))
    return training_jobs("mlp", data, num_epochs=1)[job]


def _status(field: str) -> int:
    """Bytes, from this process's own table: `ru_maxrss` also remembers the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _high_water() -> int:
    if sys.platform == "linux":
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    job, quick = sys.argv[1], bool(int(sys.argv[2]))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    work = _prepare(job, quick)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark of the imports is not the job's
        before = _status("VmRSS")
    else:
        before = _high_water()
    work()
    print((_high_water() - before) / MIB)


if __name__ == "__main__":
    main()
