"""Where the jobs of a sweep run: processes on this machine, or a Slurm cluster. In a job it is hardware like any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vaebench.hardware.device import Hardware
from vaebench.messages import check_range


@dataclass(frozen=True)
class SubmititLocal(Hardware):
    """Processes on this machine, a bounded number at a time.

    Args: those of `Hardware`, and
        array_parallelism: Jobs that run at the same time, >= 1; the cores, and the GPUs in turn, are shared among them.
        timeout_min: Minutes after which a job is asked to save and end, > 0; null never asks.
    """

    place: ClassVar[str] = "local"

    array_parallelism: int = 1
    timeout_min: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("array_parallelism", self.array_parallelism, at_least=1, whole=True)
        check_range("timeout_min", self.timeout_min, above=0, or_null=True)


@dataclass(frozen=True)
class Slurm(Hardware):
    """Jobs of a Slurm cluster, one for each run, submitted as an array through submitit.

    A job that comes near its time limit, or that is pre-empted, saves, goes back into the queue, and continues in the
    same run directory.

    References:
        submitit, https://github.com/facebookincubator/submitit; defaults are those of hydra-submitit-launcher, except
        for the requeues, which there need code that can resume.
    Args: those of `Hardware`, and
        partition: Where to queue; null takes the cluster's default.
        account: Whom to charge.
        qos: Quality of service.
        constraint: Features that a node must have.
        timeout_min: Time limit in minutes, >= 1.
        nodes: Nodes of a job, >= 1.
        tasks_per_node: Processes of a job on each node, >= 1; more than one share each batch.
        cpus_per_task: CPUs of each process, >= 1; null takes the cluster's default.
        gpus_per_node: GPUs of a job on each node, >= 0; null asks for none.
        mem_gb: Memory of a job on each node, GB, > 0; null takes the cluster's default.
        array_parallelism: Jobs that run at the same time, >= 1.
        signal_delay_s: Seconds before the time limit at which a job is told to save, >= 1.
        max_requeues: How often a job may come back from the queue, after its time limit or pre-empted, >= 0.
        setup: Lines of the job script before the program starts.
        additional_parameters: Other options of sbatch, by their long names: {mail-user: me}.
    """

    place: ClassVar[str] = "slurm"

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: int = 60
    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    array_parallelism: int = 256
    signal_delay_s: int = 120
    max_requeues: int = 100
    setup: Sequence[str] | None = None
    additional_parameters: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("timeout_min", "nodes", "tasks_per_node", "array_parallelism", "signal_delay_s"):
            check_range(name, getattr(self, name), at_least=1, whole=True)
        check_range("cpus_per_task", self.cpus_per_task, at_least=1, whole=True, or_null=True)
        check_range("gpus_per_node", self.gpus_per_node, at_least=0, whole=True, or_null=True)
        check_range("mem_gb", self.mem_gb, above=0, or_null=True)
        check_range("max_requeues", self.max_requeues, at_least=0, whole=True)
