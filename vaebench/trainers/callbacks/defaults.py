"""The callbacks that come without being asked for, and the order in which all are called."""

from __future__ import annotations

from collections.abc import Iterable

from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.checkpoint import Checkpoint
from vaebench.trainers.callbacks.early_stopping import EarlyStopping
from vaebench.trainers.callbacks.ema import EMA
from vaebench.trainers.callbacks.images import ImagesCallback
from vaebench.trainers.callbacks.progress import ProgressBarCallback


def with_defaults(callbacks: Iterable[Callback], *, has_run: bool) -> list[Callback]:
    """Return the callbacks with those added that a training has unless they are among them."""
    given = list(callbacks)
    kinds = {type(callback) for callback in given}
    if ProgressBarCallback not in kinds:
        given.append(ProgressBarCallback())
    if Checkpoint not in kinds:
        given.append(Checkpoint())
    if has_run and ImagesCallback not in kinds:
        given.append(ImagesCallback())
    return given


def arranged(callbacks: Iterable[Callback], ema_decay: float | None, patience: int | None) -> list[Callback]:
    """Return the callbacks in the order in which they are called, with those that options of the trainer ask for.

    Averaging comes first, so that the others see its weights; the checkpoint last, so that it holds what they know.

    Args:
        callbacks: Those that were given.
        ema_decay: `trainer.ema_decay`.
        patience: `trainer.patience`.

    Raises:
        ValueError: two callbacks do the same.
    """
    given = list(callbacks)
    kinds = [type(callback) for callback in given]
    for kind in (Checkpoint, EMA, EarlyStopping, ProgressBarCallback):
        if kinds.count(kind) > 1:
            raise ValueError(f"expected one callback {kind.__name__}, got {kinds.count(kind)}")
    for kind, value, key in ((EMA, ema_decay, "ema_decay"), (EarlyStopping, patience, "patience")):
        if kind in kinds and value is not None:
            raise ValueError(f"trainer.{key} and a callback {kind.__name__} do the same; keep one of them")
    if ema_decay is not None:
        given.append(EMA(ema_decay))
    if patience is not None:
        given.append(EarlyStopping(patience))
    return sorted(given, key=lambda callback: {EMA: -1, Checkpoint: 1}.get(type(callback), 0))
