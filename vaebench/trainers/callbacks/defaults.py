"""The callbacks that come without being asked for."""

from __future__ import annotations

from collections.abc import Iterable

from vaebench.runs.run import Run
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.checkpoint import Checkpoint
from vaebench.trainers.callbacks.early_stopping import EarlyStopping
from vaebench.trainers.callbacks.ema import EMA
from vaebench.trainers.callbacks.images import ImagesCallback
from vaebench.trainers.callbacks.progress import ProgressBarCallback
from vaebench.trainers.trainer import Trainer


def with_defaults(trainer: Trainer, run: Run | None, callbacks: Iterable[Callback]) -> list[Callback]:
    """Return the callbacks in the order in which they are called.

    Averaging comes first, so that the others see its weights; the checkpoint last, so that it holds what they know.
    """
    given = list(callbacks)
    kinds = [type(callback) for callback in given]
    for kind in (Checkpoint, EMA, EarlyStopping, ProgressBarCallback):
        if kinds.count(kind) > 1:
            raise ValueError(f"expected one callback {kind.__name__}, got {kinds.count(kind)}")
    for kind, value, key in ((EMA, trainer.ema_decay, "ema_decay"), (EarlyStopping, trainer.patience, "patience")):
        if kind in kinds and value is not None:
            raise ValueError(f"trainer.{key} and a callback {kind.__name__} do the same; keep one of them")
    if trainer.ema_decay is not None:
        given.append(EMA(trainer.ema_decay))
    if trainer.patience is not None:
        given.append(EarlyStopping(trainer.patience))
    if ProgressBarCallback not in kinds:
        given.append(ProgressBarCallback())
    if Checkpoint not in kinds:
        given.append(Checkpoint())
    if run is not None and ImagesCallback not in kinds:
        given.append(ImagesCallback())
    return sorted(given, key=lambda callback: {EMA: -1, Checkpoint: 1}.get(type(callback), 0))
