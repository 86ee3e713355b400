"""Curves for Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from vaebench.trainers.callbacks.tracker import Tracker, numbers, options
from vaebench.trainers.training import Training

MODES = ("online", "offline", "disabled")


class WandB(Tracker):
    """Sends every row of metrics.jsonl to Weights & Biases; offline, into the run's folder `wandb` for `wandb sync`.

    Args:
        project: Name of the project.
        entity: User or team; null: the account's own.
        mode: "offline" needs no network and no account; "online"; "disabled".
        name: Name of the run; null: its directory's.
    """

    package = "wandb"
    outward: ClassVar[Mapping[str, Collection[Any]]] = {"mode": ("offline", "disabled")}

    def __init__(
        self, project: str = "vaebench", entity: str | None = None, mode: str = "offline", name: str | None = None
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"callback.wandb.mode must be one of {', '.join(MODES)}; got '{mode}'")
        self.project = project
        self.entity = entity
        self.mode = mode
        self.name = name
        self._id: str | None = None
        self._wandb_run: Any = None

    def open(self, training: Training) -> None:
        """Start the run, or go on with it."""
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # or wandb reports its own errors, even offline
        import wandb

        assert training.run is not None
        self._wandb_run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.name or training.run.path.name,
            id=self._id,
            resume="allow",
            mode=self.mode,  # type: ignore[arg-type]
            dir=str(training.run.path),
            config=options(training),
            # git would run in the current folder, under that folder's configuration.
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, save_code=False
            ),
        )
        self._id = self._wandb_run.id
        self._wandb_run.define_metric("*", step_metric="step")

    def write(self, training: Training, row: dict[str, Any]) -> None:
        """Log one row."""
        self._wandb_run.log({"step": row["step"], "epoch": row["epoch"], **numbers(row)})

    def close(self, status: str) -> None:
        """Finish the run."""
        self._wandb_run.finish(exit_code=0 if status == "done" else 1)

    def state_dict(self) -> dict[str, Any]:
        """The run's name at Weights & Biases."""
        return {"id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._id = state["id"]
