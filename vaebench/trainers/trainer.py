"""The base of the trainers: an update rule, and how a training with it is started."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaebench.core import Batch, Loss, Model, as_loss
from vaebench.hardware.device import Hardware
from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.runs.run import Run
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.defaults import arranged, with_defaults
from vaebench.trainers.callbacks.hooks import Hooks
from vaebench.trainers.options import TrainerOptions
from vaebench.trainers.training import Training


@dataclass(kw_only=True)
class Trainer(TrainerOptions, ABC):
    """Base of the trainers: the update rule is what tells them apart.

    Args: those of `TrainerOptions`.
    """

    def start(
        self,
        model: Model,
        dataset: Any,
        *,
        run: Run | None = None,
        callbacks: Iterable[Callback] = (),
        default_callbacks: bool = True,
        hardware: Hardware | None = None,
        seed: int = 0,
        initial_weights: Mapping[str, Tensor] | None = None,
    ) -> Training:
        """Return a training that is ready to run, or to be stepped by hand; arguments as for `train`."""
        given = with_defaults(callbacks, has_run=run is not None) if default_callbacks else list(callbacks)
        observer = Hooks(arranged(given, self.ema_decay, self.patience))
        return Training(
            self,
            self,
            model,
            dataset,
            observer=observer,
            run=run,
            hardware=hardware,
            seed=seed,
            initial_weights=initial_weights,
        )

    def train(
        self,
        model: Model,
        dataset: Any,
        *,
        run: Run | None = None,
        callbacks: Iterable[Callback] = (),
        default_callbacks: bool = True,
        hardware: Hardware | None = None,
        seed: int = 0,
        initial_weights: Mapping[str, Tensor] | None = None,
    ) -> Training:
        """Train `model` in place, from the run's last checkpoint if it has one.

        Args:
            model: The model.
            dataset: Has the splits `train` and `validation`.
            run: The directory to write to; nothing is written without one.
            callbacks: Behaviour around the loop.
            default_callbacks: Whether a `ProgressBarCallback`, a `Checkpoint` and, with a run, an `ImagesCallback` are
                added unless they are among the callbacks.
            hardware: What to compute on; by default a GPU if there is one.
            seed: Of data order and noise.
            initial_weights: Named tensors of the model, all or some, that a new training starts from.

        Returns:
            The finished training: `step`, `epoch`, `best`, `latest`, `stop_reason`.

        Raises:
            ValueError: a mistake in the options, the model's trainer, the data or the checkpoint.
            NonFiniteError: a loss that is not finite.
            Interrupted: a signal ended the training; everything is saved.
        """
        if not isinstance(model, Model):
            raise ValueError(f"model: expected one of vaebench.models or a child of them, got a {type(model).__name__}")
        if not (hasattr(dataset, "train") and hasattr(dataset, "validation")):
            raise ValueError(
                f"dataset: expected the splits train and validation, got a {type(dataset).__name__}; "
                "Dataset.from_tensors(x) makes them of a tensor"
            )
        training = self.start(
            model,
            dataset,
            run=run,
            callbacks=callbacks,
            default_callbacks=default_callbacks,
            hardware=hardware,
            seed=seed,
            initial_weights=initial_weights,
        )
        training.run_to_end()
        return training

    def carry(self, model: Model, device: torch.device) -> dict[str, Tensor]:
        """Return what the update rule carries from step to step, as it is before the first one; nothing here.

        These tensors are `training.carried`. They are changed in place, are the same in every process, and lie in
        checkpoints with the rest.
        """
        return {}

    @abstractmethod
    def train_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """Update the weights once; the update rule.

        Args:
            training: Its `updates` compute losses and gradients, and step the optimisers.
            batch: This process's examples of one optimiser step.

        Returns:
            Detached scalars for the logs, means over `batch`.
        """

    def eval_step(self, training: Training, batch: Batch) -> Loss:
        """Return the validation loss of one batch."""
        return as_loss(training.model.validation_loss(batch, training.step))

    def predict(self, training: Training, x: Tensor) -> Tensor:
        """Return reconstructions of x, shape (B, *shape), through the posterior mean, on the CPU.

        The weights are the averaged ones where there are any.

        Raises:
            ValueError: the model does not reconstruct.
        """
        model: Any = training.model
        for capability in ("posterior", "likelihood"):
            model.require(capability)
        with training.evaluating(), fixed_rng(training.seed, Stream.PREDICTION), training.hardware.autocast():
            pieces = [
                model.reconstruct(part.to(training.device), deterministic=True) for part in x.split(self.batch_size)
            ]
        return torch.cat(pieces).float().cpu()
