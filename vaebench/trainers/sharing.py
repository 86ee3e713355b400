"""Communication about the weights between processes that share every batch."""

from __future__ import annotations

import logging

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from vaebench.hardware import collective
from vaebench.messages import counted
from vaebench.trainers.parts import Part

log = logging.getLogger(__name__)


def share_model(model: nn.Module) -> None:
    """Give every process the weights and buffers of number 0."""
    if collective.is_distributed():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)


def sum_over_processes(part: Part) -> None:
    """Sum a part's gradients over the processes, in one message."""
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in part.parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    offset = 0
    for parameter in part.parameters:
        parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()


def statistics_of(model: nn.Module) -> list[Tensor]:
    """Running means and variances of batch normalisation, which move in each process by its own rows."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    if norms and collective.is_distributed():
        log.warning(
            "each process normalises its share of the batch by itself, not the whole batch, in %s; running statistics "
            "are averaged over processes",
            counted(len(norms), "layer"),
        )
    found = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    return [buffer for buffer in found if isinstance(buffer, Tensor)]


def average_statistics(statistics: list[Tensor]) -> None:
    """Make running statistics the same in every process, in one message."""
    if not statistics or not collective.is_distributed():
        return
    flat = torch.cat([value.reshape(-1) for value in statistics])
    dist.all_reduce(flat)
    flat /= collective.world_size()
    offset = 0
    for value in statistics:
        value.copy_(flat[offset : offset + value.numel()].view_as(value))
        offset += value.numel()


def share_generators(device: torch.device) -> None:
    """Give every process the state of number 0's generators: dropout draws as often as a process has rows."""
    if not collective.is_distributed():
        return
    state = torch.get_rng_state()
    dist.broadcast(state, 0)
    torch.set_rng_state(state)
    if device.type == "cuda":
        state = torch.cuda.get_rng_state(device)
        dist.broadcast(state, 0)
        torch.cuda.set_rng_state(state, device)
