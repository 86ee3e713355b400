"""The run directory: its paths, its status, its metrics, its lock.

Nothing here imports torch: reports and listings read runs in milliseconds.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vaebench.runs import lock
from vaebench.runs.files import (
    WriteError,
    held_folder,
    plain_json,
    read_json,
    remove_temporaries,
    write_atomic,
    write_error,
    write_json,
)
from vaebench.runs.lock import LockedError
from vaebench.runs.records import STATUSES, check_status, metrics_row
from vaebench.runs.regular import MAX_BYTES, open_regular, refuse_strange_entries

__all__ = ["DIED", "STATUSES", "LockedError", "Run", "WriteError", "now", "read_json", "write_atomic", "write_json"]

MAX_FOLDERS = 1_000  # searched for the nearest name
DIED = "died"  # `Run.read_status` for "running" when no process holds the lock


def now() -> str:
    """Returns: the present moment in UTC, ISO 8601 with milliseconds; such strings sort by time."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Run:
    """One run directory.

    Args:
        path: The directory. It need not exist: `Run(path)` names a run, `Run.open(path)` insists on one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.path.resolve() == other.path.resolve()

    def __hash__(self) -> int:
        return hash(self.path.resolve())

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Command, versions, hardware, times."""
        return self.path / "provenance.json"

    @property
    def status(self) -> Path:
        """How far the run came, and how it ended."""
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        """The folder of weights and state."""
        return self.path / "checkpoints"

    @property
    def last_weights(self) -> Path:
        """Weights at the newest checkpoint."""
        return self.checkpoints / "last.safetensors"

    @property
    def best_weights(self) -> Path:
        """Weights with the best validation metric."""
        return self.checkpoints / "best.safetensors"

    @property
    def last_state(self) -> Path:
        """Optimisers, schedulers, RNG and step that belong to the newest weights."""
        return self.checkpoints / "last.state"

    @property
    def images(self) -> Path:
        """The folder of pictures."""
        return self.path / "images"

    def samples(self, sampler: str) -> Path:
        """The folder of one sampler's latents, grid and diagnostics."""
        return self.path / "samples" / sampler

    def evaluation(self, metric: str) -> Path:
        """The file of one metric's values."""
        return self.path / "evaluation" / f"{metric}.json"

    @property
    def has_weights(self) -> bool:
        """Whether the run got as far as a checkpoint."""
        return self.best_weights.is_file() or self.last_weights.is_file()

    @property
    def start(self) -> str:
        """When it was last started or resumed (ISO 8601, UTC), or "" if its provenance cannot tell."""
        try:
            record = read_json(self.provenance)
            return str(max([record["start"], *(restart["start"] for restart in record.get("restarts", []))]))
        except (ValueError, KeyError, TypeError, OSError):
            return ""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """A run that exists and whose records can be read.

        Raises:
            ValueError: there is no such directory, it is not a run, or one of its files is damaged; the sentence
                says which, and names a run near it.
        """
        run = cls(path)
        if not run.path.is_dir():
            problem = "is a file, not a run directory" if run.path.exists() else "does not exist"
            raise ValueError(f"run: '{run.path}' {problem}{_near(run.path)}")
        marks = (run.config, run.status, run.provenance)
        if not run.config.is_file() and (run.path / ".lock").is_file() and not run.checkpoints.exists():
            raise ValueError(
                f"run: '{run.path}' ended before its configuration was written; there is nothing in it: train it anew"
            )
        if not any(mark.is_file() for mark in marks):
            raise ValueError(f"run: '{run.path}' is not a run directory (it has no config.yaml){_near(run.path)}")
        for mark in marks:
            if not mark.is_file():
                raise ValueError(f"run: '{run.path}' is damaged: {mark.name} is missing")
        run.refuse_strange_entries()
        for mark in (run.status, run.provenance):
            if not isinstance(read_json(mark), dict):
                raise ValueError(f"run: '{run.path}' is damaged: {mark.name} does not hold a JSON object")
        return run

    def refuse_strange_entries(self, key: str = "run") -> None:
        """Refuse links that lead out of the directory, pipes and devices, before anything in it is read or written.

        Raises:
            ValueError: the first of them.
        """
        refuse_strange_entries(self.path, key)

    def refuse_foreign(self) -> None:
        """Refuse to write into a directory that holds anything but a run.

        Raises:
            ValueError: it holds other things, or what `refuse_strange_entries` refuses.
        """
        names = {entry.name for entry in os.scandir(self.path) if not re.match(r"\.tmp-\d+-.", entry.name)}
        started = {self.log.name, ".lock"}
        has_begun = self.config.name in names and bool(names & {self.status.name, self.provenance.name})
        is_about_to = ".lock" in names and names <= {*started, self.config.name}
        if names and not has_begun and not is_about_to:
            listed = ", ".join(repr(name) for name in sorted(names - started)[:3]) + ", …" * (len(names) > 3)
            raise ValueError(
                f"hydra.run.dir: '{self.path}' holds other things than a run ({listed}); nothing was changed; choose a "
                "new or an empty folder"
            )
        self.refuse_strange_entries("hydra.run.dir")

    @classmethod
    def find(cls, outputs: str | os.PathLike[str] = "outputs", limit: int | None = None) -> list[Run]:
        """Every run under a folder, sweeps included, oldest start first; at most `limit` folders are looked into."""
        runs = []
        for folder, subfolders, files in itertools.islice(os.walk(outputs), limit):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            if "config.yaml" in files and "status.json" in files:
                runs.append(cls(folder))
                subfolders.clear()
        return sorted(runs, key=lambda run: run.start)

    @classmethod
    def newest(cls, outputs: str | os.PathLike[str] = "outputs") -> Run:
        """The run with weights that was started or resumed last.

        Raises:
            ValueError: there is none.
        """
        runs = cls.find(outputs)
        with_weights = [run for run in runs if run.has_weights]
        if with_weights:
            return cls.open(with_weights[-1].path)
        found = f"only runs without a checkpoint under '{outputs}'" if runs else f"none under '{outputs}'"
        raise ValueError(
            f"run: expected a trained run, found {found}; train one with 'vaebench train', or name it: run="
        )

    def read_status(self) -> dict[str, Any]:
        """The content of status.json, or {} before the first `set_status`.

        A run that says "running", and whose lock is held by no process, has the status "died".

        Raises:
            ValueError: it is damaged; the sentence names the entry.
        """
        if not self.status.is_file():
            return {}
        record = read_json(self.status)
        if not isinstance(record, dict):
            raise ValueError(f"'{self.status}' is damaged: expected a JSON object")
        check_status(record, self.status)
        return {**record, "status": DIED} if record["status"] == "running" and lock.is_free(self.path) else record

    def set_status(
        self, status: str, *, epoch: int | None = None, step: int | None = None, reason: str | None = None
    ) -> None:
        """Write status.json. An `epoch` or `step` that is not given stays as it was."""
        if status not in STATUSES:
            raise ValueError(f"expected a status of {', '.join(STATUSES)}, got '{status}'")
        try:
            before = self.read_status()
        except (ValueError, TypeError):  # a damaged record is replaced anyway
            before = {}
        write_json(
            self.status,
            {
                "status": status,
                "epoch": before.get("epoch", 0) if epoch is None else epoch,
                "step": before.get("step", 0) if step is None else step,
                "reason": reason,
                "time": now(),
            },
        )

    def append_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows to metrics.jsonl; on a full disk none of them stays behind."""
        lines = "".join(json.dumps(plain_json(row), allow_nan=False) + "\n" for row in rows)
        try:
            with open_regular(self.metrics, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
                size = file.seek(0, os.SEEK_END)
                data = memoryview(lines.encode())
                try:
                    while data:
                        data = data[file.write(data) :]
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(size)
                    raise
        except OSError as error:
            raise write_error(self.metrics, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; see `metrics_rows`."""
        return list(self.metrics_rows())

    def metrics_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of metrics.jsonl one by one. A last line that a crash cut short is left out.

        Raises:
            ValueError: other damage; the sentence names the line.
        """
        if not self.metrics.is_file():
            return
        try:
            with open_regular(self.metrics) as raw:
                file = io.BufferedReader(raw, 2**16)
                for number in itertools.count(1):
                    line = file.readline(MAX_BYTES)
                    if not line.endswith(b"\n"):
                        if len(line) == MAX_BYTES:
                            raise ValueError(f"'{self.metrics}' is damaged: line {number} has no end")
                        return
                    yield metrics_row(line, number, self.metrics)
        except OSError as error:
            raise ValueError(f"'{self.metrics}' cannot be read: {error.strerror}") from None

    def check_metrics(self) -> None:
        """Refuse a damaged metrics.jsonl, before a training that would read it at its end."""
        try:
            for _ in self.metrics_rows():
                pass
        except ValueError as error:
            raise ValueError(f"{error}; mend or remove the file to resume without its history") from None

    def metrics_offset(self) -> int:
        """Bytes in metrics.jsonl, after they are safely on the disk: what a checkpoint stores beside the weights."""
        if not self.metrics.is_file():
            return 0
        with open_regular(self.metrics, os.O_RDWR) as file:
            os.fsync(file.fileno())
            return int(file.seek(0, os.SEEK_END))

    def truncate_metrics(self, offset: int) -> None:
        """Forget the rows written after a checkpoint, so that a resumed run writes them once.

        Raises:
            ValueError: the file is shorter than it was at the checkpoint, or its lines end elsewhere.
        """
        if not self.metrics.is_file():  # deleted by the user: start a new history
            return
        with open_regular(self.metrics, os.O_RDWR) as file:
            size = os.fstat(file.fileno()).st_size
            if size < offset:
                raise ValueError(
                    f"'{self.metrics}' is damaged: it holds {size} bytes, and held {offset} when the checkpoint was "
                    "written; remove it to resume without its history"
                )
            file.seek(max(0, offset - 1))
            if offset and file.read(1) != b"\n":
                raise ValueError(
                    f"'{self.metrics}' is damaged: it was changed since the checkpoint was written, when a line ended "
                    f"at byte {offset}; remove it to resume without its history"
                )
            file.truncate(offset)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this process alone. The system drops the lock with the process, however it ends.

        Raises:
            LockedError: another process holds it; the sentence names its process id.
            ValueError: the directory holds other things than a run; see `refuse_foreign`.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.refuse_foreign()
        except OSError as error:
            raise write_error(self.path, error) from error
        with lock.held(self.path), held_folder(self.path):
            self.remove_temporaries()
            yield

    def discard(self) -> None:
        """Remove a directory in which nothing but a log was written, after a mistake that a run never began with."""
        with contextlib.suppress(OSError):
            if {entry.name for entry in self.path.iterdir()} <= {self.log.name, ".lock"}:
                for path in (self.log, self.path / ".lock"):
                    path.unlink(missing_ok=True)
                self.path.rmdir()

    def remove_temporaries(self) -> None:
        """Remove what processes that were killed while they wrote have left in the folders of a run."""
        samples = self.path / "samples"
        folders = [self.path, self.checkpoints, self.images, self.path / "evaluation", samples]
        for folder in folders:
            remove_temporaries(folder)
        with contextlib.suppress(OSError):
            for entry in os.scandir(samples):
                remove_temporaries(Path(entry.path))


def _near(path: Path) -> str:
    """A hint for a path that is not a run: the run that it lies in, runs beneath it, or the nearest run's name."""
    for parent in path.parents:
        if (parent / "config.yaml").is_file() and (parent / "status.json").is_file():
            return f"; did you mean the run '{parent}'?"
    beneath = Run.find(path, MAX_FOLDERS) if path.is_dir() else []
    if beneath:
        return f"; beneath it is the run '{beneath[-1].path}'" + (f" and {len(beneath) - 1} more" * (len(beneath) > 1))
    folder = path.parent if path.parent.is_dir() and path.parent != Path(".") else Path("outputs")
    runs = [run for place in (folder, "outputs") for run in Run.find(place, MAX_FOLDERS)]
    candidates = {str(run.path): run.path for run in runs}
    by_name = get_close_matches(str(path), candidates, 1, cutoff=0.6) or [
        text for text, found in candidates.items() if get_close_matches(path.name, [found.name], 1, cutoff=0.6)
    ]
    return f"; did you mean '{by_name[0]}'?" if by_name else ""
