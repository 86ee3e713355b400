"""Which examples a step gets."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Batch, Model
from vaebench.hardware import collective
from vaebench.messages import counted
from vaebench.trainers.options import TrainerOptions

log = logging.getLogger(__name__)


def data_order(num_examples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of one epoch: a pure function of seed and epoch, shape (num_examples,)."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(num_examples, generator=generator)


def joined(batches: Iterator[Batch], num: int) -> Iterator[Batch]:
    """Yield the batches, `num` at a time as one."""
    if num == 1:
        yield from batches
        return
    while group := list(itertools.islice(batches, num)):
        yield Batch.cat(group)


def check_data(trainer: TrainerOptions, model: Model, train: Any, validation: Any) -> None:
    """Refuse splits that the options or the model cannot use."""
    if len(train) == 0:
        raise ValueError("the training split is empty; choose a dataset with examples")
    if trainer.batch_size > len(train):
        raise ValueError(
            f"trainer.batch_size={trainer.batch_size} is larger than the training split of "
            f"{counted(len(train), 'example')}; choose at most {len(train)}"
        )
    least, left = model.min_batch, len(train) % trainer.batch_size
    reaches_last = trainer.num_steps is None or trainer.num_steps * trainer.batch_size * trainer.accumulate > (
        len(train) - left
    )
    smallest = left if left and reaches_last else trainer.batch_size
    if smallest < least:
        raise ValueError(
            f"{type(model).__name__} needs at least {least} examples in every batch, and with trainer.batch_size="
            f"{trainer.batch_size} the last of {counted(len(train), 'training example')} holds {smallest}; choose "
            "another trainer.batch_size"
        )
    if trainer.validate_every is not None and len(validation) == 0:
        raise ValueError("the validation split is empty; choose a dataset with one, or set trainer.validate_every=null")
    processes = collective.world_size()
    for name, split in (("training", train), ("validation", validation)):
        last = len(split) % trainer.batch_size or trainer.batch_size
        if processes > 1 and last < processes and len(split) > 0:
            raise ValueError(
                f"the last batch of the {name} split holds {last} of {counted(len(split), 'example')}, too few for "
                f"{processes} processes; choose another trainer.batch_size than {trainer.batch_size}"
            )


def warn_if_accumulation_changes_loss(trainer: TrainerOptions, model: Model) -> None:
    """Warn where several small batches are not one large one."""
    if trainer.accumulate > 1 and model.couples_batch:
        log.warning(
            "the loss of %s couples the examples of a batch: a step of %d batches of %d is not one of a batch of %d",
            type(model).__name__,
            trainer.accumulate,
            trainer.batch_size,
            trainer.accumulate * trainer.batch_size,
        )
