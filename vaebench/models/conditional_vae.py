r"""The conditional variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from typing_extensions import Unpack

from vaebench.core import Batch, Loss, Split
from vaebench.distributions.priors import Prior, PriorModule, StandardNormalPrior
from vaebench.hardware import collective
from vaebench.messages import check_range
from vaebench.models.base import Components, LatentVariableModel
from vaebench.networks import MLP, Network
from vaebench.networks.conditioning import Condition
from vaebench.networks.labels import LabelEmbedding
from vaebench.networks.network import Encoder


class ConditionalVAE(LatentVariableModel):
    r"""Conditional VAE (Sohn, Lee and Yan, 2015).

    A VAE whose three distributions know the label y of each example:

    .. math:: L = -E_{q(z|x,y)}[\log p(x|z,y)] + KL(q(z|x,y) \| p(z|y))      (eq. 4)

    p(z|y) is N(0, I), so that style does not depend on the class, or with `model/prior=conditional_gaussian` a learned
    Gaussian for each label, as in the paper. A label is a vector: a row of a learned table for a class, the same
    table's mixture for a one-hot or soft label, a linear map of a label vector. It enters encoder and decoder by
    `condition_type`.

    With `label_dropout` above 0 a share of the training labels is replaced by a learned null label, which then also
    stands for "no label": `encode`, `decode` and the densities take y=None. Without it they refuse. `sample` without
    labels draws them as often as training saw them.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee and Yan, 2015),
        https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html;
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298;
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), https://arxiv.org/abs/2207.12598, for the dropout
    Deviations:
        Labels are embedded; the paper's are one-hot vectors, which `embed_dim` = number of classes can represent.
    Args: those of `LatentVariableModel`, and
        num_classes: Number of classes; the data set gives it at the command line.
        condition_dim: Length of a label vector; the same number where a vector is one-hot.
        condition_type: concat, film or add, see `networks.conditioning`.
        embed_dim: Length of the vector that stands for a label, >= 1; 64, ours.
        label_dropout: Probability that training leaves a label out, in [0, 1).
        encoder: As in `LatentVariableModel`, called with the embedded label; a `ConditionalEncoder`, with the label.
        decoder: Likewise.
    """

    embedding: LabelEmbedding | None

    label_frequencies: Tensor

    def __init__(  # type: ignore[misc]  # names two components, to tell them the label
        self,
        shape: Sequence[int] | None = None,
        *,
        num_classes: int | None = None,
        condition_dim: int | None = None,
        condition_type: Condition = "concat",
        embed_dim: int = 64,
        label_dropout: float = 0.0,
        network: Network = MLP(),  # noqa: B008 - a frozen description
        prior: Prior = StandardNormalPrior(),  # noqa: B008
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        **components: Unpack[Components],
    ) -> None:
        wrapped: dict[str, Any] = {
            name: module
            for name, module in (("encoder", encoder), ("decoder", decoder))
            if getattr(module, "takes_labels", False)
        }
        num_labels = num_classes if condition_dim is None else condition_dim
        if num_labels is None and wrapped:
            num_labels = next(module.num_classes - (label_dropout > 0) for module in wrapped.values())
        if num_labels is None:
            raise ValueError("num_classes must be given, or condition_dim for label vectors; got neither")
        if num_classes not in (None, num_labels):
            raise ValueError(f"condition_dim must equal num_classes, which is {num_classes}; got {condition_dim}")
        check_range("num_classes", num_labels, at_least=1, whole=True)
        check_range("embed_dim", embed_dim, at_least=1, whole=True)
        check_range("label_dropout", label_dropout, at_least=0, below=1)
        for name, module in wrapped.items():
            _check_wrapper(name, module, num_labels, label_dropout > 0, condition_type)
        told = _Told(network, prior, embed_dim, condition_type)
        super().__init__(shape, network=told, prior=told, encoder=encoder, decoder=decoder, **components)
        self.num_classes = num_labels
        self.label_dropout = label_dropout
        self.has_null_label = label_dropout > 0
        is_needed = len(wrapped) < 2 or self._prior_takes_context
        self.embedding = LabelEmbedding(num_labels + self.has_null_label, embed_dim) if is_needed else None
        self.register_buffer("label_frequencies", torch.zeros(num_labels))

    # The three distributions

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Return q(z|x, y) for x of shape (B, *shape) and its labels: a distribution over (B, D)."""
        return self.posterior_head(self.encoder(x, self._told_to(self.encoder, y, len(x))))

    def likelihood(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z, y) for z of shape (..., B, D) and labels of B examples: over (..., B, *shape)."""
        told = self._told_to(self.decoder, y, z.shape[-2])
        told = told.expand(*z.shape[:-2], *told.shape).flatten(0, z.ndim - 2)
        params = self.decoder(z.flatten(0, -2), told)
        return self.likelihood_head(params.unflatten(0, z.shape[:-1]), len(self.shape))

    def prior(self, y: Tensor | None = None) -> Any:
        """Return p(z|y): over (B, D) where it depends on the labels, otherwise with event shape (D,)."""
        return self.prior_head(self.context(y, 1)) if self._prior_takes_context else self.prior_head()

    def context(self, y: Tensor | None, num: int) -> Tensor:
        """Return the vectors that stand for labels, shape (B, embed_dim).

        Args:
            y: Integers of any type, shape (B,), or vectors, shape (B, num_classes); None for no label.
            num: B, where y is None.

        Raises:
            ValueError: if the labels are missing without `label_dropout`, out of range, or of another shape.
        """
        assert self.embedding is not None
        return self.embedding(self._with_null(y, num))

    # Training

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return the negative ELBO given the labels; nats per example.

        Raises:
            ValueError: if the batch has no labels.
        """
        if batch.y is None:
            raise ValueError("ConditionalVAE learns from labels, and the data have none")
        distortion, rate = self.distortion_and_rate(batch.x, self._with_dropout(batch.y, batch.x))
        return Loss.mean(distortion + rate, distortion=distortion, rate=rate)

    def before_training(self, train: Split) -> None:
        """Count how often each label occurs, for samples without a label."""
        counts = torch.zeros(self.num_classes, dtype=torch.float64)
        for rows in torch.arange(len(train)).split(1000):
            y = train.batch(rows).y
            if y is None:
                raise ValueError("ConditionalVAE learns from labels, and the data have none")
            weights = y.double().cpu() if y.ndim == 2 else F.one_hot(y.long().cpu(), self.num_classes).double()
            is_a_distribution = (weights >= 0).all() and torch.allclose(weights.sum(1), torch.ones(len(rows)).double())
            counts += weights.sum(0) if is_a_distribution else float("nan")
        self.label_frequencies.copy_(counts / len(train))

    def draw_labels(self, num_samples: int) -> Tensor:
        """Draw labels as often as training saw them, int64, shape (num_samples,).

        Raises:
            ValueError: before training, or where training's labels were vectors, but not class weights.
        """
        frequencies = self.label_frequencies.double()
        if not frequencies.sum() > 0:
            raise ValueError("ConditionalVAE knows no frequencies of labels before training on classes: give y=")
        u = collective.uniform((num_samples,), like=frequencies) * frequencies.sum()
        return torch.searchsorted(frequencies.cumsum(0), u, right=True).clamp_max(self.num_classes - 1)

    def log_weights_without_labels(self, x: Tensor, num_samples: int) -> Tensor:
        r"""Return log-weights whose mean weight is p(x), the label summed out; nats, shape (num_samples, B).

        .. math:: \log \sum_y p(y) \frac{p(x, z_y | y)}{q(z_y | x, y)}, \quad z_y \sim q(z | x, y)

        with p(y) the frequencies of training: comparable with a model without labels.
        """
        num_classes, num = self.num_classes, len(x)
        y = torch.arange(num_classes, device=x.device).repeat_interleave(num)
        log_w = self.log_weights(x.repeat(num_classes, *(1,) * len(self.shape)), num_samples, y)
        log_p = self.label_frequencies.log().to(log_w.dtype)[:, None]
        return (log_w.unflatten(1, (num_classes, num)) + log_p).logsumexp(1)

    def _with_dropout(self, y: Tensor, x: Tensor) -> Tensor:
        """Replace a share of the labels by the null label, in training."""
        if not self.training or self.label_dropout == 0:
            return y
        is_dropped = collective.uniform((len(y),), like=x) < self.label_dropout
        if y.ndim == 1:
            return y.long().masked_fill(is_dropped, self.num_classes)
        null = F.one_hot(y.new_full((len(y),), self.num_classes, dtype=torch.long), self.num_classes + 1)
        return torch.where(is_dropped[:, None], null.to(y.dtype), F.pad(y, (0, 1)))

    def _with_null(self, y: Tensor | None, num: int) -> Tensor:
        """Labels in which the null label stands for none, and has a place in a vector."""
        if y is None:
            if not self.has_null_label:
                raise ValueError(
                    "ConditionalVAE needs labels: give y=, or train with label_dropout above 0 to leave them out"
                )
            return torch.full((num,), self.num_classes, device=self.label_frequencies.device)
        return F.pad(y, (0, 1)) if self.has_null_label and y.ndim == 2 and y.shape[1] == self.num_classes else y

    def _told_to(self, network: nn.Module, y: Tensor | None, num: int) -> Tensor:
        """Return the condition of a network: vectors, or the labels if it embeds them itself."""
        return self._with_null(y, num) if getattr(network, "takes_labels", False) else self.context(y, num)

    @property
    def _prior_takes_context(self) -> bool:
        return getattr(self.prior_head, "context_dim", 0) > 0

    def _any_label(self) -> Tensor:
        return torch.zeros(1, dtype=torch.long, device=self.label_frequencies.device)


def _check_wrapper(name: str, module: Any, num_labels: int, has_null: bool, condition_type: str) -> None:
    """Refuse a conditional network of another number of labels, or with another condition."""
    kind = type(module).__name__
    if module.num_classes != num_labels + has_null:
        null = ", one of them for no label" if has_null else ""
        raise ValueError(
            f"{name}: {kind} must have num_classes={num_labels + has_null}{null}; got {module.num_classes}"
        )
    if condition_type not in ("concat", module.condition):
        raise ValueError(
            f"condition_type is what {kind}(condition=…) says where that is given; leave it out, got {condition_type}"
        )


@dataclass(frozen=True)
class _Told:
    """Descriptions of networks and prior that are told the label."""

    network: Network
    description: Prior
    context_dim: int
    condition_type: Condition

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        return self.network.encoder(shape, self.context_dim, self.condition_type)

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> nn.Module:
        return self.network.decoder(latent_dim, shape, self.context_dim, self.condition_type)

    def build(self, latent_dim: int, *, context_dim: int = 0) -> PriorModule:
        return self.description.build(latent_dim, context_dim=self.context_dim)
