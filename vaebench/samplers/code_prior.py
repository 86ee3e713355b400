"""The base of the samplers that learn a distribution over codes: the distribution as a model, and drawing in turn."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self, Unpack

from vaebench.core import Batch, Draws, Loss, Model, ProgressFunction, Split
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.samplers.fitting import FitSettings, TrainedSampler

CHUNK = 500  # grids scored at once
_log = logging.getLogger(__name__)


class CodePriorSettings(FitSettings, total=False):
    """What a sampler hands on to `CodePriorSampler`."""

    num_classes: int | None


Cache = dict[int, tuple[Tensor, Tensor]]
"""What a draw keeps of the positions so far, by block; empty before the first."""


class CausalCodes(Model):
    """An autoregressive distribution over sequences of L codes out of K, one for each label where there are any."""

    def forward(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits of each code given those before it: (N, L) integers, labels (N,) -> (N, L, K)."""
        raise NotImplementedError

    def next_logits(self, codes: Tensor, position: int, y: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Return the logits of one position, shape (N, K).

        Args:
            codes: Shape (N, L); what stands at the position and after it is not read.
            position: From 0 to L - 1.
            y: Labels, shape (N,).
            cache: For a call at every position in turn: what is kept from one to the next. None computes all anew.
        """
        raise NotImplementedError

    def nll(self, codes: Tensor, y: Tensor | None = None) -> Tensor:
        """Return -log p of sequences of codes (N, L) with labels (N,), nats, shape (N,)."""
        return F.cross_entropy(self(codes, y).transpose(1, 2), codes, reduction="none").sum(1)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative log-likelihood; nats per sequence."""
        return Loss.mean(self.nll(batch.x.long(), batch.y))


class CodePriorSampler(TrainedSampler):
    r"""A distribution over the codes of encoded data, fitted by maximum likelihood.

    .. math:: p(k) = \prod_i p(k_i | k_{<i})

    Codes are read row by row, and where a position has several, these one after the other: those that the quantiser
    gives to the latent, which need not be those whose sum it is. -log p(k) is the rate of a discrete latent; with the
    distortion it bounds -log p(x).

    With `num_classes` it is a distribution for each class, p(k|y), and p(k) is their mixture in the proportions of the
    training labels.

    Args:
        num_epochs: Most passes over the grids, >= 1.
        patience: Epochs without improvement before the fit ends, >= 1.
        num_classes: Number of classes of the data set, >= 1; None for one distribution over all examples.
        temperature: T > 0, divides the logits; 1 is what was fitted.
        **settings: Those of `TrainedSampler`.
    """

    needs = frozenset({"posterior", "codes"})
    excludes = frozenset()
    density: CausalCodes
    label_frequencies: Tensor

    def __init__(  # type: ignore[misc]
        self,
        *,
        num_epochs: int = 100,
        patience: int = 10,
        num_classes: int | None = None,
        temperature: float = 1.0,
        **settings: Unpack[CodePriorSettings],
    ) -> None:
        check_range("num_classes", num_classes, at_least=1, whole=True, or_null=True)
        check_range("temperature", temperature, above=0, below=math.inf)
        super().__init__(num_epochs=num_epochs, patience=patience, temperature=temperature, **settings)
        self.num_classes = num_classes

    @abstractmethod
    def distribution(self, num_codes: int, codes_shape: tuple[int, ...]) -> CausalCodes:
        """Return a new distribution over codes of shape (h, w), or (Q, h, w)."""

    def setup(self, model: Any = None, split: Split | None = None) -> Self:
        """Create the distribution for the model's codes."""
        self.register_buffer("label_frequencies", torch.zeros(self.num_classes or 1))
        return super().setup(model, split)

    def build(self, model: Any) -> CausalCodes:
        """Return the distribution over the model's codes."""
        self._model = (model,)  # in a tuple, which hides its weights from the sampler
        self.codes_shape = tuple(model.codes_shape)
        return self.distribution(model.quantizer.num_codes, self.codes_shape)

    def examples(self, latents: Draws) -> Batch:
        """Return the latents' codes, (N, L), with labels where there are classes."""
        codes = torch.cat([self.codes_of(z) for z in latents.z.split(CHUNK)])
        return Batch(codes, self._labels_to_learn(latents.y, codes))

    def fit(self, latents: Draws, progress: ProgressFunction | None = None, folder: Path | None = None) -> Self:
        """Maximise the likelihood of the latents' codes; see `TrainedSampler.fit`."""
        super().fit(latents, progress, folder)
        uniform = math.prod(self.codes_shape) * math.log(self._model[0].quantizer.num_codes)
        _log.info("sampler=%s: a uniform distribution over codes has %.4f nats", self.name, uniform)
        return self

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, *, progress: ProgressFunction | None = None) -> Draws:
        """Draw the codes one after the other, for all samples together; see `BaseSampler.sample`."""
        y = self.labels(num_samples, y)
        self.check_fitted()
        y = None if y is None else self._checked(y)
        cache: Cache = {}
        codes = torch.zeros(num_samples, math.prod(self.codes_shape), dtype=torch.long, device=self.like.device)
        for position in range(codes.shape[1]):
            logits = self.density.next_logits(codes, position, y, cache) / self.temperature
            # The Gumbel trick: the argmax of perturbed logits is a draw.
            u = collective.uniform(tuple(logits.shape), logits).clamp(1e-20, 1 - 1e-7)
            codes[:, position] = (logits - (-u.log()).log()).argmax(1)
            if progress is not None:
                progress(position + 1, codes.shape[1])
        return Draws(self.latents_of(codes), y)

    @torch.no_grad()
    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-probability of latents of shape (N, *latent_shape) at T = 1, nats, shape (N,).

        Args:
            z: Latents.
            y: Labels, shape (N,), for log p(k|y); None for log p(k), the classes summed out where there are any.
        """
        self.check_fitted()
        if y is not None or self.num_classes is None:
            labels = [None] * len(z.split(CHUNK)) if y is None else self._checked(y).split(CHUNK)
            return torch.cat(
                [
                    -self.density.nll(self.codes_of(part), some)
                    for part, some in zip(z.split(CHUNK), labels, strict=True)
                ]
            )
        each = torch.stack([self.log_prob(z, z.new_full((len(z),), k).long()) for k in range(self.num_classes)])
        return (each + self.label_frequencies.log().to(each)[:, None]).logsumexp(0)

    @torch.no_grad()
    def codes_of(self, z: Tensor) -> Tensor:
        """Return the codes of latents (N, *latent_shape) in the order in which they are read, shape (N, L)."""
        codes = self._model[0].quantizer(z).codes
        return codes.reshape(len(codes), -1, *self.codes_shape[-2:]).movedim(1, -1).flatten(1)

    def latents_of(self, codes: Tensor) -> Tensor:
        """Return the latents (N, *latent_shape) of codes in the order in which they are read, (N, L)."""
        grids = codes.reshape(len(codes), *self.codes_shape[-2:], -1).movedim(-1, 1)
        return self._model[0].embed_codes(grids.reshape(len(codes), *self.codes_shape)).to(self.like)

    def labels(self, num_samples: int, y: Tensor | None = None) -> Tensor | None:
        """Check labels, or draw them as often as training saw them; see `BaseSampler.labels`."""
        y = super().labels(num_samples, y)
        if self.num_classes is None:
            if y is not None:
                raise ValueError(
                    f"num_classes must be given for samples with labels: sampler={self.name} was fitted without classes"
                )
            return None
        if y is None:
            self.check_fitted()
            u = collective.uniform((num_samples,), like=self.label_frequencies)
            shares = self.label_frequencies.double().cumsum(0)
            y = torch.searchsorted(shares / shares[-1], u.double(), right=True).clamp_max(self.num_classes - 1)
        return y

    def _labels_to_learn(self, y: Tensor | None, codes: Tensor) -> Tensor | None:
        """Labels of the codes, counted; None where there are no classes."""
        if self.num_classes is None:
            return None
        if y is None:
            raise ValueError(
                f"num_classes: the data have no labels for sampler={self.name} to learn from; leave it out"
            )
        labels = self._checked(y).to(codes.device)
        self.label_frequencies.copy_(torch.bincount(labels, minlength=self.num_classes) / len(labels))
        return labels

    def _checked(self, y: Tensor) -> Tensor:
        """Labels as int64, shape (N,).

        Raises:
            ValueError: if they are not integers from 0 to num_classes - 1.
        """
        assert self.num_classes is not None
        is_whole = not y.dtype.is_floating_point and y.dtype != torch.bool
        if y.ndim != 1 or not is_whole or (len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.num_classes):
            raise ValueError(f"num_classes is {self.num_classes}: expected labels from 0 to {self.num_classes - 1}")
        return y.long().to(self.like.device)
