"""The run directory: its paths, its status, its metrics, its lock.

Nothing here imports torch: reports and listings read runs in milliseconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vaebench.runs.files import TEMPORARY, WriteError, plain_json, read_json, write_atomic, write_error, write_json

__all__ = ["STATUSES", "LockedError", "Run", "WriteError", "now", "read_json", "write_atomic", "write_json"]

MAX_FOLDERS = 1_000  # that are looked into for the nearest name
STATUSES = ("running", "done", "failed", "interrupted")
_held_locks: set[int] = set()


class LockedError(ValueError):
    """Another process is training into the same run directory."""


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
        """What the run said."""
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
        if not any(mark.is_file() for mark in marks):
            raise ValueError(f"run: '{run.path}' is not a run directory (it has no config.yaml){_near(run.path)}")
        for mark in marks:
            if not mark.is_file():
                raise ValueError(f"run: '{run.path}' is damaged: {mark.name} is missing")
        for mark in (run.status, run.provenance):
            if not isinstance(read_json(mark), dict):
                raise ValueError(f"run: '{run.path}' is damaged: {mark.name} does not hold a JSON object")
        return run

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
        """The content of status.json, or {} before the first `set_status`."""
        return dict(read_json(self.status)) if self.status.is_file() else {}

    def set_status(
        self, status: str, *, epoch: int | None = None, step: int | None = None, reason: str | None = None
    ) -> None:
        """Write status.json. An `epoch` or `step` that is not given stays as it was."""
        if status not in STATUSES:
            raise ValueError(f"expected a status of {', '.join(STATUSES)}, got '{status}'")
        try:
            before = self.read_status()
        except (ValueError, TypeError):  # a damaged record is about to be replaced
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
        size = None
        try:
            with open(self.metrics, "ab", buffering=0) as file:
                size = file.tell()
                data = memoryview(lines.encode())
                while data:
                    data = data[file.write(data) :]
        except OSError as error:
            if size is not None:
                with contextlib.suppress(OSError):
                    os.truncate(self.metrics, size)
            raise write_error(self.metrics, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl. A last line that a crash cut short is left out; other damage is an error."""
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_bytes().split(b"\n")
        rows = []
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or cut short
            try:
                rows.append(json.loads(line))
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
                raise ValueError(f"'{self.metrics}' is damaged: line {number} is not JSON") from None
        return rows

    def metrics_offset(self) -> int:
        """Bytes in metrics.jsonl, after they are safely on the disk: what a checkpoint stores beside the weights."""
        if not self.metrics.is_file():
            return 0
        with open(self.metrics, "rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def truncate_metrics(self, offset: int) -> None:
        """Forget the rows written after a checkpoint, so that a resumed run writes them once.

        Raises:
            ValueError: the file is shorter than it was at the checkpoint.
        """
        if not self.metrics.is_file():  # removed by its owner: the history starts again from here
            return
        size = self.metrics.stat().st_size
        if size < offset:
            raise ValueError(
                f"'{self.metrics}' is damaged: it holds {size} bytes, and held {offset} when the checkpoint was "
                "written; remove it to resume without its history"
            )
        os.truncate(self.metrics, offset)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this process alone. The system drops the lock with the process, however it ends.

        Raises:
            LockedError: another process holds it; the sentence names its process id.
        """
        import fcntl

        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise LockedError(
                f"'{self.path}' is in use: {holder} is training into it; "
                "wait for it to end, or choose another hydra.run.dir"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise write_error(path, error) from error
        _held_locks.add(descriptor)
        try:
            with contextlib.suppress(OSError):  # the name is a courtesy; a full disk must not stop a resume
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
            self._remove_temporaries()
            yield
        finally:
            _held_locks.discard(descriptor)
            os.close(descriptor)

    def discard(self) -> None:
        """Remove a directory in which nothing but a log was written, after a mistake that a run never began with."""
        with contextlib.suppress(OSError):
            if {entry.name for entry in self.path.iterdir()} <= {self.log.name, ".lock"}:
                for path in (self.log, self.path / ".lock"):
                    path.unlink(missing_ok=True)
                self.path.rmdir()

    def _remove_temporaries(self) -> None:
        """Remove the temporary files of processes that were killed while they wrote."""
        for path in self.path.rglob(f"{TEMPORARY}*"):
            process = path.name.removeprefix(TEMPORARY).partition("-")[0]
            if not (process.isdigit() and int(process) != os.getpid() and _is_alive(int(process))):
                with contextlib.suppress(OSError):
                    path.unlink()


def _close_held_locks() -> None:
    # A forked child (a data loader's worker) would keep the lock of a parent that was killed.
    for descriptor in _held_locks:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held_locks)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


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
