"""Small runs through the real command, and what they left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.shared import copied
from vaebench.runs.run import Run

WITH_PICTURES = (
    "dataset.num_examples=60",
    "trainer.batch_size=20",
    "model.latent_dim=2",
    "model.network.hidden_dims=[8]",
    "hardware=cpu",
    "hardware.threads=1",
)
SMALL = (*WITH_PICTURES, "callback.images=null")  # pictures take longer than the training


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What stderr ends with; a mistake is one line."""
        return self.err.splitlines()[-1]


def trained(command: Callable[..., Answer], folder: str, *words: str, small: Sequence[str] = SMALL) -> Run:
    """A run that these words train; from words that name no file of a test, a copy of one that all tests share."""

    def train(path: Path) -> None:
        answer = command(*small, f"hydra.run.dir={path}", *words)
        assert answer.code == 0, answer.err

    if any(".path=" in word or "init_from=" in word for word in words):
        train(Path(folder))
    else:
        copied(Path(folder), train, "train", *small, *words)
    return Run(folder)


def files(run: Run) -> list[str]:
    paths = [path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()]
    return sorted(str(path) for path in paths if not path.name.startswith("."))


def content(run: Run) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in files(run) if name != "train.log"}
