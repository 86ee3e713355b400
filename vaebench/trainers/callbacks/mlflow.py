"""Curves for MLflow."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from vaebench.trainers.callbacks.tracker import Tracker, numbers, options
from vaebench.trainers.training import Training

_MOST_CHARACTERS = 500  # MLflow's limit for a parameter's value
_ENDINGS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflow(Tracker):
    """Sends every row of metrics.jsonl to an MLflow server, or to files in the folder `mlflow` of the run.

    Args:
        experiment: Name of the experiment.
        tracking_uri: Where to; null: the folder `mlflow` of the run.
    """

    package = "mlflow"
    outward: ClassVar[Mapping[str, Collection[Any]]] = {"tracking_uri": (None,)}

    def __init__(self, experiment: str = "vaebench", tracking_uri: str | None = None) -> None:
        self.experiment = experiment
        self.tracking_uri = tracking_uri
        self._id: str | None = None
        self._client: Any = None

    def open(self, training: Training) -> None:
        """Start the run, or go on with it."""
        assert training.run is not None
        # Files need neither database nor server, but recent versions of MLflow ask for consent.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        uri = self.tracking_uri or (training.run.path / "mlflow").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        if self._id is not None:
            self._client.update_run(self._id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        self._id = self._client.create_run(experiment, run_name=training.run.path.name).info.run_id
        for name, value in options(training).items():
            self._client.log_param(self._id, name.replace(" ", "_"), str(value)[:_MOST_CHARACTERS])

    def write(self, training: Training, row: dict[str, Any]) -> None:
        """Log one row."""
        for name, value in numbers(row).items():
            self._client.log_metric(self._id, name, value, step=row["step"])

    def close(self, status: str) -> None:
        """Finish the run."""
        self._client.set_terminated(self._id, status=_ENDINGS[status])

    def state_dict(self) -> dict[str, Any]:
        """The run's name at MLflow."""
        return {"id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._id = state["id"]
