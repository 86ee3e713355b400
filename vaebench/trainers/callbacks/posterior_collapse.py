"""An alarm for latent dimensions that carry nothing."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.messages import check_range, counted
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training

log = logging.getLogger(__name__)


class PosteriorCollapse(Callback):
    r"""Logs active units and the KL of each latent dimension, and warns when few are active.

    A dimension is active if the posterior mean varies over the validation data, Var_x(E[z_d|x]) > threshold (Burda et
    al., 2016, section 5.2). The rows have the split "latent"; `kl_nats_003` is the mean KL of dimension 3, for
    posteriors and priors that are diagonal Gaussians.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    Args:
        threshold: Variance above which a dimension is active, > 0.
        alarm_below: Share of active dimensions below which a warning is given, in [0, 1].
        every_epochs: Epochs between looks, >= 1.
    """

    def __init__(self, threshold: float = 0.01, alarm_below: float = 0.5, every_epochs: int = 1) -> None:
        check_range("threshold", threshold, above=0)
        check_range("alarm_below", alarm_below, at_least=0, at_most=1)
        check_range("every_epochs", every_epochs, at_least=1, whole=True)
        self.threshold = threshold
        self.alarm_below = alarm_below
        self.every_epochs = every_epochs
        self._is_alarmed = False

    def on_train_start(self, training: Training) -> None:
        """Say so where there is nothing to watch."""
        reason = training.model.reason_against("posterior")
        if reason is not None:
            log.info(
                "posterior_collapse watches nothing: %s has no posterior: %s", type(training.model).__name__, reason
            )

    def on_epoch_end(self, training: Training) -> None:
        """Look at the validation split, or the training split where there is none."""
        model: Any = training.model
        if training.epoch % self.every_epochs or "posterior" not in model.capabilities:
            return
        means, kls = [], []
        split = training.validation if len(training.validation) else training.train
        with training.evaluating(), fixed_rng(training.seed, Stream.POSTERIOR_COLLAPSE):
            for batch in split.batches(None, training.trainer.batch_size, device=training.device):
                q = model.encode(batch.x, batch.y)
                means.append(q.mean)
                kl = kl_per_dimension(q, model, batch.y)
                if kl is not None:
                    kls.append(kl)
        variance = torch.cat(means).flatten(1).double().var(0, correction=int(len(split) > 1))  # as metric=active_units
        active = variance > self.threshold
        share = float(active.float().mean())
        values: dict[str, Any] = {"active_units": float(active.sum()), "active_share": share}
        if kls:
            for d, value in enumerate(torch.cat(kls).mean(0).tolist()):
                values[f"kl_nats_{d:03d}"] = value
        training.log("latent", values)
        if share < self.alarm_below and not self._is_alarmed:
            log.warning(
                "epoch %d: %d of %s active; the rest carries nothing (posterior collapse)",
                training.epoch,
                int(active.sum()),
                counted(len(active), "latent dimension"),
            )
        self._is_alarmed = share < self.alarm_below

    def state_dict(self) -> dict[str, Any]:
        """Whether the warning was given."""
        return {"is_alarmed": self._is_alarmed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._is_alarmed = state["is_alarmed"]


def kl_per_dimension(q: Any, model: Any, y: Tensor | None = None) -> Tensor | None:
    """KL(q(z_d|x) || p(z_d)), shape (B, D), nats; None unless both are Gaussians with diagonal covariance."""
    if "prior" not in model.capabilities or "groups" in model.capabilities:
        return None  # a hierarchy logs the rate of each group
    p = model.prior(y)
    if not all(isinstance(getattr(d, "log_var", None), Tensor) for d in (q, p)) or p.mean.ndim > q.mean.ndim:
        return None
    ratio = (q.log_var - p.log_var).exp() + (q.mean - p.mean).square() / p.log_var.exp()
    return 0.5 * (ratio - 1 - q.log_var + p.log_var)
