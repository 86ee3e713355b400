"""Several codebooks in turn, each for what the ones before it left."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vaebench.distributions.quantizers.quantizer import GRADIENTS, Quantized, QuantizerModule
from vaebench.distributions.quantizers.vq import LearnedCodebook, VectorQuantizer
from vaebench.messages import check_range


@dataclass(frozen=True)
class ResidualVQ(VectorQuantizer):
    r"""The sum of Q codes, each the nearest to the residual of those before it.

    .. math:: r_1 = z, \quad r_{i+1} = r_i - e^{(i)}_{k(r_i)}, \quad \hat z = \sum_i e^{(i)}_{k(r_i)}

    References:
        SoundStream (Zeghidour et al., 2021), https://arxiv.org/abs/2107.03312 (section III.C, algorithm 1): k-means at
        the start, restarts below 2 uses, quantiser dropout
    Deviations:
        k-means runs on vectors of the training split, before training, not on the first batch. The number of codebooks
        that dropout keeps is drawn for a batch, not for each example.
    Args: those of `VectorQuantizer`, and
        num_quantizers: Q, >= 1.
        quantizer_dropout: Whether training uses the first 1 to Q codebooks only, a number that is drawn for each batch.
    """

    num_embeddings: int = 512
    kmeans_iterations: int = 10
    restart_below: float = 2.0
    num_quantizers: int = 4
    quantizer_dropout: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance == "cosine":
            raise ValueError("distance must be euclidean: residuals have no constant length; got cosine")
        check_range("num_quantizers", self.num_quantizers, at_least=1, whole=True)

    def build(self) -> ResidualCodebooks:  # type: ignore[override]
        """Return new codebooks."""
        return ResidualCodebooks(self)


class ResidualCodebooks(QuantizerModule):
    """Q codebooks."""

    def __init__(self, spec: ResidualVQ) -> None:
        super().__init__()
        self.spec, self.dim, self.num_codes, self.depth = (
            spec,
            spec.embedding_dim,
            spec.num_embeddings,
            spec.num_quantizers,
        )
        self.books = nn.ModuleList(
            LearnedCodebook(replace(spec, gradient="straight_through")) for _ in range(self.depth)
        )

    @property
    def codebooks(self) -> list[LearnedCodebook]:
        """The codebooks in turn."""
        return [book for book in self.books if isinstance(book, LearnedCodebook)]

    def quantize(self, z: Tensor) -> Quantized:
        """Quantise z of shape (B, D, h, w); a codebook that dropout leaves out still names a code."""
        num_used = self.depth
        if self.training and self.spec.quantizer_dropout:
            num_used = int(torch.randint(1, self.depth + 1, ()))
        residual, codes = z, []
        total = torch.zeros_like(z)
        losses: dict[str, Tensor] = {}
        for number, book in enumerate(self.codebooks):
            quantized = book(residual)
            code = book.embed(quantized.codes)
            codes.append(quantized.codes)
            if number < num_used:
                total = total + code
                for name, loss in quantized.losses.items():
                    losses[name] = losses[name] + loss if name in losses else loss
            residual = residual - code.detach()
        return Quantized(GRADIENTS[self.spec.gradient](z, total), self._joined(codes), losses)

    def embed(self, codes: Tensor) -> Tensor:
        """Return codes (B, Q, h, w) as vectors (B, D, h, w)."""
        books = codes.unbind(1) if self.depth > 1 else [codes]
        return torch.stack([book.embed(k) for book, k in zip(self.codebooks, books, strict=True)]).sum(0)

    @torch.no_grad()
    def start(self, z: Tensor) -> None:
        """Start each codebook from the residuals of those before it."""
        for book in self.codebooks:
            book.start(z)
            z = z - book.embed(book(z).codes)

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor | None = None) -> None:
        """Update each codebook by the residuals of those before it."""
        known = [None] * self.depth if codes is None else codes.reshape(len(z), self.depth, *z.shape[2:]).unbind(1)
        for book, some in zip(self.codebooks, known, strict=True):
            used = book(z).codes if some is None else some
            left = z - book.embed(used)
            book.update(z, used)
            z = left

    def _joined(self, codes: list[Tensor]) -> Tensor:
        return torch.stack(codes, 1) if self.depth > 1 else codes[0]
