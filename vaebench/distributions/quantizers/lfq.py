"""Lookup-free quantisation: the sign of each channel is one bit of the code."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaebench.distributions.quantizers.quantizer import Quantized, QuantizerModule, per_example, straight_through
from vaebench.hardware import collective
from vaebench.messages import NamedArguments, check_range

LARGEST = 14  # bits, up to which the distribution over all codes fits in memory


@dataclass(frozen=True)
class LFQ(NamedArguments):
    r"""The code of z is its signs, in {-1, 1}^D.

    .. math:: L = w \big( E[H(q(c|z))] - \gamma H(E[q(c|z)]) \big) + \beta \|z - sg[\hat z]\|^2, \qquad
        q(c|z) \propto \exp(-\tau \|z - c\|^2)      (eqs. 4, 5)

    The first entropy makes each vector sure of its code, the second, of the mean over all vectors of the batch, makes
    all codes be used. Entropies are summed over positions, as log p(x|z) is over pixels.

    References:
        Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (Yu et al., 2024),
        https://arxiv.org/abs/2310.05737 (section 3.1)
    Args:
        num_bits: D, from 1 to 14; there are 2^D codes.
        commitment_cost: beta, >= 0.
        entropy_weight: w, >= 0.
        diversity: gamma, >= 0.
        inverse_temperature: tau, > 0.
    """

    num_bits: int = 10
    commitment_cost: float = 0.25
    entropy_weight: float = 0.1
    diversity: float = 1.0
    inverse_temperature: float = 1.0

    def __post_init__(self) -> None:
        check_range("num_bits", self.num_bits, at_least=1, at_most=LARGEST, whole=True)
        for name in ("commitment_cost", "entropy_weight", "diversity"):
            check_range(name, getattr(self, name), at_least=0, below=math.inf)
        check_range("inverse_temperature", self.inverse_temperature, above=0, below=math.inf)

    @property
    def dim(self) -> int:
        """Length of a code's vector."""
        return self.num_bits

    def build(self) -> SignBits:
        """Return a new quantiser."""
        return SignBits(self)


class SignBits(QuantizerModule):
    """The corners of a cube."""

    corners: Tensor
    couples_batch = True

    def __init__(self, spec: LFQ) -> None:
        super().__init__()
        self.spec, self.dim, self.num_codes = spec, spec.num_bits, 2**spec.num_bits
        bits = torch.arange(self.num_codes)[:, None] >> torch.arange(self.dim) & 1
        self.register_buffer("corners", (2 * bits - 1).float(), persistent=False)

    def quantize(self, z: Tensor) -> Quantized:
        """Quantise z of shape (B, D, h, w)."""
        bits = z > 0
        code = torch.where(bits, 1.0, -1.0).to(z.dtype)
        weights = 2 ** torch.arange(self.dim, device=z.device)
        codes = (bits * weights[None, :, None, None]).sum(1)
        num_positions = z[0, 0].numel()
        certainty, usage = self.entropies(z)
        losses = {
            "commitment": self.spec.commitment_cost * per_example((z - code).square()),
            "entropy": self.spec.entropy_weight * (certainty - self.spec.diversity * num_positions * usage),
        }
        return Quantized(straight_through(z, code), codes, losses)

    def embed(self, codes: Tensor) -> Tensor:
        """Return codes (B, h, w) as corners (B, D, h, w)."""
        return self.corners[codes].movedim(-1, 1)

    def entropies(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return H(q(c|z)) summed over positions, shape (B,), and H of the mean of q over all vectors, a scalar; nats.

        The bits of q are independent given z, so that the first needs no sum over codes.
        """
        logits = 4 * self.spec.inverse_temperature * z  # for each bit: -tau (z - 1)^2 + tau (z + 1)^2
        certainty = per_example(F.softplus(logits) - logits * torch.sigmoid(logits))
        half = (logits / 2).flatten(2).transpose(1, 2)  # (B, h w, D); log sigma(c l) = c l / 2 - log(2 cosh(l / 2))
        log_q = half @ self.corners.to(z.dtype).T - (F.softplus(2 * half) - half).sum(-1, keepdim=True)
        mean = collective.gather(log_q.exp().mean(1)).mean(0)
        # a mean that underflows has an infinite slope, and no part in the sum
        return certainty, -(mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
