"""The hardware of a run: device, precision, threads, compilation, processes. Set here, read nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from vaebench.core import Batch
from vaebench.hardware.random_streams import seed_everything
from vaebench.messages import NamedArguments, counted, nearest

DEVICES = ("auto", "cpu", "gpu", "mps")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
MOST_THREADS = 1024  # OpenMP ends the process where it cannot make as many as it was told
_DEVICE_SHARE = 0.5  # share of a GPU's free memory that the data set may take

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Hardware(NamedArguments):
    """A machine, or the part of it that a run uses.

    Args:
        device: "cpu", "gpu" (CUDA or ROCm), "mps" (Apple), or "auto": a GPU if there is one.
        precision: "fp32"; "tf32", float32 with faster matrix products on NVIDIA GPUs since Ampere; "bf16" and "fp16",
            autocast with float32 weights, "fp16" on a GPU only and with a gradient scaler: while that looks for its
            scale it leaves updates out, which the logs count as `num_overflows`.
        threads: CPU threads of each process; null divides the cores among the processes,
            unless the environment sets OMP_NUM_THREADS.
        compile: Whether `torch.compile` compiles the loss: slow to start, then often faster on a GPU.
        channels_last: Whether weights and batches of images are stored with the channels last: faster convolutions.
        num_devices: Processes that share each batch, on one device each.
        data_on_device: Whether data sets in memory move to the device once; "auto" where they fit.
        deterministic: Whether only algorithms are used that give the same bits again; slower on a GPU.
    """

    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    compile: bool = False
    channels_last: bool = False
    num_devices: int = 1
    data_on_device: bool | str = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        for key, value, choices in (("device", self.device, DEVICES), ("precision", self.precision, PRECISIONS)):
            if value not in choices:
                close = nearest(str(value).partition(":")[0], choices)
                near = f"; did you mean '{close}'?" if close else ""
                raise ValueError(f"hardware.{key} must be one of {', '.join(choices)}; got '{value}'{near}")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            bound = "at least 1" if self.threads < 1 else f"at most {MOST_THREADS}"
            raise ValueError(f"hardware.threads must be {bound}, or null for all cores; got {self.threads}")
        if self.num_devices < 1:
            raise ValueError(f"hardware.num_devices must be at least 1, got {self.num_devices}")
        if self.data_on_device not in (True, False, "auto"):
            raise ValueError(f"hardware.data_on_device must be auto, true or false; got '{self.data_on_device}'")

    # What the machine has

    @property
    def torch_device(self) -> torch.device:
        """The device of this process.

        Raises:
            ValueError: it does not exist, or cannot do what was asked; the sentence says what there is.
        """
        kind = self._kind()
        if kind == "cuda" and self.num_devices > torch.cuda.device_count() and "LOCAL_WORLD_SIZE" not in os.environ:
            count = torch.cuda.device_count()
            raise ValueError(
                f"hardware.num_devices={self.num_devices}: this machine has {counted(count, 'GPU')}; "
                f"choose hardware.num_devices={count}"
            )
        if kind == "mps" and self.num_devices > 1:
            raise ValueError(f"hardware.num_devices={self.num_devices}: this machine has one MPS device")
        if kind == "cpu" and self.num_devices > cores():
            raise ValueError(
                f"hardware.num_devices={self.num_devices}: on a CPU each process needs a core, and this machine has "
                f"{cores()}; choose hardware.num_devices={cores()}"
            )
        if self.precision == "fp16" and kind != "cuda":
            raise ValueError(
                f"hardware.precision=fp16 needs a GPU, and this run is on {_NAMES[kind]}; choose "
                f"hardware.precision=bf16 or fp32"
            )
        if self.precision == "tf32" and kind != "cuda":
            raise ValueError(
                f"hardware.precision=tf32 is a format of NVIDIA GPUs, and this run is on {_NAMES[kind]}; choose "
                f"hardware.precision=fp32"
            )
        return torch.device(kind, _local_rank()) if kind == "cuda" else torch.device(kind)

    def _kind(self) -> str:
        has_gpu, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        there = ", ".join(["cpu", *["gpu"] * has_gpu, *["mps"] * has_mps])
        if self.device == "gpu" and not has_gpu:
            raise ValueError(f"hardware.device=gpu: PyTorch sees no GPU on this machine; it has {there}")
        if self.device == "mps" and not has_mps:
            raise ValueError(f"hardware.device=mps: PyTorch sees no Apple GPU on this machine; it has {there}")
        if self.device == "auto":
            return "cuda" if has_gpu else "mps" if has_mps else "cpu"
        return {"cpu": "cpu", "gpu": "cuda", "mps": "mps"}[self.device]

    def describe(self) -> dict[str, Any]:
        """Device, its name, precision, threads and processes, for the provenance of a run."""
        device = self.torch_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {
            "device": str(device),
            "name": name,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "num_devices": world_size_of_environment() or self.num_devices,
        }

    # Settings of the process

    def prepare(self, seed: int | None = None) -> torch.device:
        """Set threads, precision and determinism for this process, and the seed if one is given.

        Returns: the device. Call it before the model is built: its first weights depend on the seed.
        """
        device = self.torch_device
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", self.num_devices))
        if self.threads is not None or "OMP_NUM_THREADS" not in os.environ:  # the user's variable wins
            torch.set_num_threads(self.threads or max(1, cores() // local_processes))
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if self.deterministic != torch.are_deterministic_algorithms_enabled():  # imports torch.compile
            torch.use_deterministic_algorithms(self.deterministic)
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.benchmark = False
        if seed is not None:
            seed_everything(seed)
        return device

    def fits(self, num_bytes: int) -> bool:
        """Whether a data set of that size is to live on the device."""
        if self.data_on_device != "auto":
            return bool(self.data_on_device)
        device = self.torch_device
        if device.type != "cuda":
            return True
        return num_bytes <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]

    # Contexts and wrappers

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which a loss is computed."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Return the gradient scaler, which keeps small float16 gradients from vanishing, or None if none is needed."""
        return torch.amp.GradScaler(self.torch_device.type) if self.precision == "fp16" else None

    def compiled(self, function: F) -> F:
        """The function, compiled if asked for; batch sizes may vary without compiling again."""
        if not self.compile:
            return function
        import torch._functorch.config

        # Some trainers run backward several times on one graph, and some losses contain gradients.
        torch._functorch.config.donated_buffer = False
        return torch.compile(function)  # type: ignore[return-value]

    @contextlib.contextmanager
    def explained(self, model: str) -> Iterator[None]:
        """Context in which what a compiler cannot do becomes a sentence."""
        try:
            yield
        except RuntimeError as error:
            if not self.compile or "double backward" not in str(error):
                raise
            raise ValueError(
                f"hardware.compile=true: the loss of {model} takes gradients of its own, and torch.compile cannot go "
                f"back through these; set hardware.compile=false"
            ) from None

    def prepared(self, batch: Batch) -> Batch:
        """A batch in the memory layout that was asked for, whose size the compiler takes as variable."""
        if self.channels_last and batch.x.ndim == 4:
            batch = batch.with_x(batch.x.contiguous(memory_format=torch.channels_last))
        if self.compile:
            batch.map(_with_dynamic_size)
        return batch


def _with_dynamic_size(tensor: torch.Tensor) -> torch.Tensor:
    torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return tensor


_NAMES = {"cpu": "a CPU", "cuda": "a GPU", "mps": "an Apple GPU"}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Processes


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size_of_environment() -> int | None:
    """How many processes a launcher such as torchrun started, or None."""
    size = os.environ.get("WORLD_SIZE")
    return int(size) if size is not None and "RANK" in os.environ else None


def rank_of_environment() -> int:
    """This process's number among those that a launcher such as torchrun started; 0 without one."""
    return int(os.environ.get("RANK", 0)) if world_size_of_environment() is not None else 0
