"""The base of the samplers with a normalising flow: fitting by maximum likelihood, with early stopping, and drawing."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.samplers.base import BaseSampler

HELD_OUT = 0.1  # share of the latents by which the flow is judged
BATCH_SIZE = 100


class FlowSettings(TypedDict, total=False):
    """What a sampler with a flow hands on to `FlowSampler`."""

    num_transforms: int
    hidden_features: Sequence[int]
    num_epochs: int
    patience: int
    learning_rate: float
    temperature: float
    refit: bool


class FlowSampler(BaseSampler):
    r"""A normalising flow fitted to encoded data by maximum likelihood, on standardised latents.

    A tenth of the latents is held out: after each epoch their log-likelihood decides which weights are kept, and the
    fit ends when they have not improved for `patience` epochs. For a model with labels the flow is conditional on them.

    Args:
        num_transforms: Transforms in the flow, >= 1.
        hidden_features: Widths of the hidden layers of each transform's network.
        num_epochs: Most passes over the latents, >= 1.
        patience: Epochs without improvement before the fit ends, >= 1.
        learning_rate: Of Adam, > 0.
        temperature: T, scale of the base's noise, >= 0; 1 is what was fitted.
        refit: Whether to fit anew where a fitted flow is stored beside the samples.
    """

    learns = True
    needs = frozenset({"posterior"})
    excludes = frozenset({"codes"})
    mean: Tensor
    scale: Tensor
    is_fitted: Tensor

    def __init__(
        self,
        *,
        num_transforms: int = 5,
        hidden_features: Sequence[int] = (100, 100),
        num_epochs: int = 200,
        patience: int = 30,
        learning_rate: float = 1e-3,
        temperature: float = 1.0,
        refit: bool = False,
    ) -> None:
        super().__init__()
        check_range("num_transforms", num_transforms, at_least=1, whole=True)
        for width in hidden_features:
            check_range("hidden_features", width, at_least=1, whole=True)
        check_range("num_epochs", num_epochs, at_least=1, whole=True)
        check_range("patience", patience, at_least=1, whole=True)
        check_range("learning_rate", learning_rate, above=0, below=math.inf)
        check_range("temperature", temperature, at_least=0, below=math.inf)
        self.num_transforms = num_transforms
        self.hidden_features = tuple(hidden_features)
        self.num_epochs = num_epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.temperature = temperature
        self.refit = refit

    @abstractmethod
    def build(self, num_features: int, num_context: int) -> nn.Module:
        """Return a flow: called with a context of shape (..., num_context) or None, it is a distribution over R^D."""

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Create the flow for the model's latents."""
        super().setup(model, split)
        labels = None if self._draw_labels is None else self._draw_labels(1)
        self.num_classes = 0 if labels is None else int(model.num_classes)
        num_features = math.prod(self.latent_shape)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))
        self.flow = self.build(num_features, self.num_classes)
        self.to(self.like.device)
        return self

    @torch.enable_grad()
    def fit(self, latents: Draws, progress: ProgressFunction | None = None) -> Self:
        """Maximise the likelihood of the latents.

        Raises:
            ValueError: if there are fewer than 20 latents, or labels are missing.
            FloatingPointError: if the likelihood is not finite.
        """
        if len(latents) < 20:
            raise ValueError(f"expected at least 20 latents to fit sampler={self.name} to, got {len(latents)}")
        z = latents.z.detach().flatten(1).float()
        context = self._context(latents.y)
        order = collective.permutation(len(z), z.device)
        held_out, kept = order.tensor_split([max(1, int(HELD_OUT * len(z)))])
        self.mean.copy_(z[kept].mean(0))
        self.scale.copy_(z[kept].std(0).clamp(min=1e-6))
        u = (z - self.mean) / self.scale
        optimizer = torch.optim.Adam(self.flow.parameters(), self.learning_rate)
        best, best_weights, since = math.inf, copy.deepcopy(self.flow.state_dict()), 0
        for epoch in range(self.num_epochs):
            self.flow.train()
            for rows in kept[collective.permutation(len(kept), z.device)].split(BATCH_SIZE):
                loss = self._nll(u, context, rows)
                if not loss.isfinite():
                    raise FloatingPointError(f"epoch {epoch + 1}: the flow's likelihood is not finite")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            self.flow.eval()
            with torch.no_grad():
                judged = float(self._nll(u, context, held_out))
            since += 1
            if judged < best:
                best, best_weights, since = judged, copy.deepcopy(self.flow.state_dict()), 0
            if progress is not None:
                progress(epoch + 1, self.num_epochs)
            if since >= self.patience:
                break
        self.flow.load_state_dict(best_weights)
        self.is_fitted.fill_(True)
        return self

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw noise from the base, and send it through the flow."""
        y = self.labels(num_samples, y)
        distribution = self._distribution(self._context(y))
        noise = collective.standard_normal((num_samples, len(self.mean)), self.mean)
        u = distribution.transform.inv(self.temperature * noise)
        z = self.mean + self.scale * u
        return Draws(z.to(self.like).view(num_samples, *self.latent_shape), y)

    @torch.no_grad()
    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-density of latents of shape (N, *latent_shape) at T = 1, nats, shape (N,)."""
        u = (z.flatten(1).float() - self.mean) / self.scale
        return self._distribution(self._context(y)).log_prob(u) - self.scale.log().sum()

    def _nll(self, u: Tensor, context: Tensor | None, rows: Tensor) -> Tensor:
        return -self.flow(None if context is None else context[rows]).log_prob(u[rows]).mean()

    def _distribution(self, context: Tensor | None) -> Any:
        if not self.is_fitted:
            raise ValueError(f"the flow of sampler={self.name} is not fitted; call fit first")
        return self.flow(context)

    def _context(self, y: Tensor | None) -> Tensor | None:
        """Labels as one-hot vectors, or None for a model without labels."""
        if not self.num_classes:
            return None
        if y is None:
            raise ValueError(f"sampler={self.name}: the model is conditional, and the latents have no labels")
        if y.ndim == 2:
            return y.to(self.mean)
        return nn.functional.one_hot(y.long(), self.num_classes).to(self.mean)
