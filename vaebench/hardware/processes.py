"""Several processes that work on one run: started here, or by a launcher such as torchrun."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from vaebench.hardware.device import Hardware, world_size_of_environment
from vaebench.hardware.signals import SIGNALS

_TIMEOUT = datetime.timedelta(minutes=60)  # processes wait for the one that draws pictures and writes files
_READY = "ready"
_START_METHOD = "spawn"  # a fork would copy threads, locks and an initialised GPU


def launch(hardware: Hardware, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function` in every process that the hardware asks for; this process is number 0.

    Under a launcher such as torchrun the processes are there already, and each calls this.

    Args:
        hardware: Says how many.
        function: Importable by name; `vaebench.hardware.collective.rank()` tells it which process it is in.
        arguments: Picklable.

    Returns: what it returned in process 0.

    Raises:
        ValueError: more devices than there are, or a mistake that any process found.
        RuntimeError: another process failed.
    """
    size = world_size_of_environment()
    if size is not None and size > 1:
        with process_group(hardware, "env://", int(os.environ["RANK"]), size):
            return function(*arguments)
    if hardware.num_devices == 1:
        return function(*arguments)
    hardware.torch_device.type  # noqa: B018 - raises early if there are too few devices
    with tempfile.TemporaryDirectory() as folder:
        return _spawn(hardware, f"file://{Path(folder) / 'rendezvous'}", function, arguments)


@contextlib.contextmanager
def process_group(hardware: Hardware, rendezvous: str, rank: int, size: int) -> Iterator[None]:
    """Context in which this process is number `rank` of `size` that exchange tensors."""
    device = hardware.torch_device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _spawn(hardware: Hardware, rendezvous: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    size = hardware.num_devices
    context: Any = multiprocessing.get_context(_START_METHOD)
    children: list[BaseProcess] = []
    reports: list[Connection] = []
    try:
        for rank in range(1, size):
            ours, theirs = context.Pipe()
            child = context.Process(
                target=_child, args=(theirs, hardware, rendezvous, rank, size, function, arguments), daemon=True
            )
            child.start()
            theirs.close()
            children.append(child)
            reports.append(ours)
        _await_ready(children, reports)
        with _environment(0, size), process_group(hardware, rendezvous, 0, size):
            result = function(*arguments)
        _join(children)
    except Exception as error:
        _end(children, patience=1.0)
        # When one process dies the others fail too, so report the error of the first.
        if isinstance(error, RuntimeError) and (told := _told(reports)) is not None:
            raise told from error
        raise
    finally:
        _end(children, patience=0.0)
    if (told := _told(reports)) is not None:
        raise told
    return result


def _child(
    report: Connection,
    hardware: Hardware,
    rendezvous: str,
    rank: int,
    size: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    for signum in SIGNALS:  # process 0 receives them and tells the others
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        report.send(_READY)
        with _environment(rank, size), process_group(hardware, rendezvous, rank, size):
            function(*arguments)
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        report.send((rank, isinstance(error, ValueError), type(error).__name__, str(error), traceback.format_exc()))
        raise SystemExit(1) from None


def _follow_parent() -> None:
    """End with process 0, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _environment(rank: int, size: int) -> Iterator[None]:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    before = {key: os.environ.get(key) for key in values}
    os.environ.update({key: str(value) for key, value in values.items()})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _await_ready(children: Sequence[BaseProcess], reports: Sequence[Connection]) -> None:
    for child, report in zip(children, reports, strict=True):
        wait([child.sentinel, report])
        if not report.poll() or report.recv() != _READY:
            raise RuntimeError(f"process {child.name} could not start (exit code {child.exitcode})")


def _told(reports: Sequence[Connection]) -> Exception | None:
    """The first error that another process reported."""
    for report in reports:
        with contextlib.suppress(EOFError, OSError):
            if report.poll():
                rank, is_mistake, kind, text, trace = report.recv()
                if is_mistake:
                    return ValueError(text)
                return RuntimeError(f"process {rank} failed: {kind}: {text}\n{trace}")
    return None


def _join(children: Sequence[BaseProcess]) -> None:
    for child in children:
        child.join()


def _end(children: Sequence[BaseProcess], patience: float) -> None:
    for child in children:
        child.join(patience)
        if child.is_alive():
            child.kill()  # it did not obey a gentler signal
        child.join()
