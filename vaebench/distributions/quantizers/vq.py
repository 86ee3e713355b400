"""The vector quantiser of the VQ-VAE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.distributions.quantizers.quantizer import (
    GRADIENTS,
    Gradient,
    Quantized,
    QuantizerModule,
    per_example,
    vectors_of,
)
from vaebench.hardware import collective
from vaebench.messages import NamedArguments, check_range, did_you_mean

Update = Literal["gradient", "ema"]
Distance = Literal["euclidean", "cosine"]
FEW = 0.25  # of the mean use of all codes


@dataclass(frozen=True)
class VectorQuantizer(NamedArguments):
    r"""The nearest of K learned codes.

    .. math:: k(z) = \arg\min_j \|z - e_j\|^2, \qquad
        L = \|sg[z] - e_k\|^2 + \beta \|z - sg[e_k]\|^2      (eq. 3)

    summed over positions and channels, as log p(x|z) is over pixels: so beta means the same for every size. With
    `update: ema` the first term is gone; the codes follow averages of the vectors that they stand for (appendix A.1):

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma) n_k, \quad
        m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{i \to k} z_i, \quad e_k = m_k / \tilde N_k

    with :math:`\tilde N_k = (N_k + \epsilon) / (\sum_j N_j + K \epsilon) \sum_j N_j`; counts and sums are those of all
    processes.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937; sizes
        and beta from its section 4.1 and published code; restarts below one use from Jukebox (Dhariwal et al., 2020),
        https://arxiv.org/abs/2005.00341 (section 3, on restarts); k-means from SoundStream (Zeghidour et al., 2021),
        https://arxiv.org/abs/2107.03312; cosine from Yu et al. (2022), https://arxiv.org/abs/2110.04627
    Deviations:
        Averages start at one use of each code, so that a code that is never used stays where it is. No code restarts
        that has a quarter of the mean use: where a batch holds hardly more vectors than there are codes, the published
        threshold restarts most of them at every step, and no codebook settles (residual codes then diverge).
    Args:
        num_embeddings: K, >= 2.
        embedding_dim: Length of a code, >= 1.
        commitment_cost: beta, >= 0.
        update: How the codes learn: `gradient` of the first term, or `ema`.
        decay: gamma, in [0, 1), of the averages; the counts are averaged for `gradient` too.
        epsilon: Smoothing of the counts, > 0.
        distance: `euclidean`, or `cosine`, between vectors and codes that are scaled to length one.
        gradient: How it passes: `straight_through`, or `rotation`.
        kmeans_iterations: Iterations of k-means on vectors of the training split, from which the codes start; 0 for
            random codes.
        restart_below: A code with fewer average uses in a batch, and fewer than a quarter of the mean of all codes,
            restarts at a random vector of the batch; 0 for never.
    """

    num_embeddings: int = 512
    embedding_dim: int = 64
    commitment_cost: float = 0.25
    update: Update = "ema"
    decay: float = 0.99
    epsilon: float = 1e-5
    distance: Distance = "euclidean"
    gradient: Gradient = "straight_through"
    kmeans_iterations: int = 0
    restart_below: float = 1.0

    def __post_init__(self) -> None:
        check_range("num_embeddings", self.num_embeddings, at_least=2, whole=True)
        check_range("embedding_dim", self.embedding_dim, at_least=1, whole=True)
        check_range("commitment_cost", self.commitment_cost, at_least=0, below=math.inf)
        check_range("decay", self.decay, at_least=0, below=1)
        check_range("epsilon", self.epsilon, above=0, below=math.inf)
        check_range("kmeans_iterations", self.kmeans_iterations, at_least=0, whole=True)
        check_range("restart_below", self.restart_below, at_least=0, below=math.inf)
        for name, kind in (("update", Update), ("distance", Distance), ("gradient", Gradient)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ValueError(f"{name}: unknown name '{value}'{did_you_mean(str(value), get_args(kind))}")

    @property
    def dim(self) -> int:
        """Length of a code's vector."""
        return self.embedding_dim

    def build(self) -> LearnedCodebook:
        """Return a new codebook."""
        return LearnedCodebook(self)


