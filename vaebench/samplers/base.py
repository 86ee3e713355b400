"""The base of the samplers: `setup` for a trained model, `fit` where it learns from data, then `sample`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from vaebench.core import Draws, ProgressFunction, Split
from vaebench.energies.base import BaseEnergyFunction
from vaebench.energies.target import why_not
from vaebench.mcmc.diagnostics import Diagnostics
from vaebench.messages import NamedArguments, check_range


class BaseSampler(NamedArguments, nn.Module, ABC):
    """Draws latents; encoding, decoding, grids and files are written once, elsewhere.

    What `fit` learns is a parameter or a buffer, created by `setup`, so that `state_dict` holds it and a fitted sampler
    can be stored and used again. A sampler may train: callers leave gradients on.

    A sampler of an energy, without a model, hands that on to the constructor.

    Args:
        energy_function: The energy that is drawn from; None for a sampler of a trained model.
        device: Where the energy is evaluated; None leaves it where it is.
        dtype: Its type; None leaves it as it is.

    Attributes:
        learns: Whether `fit` must be called, with latents of the training split.
        needs_model: Whether `setup` needs a trained model.
        needs: Capabilities that this model must have.
        excludes: Capabilities that it must not have.
        refit: Whether to fit again even if a fitted sampler is stored.
        report: How well Markov chains converged, after `sample`; None for samplers without chains.
        latent_shape: Shape of one latent, after `setup` for a model; () before.
        num_labels: Classes of a model with labels, after `setup`; 0 for one without.
        like: An empty tensor with the type and the place of the latents, after `setup`.
    """

    learns: ClassVar[bool] = False
    needs_model: bool = True
    needs: frozenset[str] = frozenset()
    excludes: frozenset[str] = frozenset()
    refit: bool = False
    report: Diagnostics | None = None
    like: Tensor
    latent_shape: tuple[int, ...] = ()
    num_labels: int = 0
    _draw_labels: Callable[[int], Tensor | None] | None = None

    def __init__(
        self,
        energy_function: BaseEnergyFunction | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if energy_function is not None:
            if not isinstance(energy_function, BaseEnergyFunction):
                raise ValueError(
                    f"expected an energy derived from BaseEnergyFunction, got a {type(energy_function).__name__}"
                )
            self.energy_function, self.needs_model = energy_function, False
            tensors = (*energy_function.parameters(), *energy_function.buffers())
            like = next((tensor.new_empty(0) for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
            self.register_buffer("like", like, persistent=False)
            self.to(device=device, dtype=dtype)

    @property
    def name(self) -> str:
        """The name in the configuration, which is the module's."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def why_not(self, model: Any) -> str | None:
        """Say in one sentence why this sampler does not serve `model`, or None where it does."""
        reason = why_not(f"sampler={self.name}", self.needs, model, self.excludes)
        if reason is not None or (clause := self.too_large(math.prod(model.latent_shape))) is None:
            return reason
        return f"sampler={self.name} does not serve {type(model).__name__}: {clause}"

    def caution(self, model: Any) -> str | None:
        """Say in one sentence why drawing for `model` takes long, and what does not, or None where it is quick."""
        clause = self.too_slow(math.prod(model.latent_shape))
        return None if clause is None else f"sampler={self.name} {clause}"

    def too_large(self, num_dims: int) -> str | None:
        """Say why latents of so many numbers are out of reach, or None where they are not; a subclass may."""
        return None

    def too_slow(self, num_dims: int) -> str | None:
        """Say what takes long with latents of so many numbers, as a clause after the name, or None."""
        return None

    def check(self, model: Any) -> None:
        """Refuse a model that this sampler does not serve.

        Raises:
            ValueError: why it does not, or that there is none.
        """
        if model is None:
            if self.needs_model:
                raise ValueError(f"sampler={self.name} draws from a trained model, got none; call setup(model)")
            return
        reason = self.why_not(model)
        if reason is not None:
            raise ValueError(reason)

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Take from a trained model, in eval mode, what drawing needs, and create what `fit` will fill.

        A subclass extends this; the base checks the model, and notes the shape, type and device of its latents.

        Args:
            model: The model; None where `needs_model` is false.
            split: Its training split, for targets that are built from data.

        Raises:
            ValueError: if the sampler does not serve the model.
        """
        self.check(model)
        if model is not None:
            self.latent_shape = tuple(model.latent_shape)
            self.register_buffer("like", next(model.parameters()).detach().new_empty(0), persistent=False)
            self._draw_labels = getattr(model, "draw_labels", None)
            labels = None if self._draw_labels is None else self._draw_labels(1)
            self.num_labels = 0 if labels is None else int(model.num_classes)
        return self

    @property
    def most_rows(self) -> Mapping[str, int]:
        """Of each buffer to which `fit` gives as many rows as the data ask for, how many these may be."""
        return {}

    def fit(self, latents: Draws, progress: ProgressFunction | None = None, folder: Path | None = None) -> Self:
        """Learn from latents of the training split; nothing to do for a sampler that does not learn.

        Args:
            latents: One draw from the posterior of each training example, with its label where there is one.
            progress: Called with what is done and the total.
            folder: Where a long fit keeps what it needs to go on after an interruption; None keeps nothing.
        """
        return self

    @abstractmethod
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw latents with torch's global generator, on the model's device and in its dtype.

        Args:
            num_samples: N, >= 1.
            y: Labels, shape (N,); drawn as often as training saw them where None.
            progress: Called with what is done and the total.

        Returns:
            z of shape (N, *latent_shape), and the labels of a model that has them.
        """

    def diagnostics(self) -> dict[str, Any] | None:
        """The report in plain values, or None where there are no chains."""
        return None if self.report is None else self.report.as_dict()

    def labels(self, num_samples: int, y: Tensor | None = None) -> Tensor | None:
        """Check the number of samples and their labels, and draw labels where the model has them and none are given.

        Returns:
            Labels, shape (num_samples,), or None for a model without labels.

        Raises:
            ValueError: if the number is below 1, or there is not one label for each sample.
        """
        check_range("num_samples", num_samples, at_least=1, whole=True)
        if y is not None and len(y) != num_samples:
            raise ValueError(f"expected one label for each of {num_samples} samples, got {len(y)}")
        return self._draw_labels(num_samples) if y is None and self._draw_labels is not None else y

    def context(self, y: Tensor | None) -> Tensor | None:
        """Labels as one-hot vectors, shape (N, num_classes), or None for a model without labels.

        Raises:
            ValueError: if the model has labels and none are given.
        """
        if not self.num_labels:
            return None
        if y is None:
            raise ValueError(f"sampler={self.name}: the model is conditional, and the latents have no labels")
        weights = y if y.ndim == 2 else nn.functional.one_hot(y.long(), self.num_labels)
        return weights.to(self.like.device, torch.float32)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in self.most_rows:  # as many rows as are loaded
            if (loaded := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_empty(loaded.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call]
