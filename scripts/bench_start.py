"""How long a user waits before anything happens; each measurement is a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from bench_measure import Row, Settings, child, interleaved, rows

BARE_STEP = """
import torch
from torch import nn
from sklearn.datasets import load_digits
x = torch.tensor(load_digits().images, dtype=torch.float32).flatten(1)[:100] / 16
net = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 64))
optimiser = torch.optim.Adam(net.parameters())
nn.functional.binary_cross_entropy_with_logits(net(x), x).backward()
optimiser.step()
"""


def start(settings: Settings) -> list[Row]:
    """Imports, the commands that need no torch, and a training of one step, against plain Python and plain torch."""
    one_step = ["train", "model=vae", "dataset=digits", "trainer.num_steps=1", "hydra.run.dir=."]
    jobs: dict[str, list[str]] = {
        "python": ["-c", "pass"],
        "import torch": ["-c", "import torch"],
        "import vaebench": ["-c", "import vaebench"],
        "import vaebench.models.vae": ["-c", "import vaebench.models.vae"],
        "vaebench --help": ["-m", "vaebench", "--help"],
        "vaebench list": ["-m", "vaebench", "list"],
        "one step with bare torch": ["-c", BARE_STEP],
        "vaebench train, one step": ["-m", "vaebench", *one_step],
    }
    pairs = {
        "import vaebench": "python",
        "vaebench --help": "python",
        "vaebench list": "python",
        "import vaebench.models.vae": "import torch",
        "vaebench train, one step": "one step with bare torch",
    }
    times = interleaved(
        {name: _job(arguments, settings.threads) for name, arguments in jobs.items()}, settings.size(5, 1)
    )
    result: list[Row] = []
    for name in jobs:
        against = pairs.get(name, name)
        result += rows(
            "start",
            {key: times[key] for key in dict.fromkeys((against, name))},
            against=against,
            unit="s",
            value=float,
            notes={
                "vaebench train, one step": "whole command: validation, pictures and checkpoint included",
                "vaebench --help": "aim: well under a second",
                "vaebench list": "aim: well under a second",
            },
        )[-1:]
    return result


def _job(arguments: list[str], threads: int) -> Callable[[], object]:
    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            child(arguments, threads, cwd=folder)

    return run