class LearnedCodebook(QuantizerModule):
    """K codes that learn.

    Attributes:
        embedding: The codes, shape (K, D): a parameter with `update: gradient`, else a buffer.
        counts: N_k, average uses in a batch, shape (K,).
        sums: m_k, average sums of vectors, shape (K, D).
    """

    embedding: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, spec: VectorQuantizer) -> None:
        super().__init__()
        self.spec, self.dim, self.num_codes = spec, spec.embedding_dim, spec.num_embeddings
        embedding = torch.empty(self.num_codes, self.dim).uniform_(-1 / self.num_codes, 1 / self.num_codes)
        if spec.update == "gradient":
            self.embedding = nn.Parameter(embedding)
        else:
            self.register_buffer("embedding", embedding)
        self.register_buffer("counts", torch.ones(self.num_codes))
        self.register_buffer("sums", embedding.detach().clone())

    def quantize(self, z: Tensor) -> Quantized:
        """Quantise z of shape (B, D, h, w), of length one with `cosine`."""
        z = self._scaled(z, 1)
        codes = self.nearest(vectors_of(z)).reshape(z.shape[0], *z.shape[2:])
        code = self.embed(codes).to(z.dtype)
        losses = {"commitment": self.spec.commitment_cost * per_example((z - code.detach()).square())}
        if self.spec.update == "gradient":
            losses["codebook"] = per_example((z.detach() - code).square())
        return Quantized(GRADIENTS[self.spec.gradient](z, code), codes, losses)

    def embed(self, codes: Tensor) -> Tensor:
        """Return codes (B, h, w) as vectors (B, D, h, w)."""
        return self._scaled(F.embedding(codes, self.embedding), -1).movedim(-1, 1)

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the number of the nearest code for vectors (N, D); shape (N,), without a tensor of N x K x D."""
        codes = self._scaled(self.embedding, -1).to(vectors.dtype)
        with torch.autocast(vectors.device.type, enabled=False):  # half precision would choose other codes
            return torch.addmm(codes.square().sum(1), vectors, codes.T, alpha=-2).argmin(1)

    @torch.no_grad()
    def start(self, z: Tensor) -> None:
        """Run k-means on z of shape (B, D, h, w), where it is asked for."""
        if self.spec.kmeans_iterations == 0:
            return
        vectors = vectors_of(self._scaled(z, 1))
        self._place(slice(None), _chosen(vectors, self.num_codes), 1.0)
        for _ in range(self.spec.kmeans_iterations):
            counts, sums = self._statistics(vectors, self.nearest(vectors))
            is_used = counts > 0
            self._place(is_used, sums[is_used] / counts[is_used, None], 1.0)

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor | None = None) -> None:
        """Average counts and sums, set the codes by them with `ema`, and restart codes that are hardly used."""
        z = self._scaled(z, 1)
        vectors = vectors_of(z).to(self.sums.dtype)
        codes = self.nearest(vectors) if codes is None else codes.flatten()
        counts, sums = (collective.total(statistic) for statistic in self._statistics(vectors, codes))
        self.counts.lerp_(counts, 1 - self.spec.decay)
        self.sums.lerp_(sums, 1 - self.spec.decay)
        if self.spec.update == "ema":
            total, epsilon = self.counts.sum(), self.spec.epsilon
            smoothed = (self.counts + epsilon) / (total + self.num_codes * epsilon) * total
            self.embedding.copy_(self.sums / smoothed[:, None])
        is_dead = self.counts < (FEW * self.counts.mean()).clamp(max=self.spec.restart_below)
        if is_dead.any():
            everywhere = vectors_of(collective.gather(z)).to(self.sums.dtype)
            self._place(is_dead, _chosen(everywhere, int(is_dead.sum())), max(1.0, self.spec.restart_below))

    def _statistics(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Uses of each code (K,), and the sums of the vectors (N, D) that use it (K, D)."""
        counts = vectors.new_zeros(self.num_codes).index_add_(0, codes, vectors.new_ones(len(codes)))
        return counts, vectors.new_zeros(self.num_codes, self.dim).index_add_(0, codes, vectors)

    def _place(self, which: Tensor | slice, vectors: Tensor, uses: float) -> None:
        """Put codes at vectors, and their averages with them: else the next update would take the codes back."""
        self.embedding[which] = vectors.to(self.embedding.dtype)
        self.counts[which] = uses
        self.sums[which] = uses * vectors.to(self.sums.dtype)

    def _scaled(self, vectors: Tensor, dim: int) -> Tensor:
        return F.normalize(vectors, dim=dim) if self.spec.distance == "cosine" else vectors


def _chosen(vectors: Tensor, num: int) -> Tensor:
    """Return `num` of the vectors at random, each at most once where they suffice."""
    order = collective.permutation(len(vectors), vectors.device)
    return vectors[order[torch.arange(num, device=vectors.device) % len(vectors)]]
