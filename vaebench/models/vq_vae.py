r"""The vector-quantised variational autoencoder, and its relatives by another quantiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vaebench.core import Batch, Loss, Split, at_least_float32
from vaebench.distributions.codes import CodeGrid, CodesHead, QuantizedPosterior, UniformCodesHead
from vaebench.distributions.likelihoods import Likelihood, LikelihoodName
from vaebench.distributions.quantizers.quantizer import Quantizer, QuantizerModule, perplexity
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.hardware import collective
from vaebench.models.aliases import also_takes, likelihood_of, quantizer_of, weight_of_one
from vaebench.models.autoencoder import Outputs
from vaebench.models.base import LatentVariableModel
from vaebench.networks import Conv
from vaebench.networks.conditioning import Condition
from vaebench.networks.network import Encoder, GridEncoder, GridNetwork
from vaebench.networks.own import OwnGridDecoder, OwnGridEncoder

NETWORK = Conv(
    channels=(64, 128, 128),
    kernel_size=(4, 4, 3),
    stride=(2, 2, 1),
    hidden_dim=0,
    num_blocks=2,
    decoder_channels=(128, 64),
    decoder_kernel_size=4,
    decoder_stride=2,
)
CHUNK = 500  # examples encoded at once, before training
EXAMPLES = 10_000  # training examples from which codes are initialised


class VQVAE(LatentVariableModel):
    r"""VQ-VAE (van den Oord et al., 2017): a picture is a grid of codes.

    .. math:: L = -\log p(x|\hat z) + \|sg[z_e] - \hat z\|^2 + \beta \|z_e - sg[\hat z]\|^2      (eq. 3)

    where :math:`\hat z` are the nearest codes to the encoder's outputs :math:`z_e`; the last two terms are the
    quantiser's own, and another quantiser has others. All are sums over pixels, or over positions and channels, of an
    example. The posterior is all probability on one of :math:`K^{hw}` grids, so that under the uniform prior over grids
    the rate is the constant :math:`h w \log K`, in closed form, and distortion plus rate is a bound on -log p(x).
    Draws from that prior do not look like the data: a sampler learns p(codes), for `sample` and for a smaller rate.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937
    Deviations:
        The distortion is -log p(x|z) in nats, with the likelihood's constants, instead of a mean squared error divided
        by the data's variance; the other terms are sums as well.
    Args:
        shape: Shape of one picture, (C, H, W); None asks an encoder or a decoder of your own.
        likelihood: As in `LatentVariableModel`.
        network: Description of the convolutions; the grid has the size that they end with.
        quantizer: Description of the quantiser; in Python also by `num_embeddings`, `embedding_dim` and
            `commitment_cost`, for codes that learn by the second term.
        encoder: A module of your own in place of the network's: x (B, *shape) -> a grid (B, D, h, w); with an attribute
            `num_features`, features of that many channels; or one vector (B, n D) for n codes, alone or as the mean of
            a pair.
        decoder: A module of your own in place of the network's: what the encoder returns, quantised -> the likelihood's
            parameters.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"posterior", "likelihood", "rate", "codes"})
    why_not = MappingProxyType(
        {"prior": "uniform codes do not look like the data; fit a prior with vaebench sample sampler=pixelcnn"}
    )
    posterior_head: CodesHead
    encoder: GridEncoder | OwnGridEncoder

    @also_takes(quantizer_of, likelihood_of, weight_of_one)
    def __init__(
        self,
        shape: Sequence[int] | None = None,
        *,
        likelihood: Likelihood | LikelihoodName | None = None,
        network: GridNetwork = NETWORK,
        quantizer: Quantizer = VectorQuantizer(),  # noqa: B008 - a frozen description
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        is_projected = encoder is None or isinstance(getattr(encoder, "num_features", None), int)
        super().__init__(
            _shape_of(encoder, decoder) if shape is None else shape,
            likelihood="gaussian" if likelihood is None and decoder is not None else likelihood,
            latent_dim=quantizer.dim,
            network=_GridTrunks(network, quantizer.dim, encoder, decoder),
            posterior=QuantizedPosterior(quantizer, is_projected),
        )
        self.grid_size: tuple[int, int] = self.encoder.size
        self.add_module(
            "prior_head", UniformCodesHead(self.quantizer.num_codes, self.latent_shape, self.quantizer.depth)
        )
        self._encoded = _Encoded()
        self.couples_batch = self.quantizer.couples_batch  # type: ignore[misc] # it depends on the quantiser

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D, h, w)."""
        return (self.latent_dim, *self.grid_size)

    @property
    def quantizer(self) -> QuantizerModule:
        """The quantiser."""
        return self.posterior_head.quantizer

    @property
    def codes_shape(self) -> tuple[int, ...]:
        """Shape of one example's codes: (h, w), or (Q, h, w) where each position has Q."""
        return self.grid_size if self.quantizer.depth == 1 else (self.quantizer.depth, *self.grid_size)

    # Codes

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of x, int64, shape (B, *codes_shape)."""
        return self.encode(x).codes

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes of shape (B, *codes_shape), shape (B, D, h, w): what `decode` takes."""
        return self.quantizer.embed(codes)

    def quantize(self, encoding: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Replace vectors by their nearest codes.

        Args:
            encoding: What the encoder returned, shape (B, D, h, w); or (B, n D), from an encoder that returns vectors.

        Returns:
            The codes' vectors, (B, D, h, w), and `commitment_loss`, `codebook_loss` (means over the batch) and
            `encoding_indices`, shape (B, *codes_shape).

        Raises:
            ValueError: if the encoding has another shape.
        """
        is_flat = encoding.ndim == 2 and encoding.shape[1] == math.prod(self.latent_shape) and self.grid_size[1] == 1
        grid = encoding.unflatten(1, (-1, self.latent_dim)).mT[..., None] if is_flat else encoding
        if tuple(grid.shape[1:]) != self.latent_shape:
            expected = ", ".join(map(str, self.latent_shape))
            raise ValueError(f"expected an encoding of shape (B, {expected}), got {tuple(encoding.shape)}")
        q = self.posterior_head.from_vectors(grid)
        z = q.z.squeeze(-1).mT.flatten(1) if is_flat else q.z
        return z, {**_named(q), "encoding_indices": q.codes}

    # Training

    def loss(self, batch: Batch, step: int) -> Loss:
        """Return distortion plus the quantiser's losses; nats per example."""
        terms = self.elbo_terms(batch.x, batch.y)
        if self.training and not torch.compiler.is_compiling():
            self._encoded.note(step, terms.q)
        penalty, _ = self.penalty(terms.q, terms.p, terms.rate)
        return Loss.mean(
            terms.distortion + penalty,
            distortion=terms.distortion,
            rate=terms.rate,
            perplexity=perplexity(collective.gather(terms.q.codes), self.quantizer.num_codes),
            **terms.q.losses,
        )

    def penalty(
        self, q: CodeGrid, p: Any, rate: Tensor, step: int | None = None, beta: float | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the quantiser's losses, nats, shape (B,), and their means; the rate is constant and left out."""
        if beta is not None:
            raise ValueError("beta has no meaning here: the rate of a VQ-VAE is a constant; set the commitment_cost")
        return sum(q.losses.values(), torch.zeros_like(rate)), _named(q)

    @torch.no_grad()
    def before_training(self, train: Split) -> None:
        """Let the quantiser start from vectors of the training split."""
        rows = collective.permutation(len(train))[:EXAMPLES]
        device = next(self.parameters()).device
        chunks = [self.encode(train.batch(some).x.to(device)).z_e for some in rows.split(CHUNK)]
        self.quantizer.start(torch.cat(chunks))

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        """Update averages of the quantiser by the encodings of the step's loss, or new ones where it left none."""
        z_e, codes = self._encoded.take(len(batch.x)) or (self.posterior(batch.x).z_e, None)
        self.quantizer.update(at_least_float32(z_e), codes)

    def forward(self, x: Tensor, y: Tensor | int | None = None) -> Outputs:
        """Encode, quantise and decode.

        Returns:
            What every model returns, `z_e`, `quantized` (also `z`), `encoding_indices`, `commitment_loss` and
            `codebook_loss`.
        """
        outputs = super().forward(x, y)
        outputs.update(z_e=outputs.q.z_e, quantized=outputs["z"], encoding_indices=outputs.q.codes, **_named(outputs.q))
        return outputs


class _Encoded:
    """What a step's losses encoded, piece by piece, kept until the step is over: no part of the model's state."""

    def __init__(self) -> None:
        self._step = -1
        self._pieces: list[tuple[Tensor, Tensor]] = []

    def note(self, step: int, q: CodeGrid) -> None:
        """Keep the vectors and codes of one piece; those of another step go."""
        if step != self._step:
            self._step, self._pieces = step, []
        self._pieces.append((q.z_e.detach(), q.codes))

    def take(self, num: int) -> tuple[Tensor, Tensor] | None:
        """Return vectors and codes and forget them; None unless they are those of `num` examples."""
        pieces, self._pieces = self._pieces, []
        if not pieces or sum(len(codes) for _, codes in pieces) != num:
            return None
        z_e, codes = zip(*pieces, strict=True)
        return torch.cat(z_e), torch.cat(codes)


def _named(q: CodeGrid) -> dict[str, Tensor]:
    """Means over the batch, by the names that users know; zero for a term that the quantiser lacks."""
    losses = {"commitment": q.z.new_zeros(1), "codebook": q.z.new_zeros(1), **q.losses}
    return {f"{name}_loss": loss.mean() for name, loss in losses.items()}


def _shape_of(encoder: nn.Module | None, decoder: nn.Module | None) -> tuple[int, ...]:
    """The shape of an example, as an encoder or a decoder of the user's own tells it."""
    for shape in (getattr(encoder, "input_dim", None), getattr(decoder, "output_dim", None)):
        if isinstance(shape, tuple) and shape:
            return shape
    raise ValueError("shape is needed, unless the encoder has an input_dim or the decoder an output_dim")


class _GridTrunks:
    """An image network as a network whose features and latents are grids; the user's modules in place of its own."""

    def __init__(
        self, network: GridNetwork, dim: int, own_encoder: nn.Module | None, own_decoder: nn.Module | None
    ) -> None:
        self.dim, self.own_encoder, self.own_decoder = dim, own_encoder, own_decoder
        self.built: OwnGridEncoder | None = None
        if not hasattr(network, "grid_encoder"):
            name = type(network).__name__
            raise ValueError(f"network: a VQ-VAE needs a network over images, such as conv or resnet; got {name}")
        self.network = network

    def encoder(self, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat") -> Encoder:
        if self.own_encoder is None:
            return self.network.grid_encoder(shape)
        self.built = OwnGridEncoder(self.own_encoder, self.dim, shape)
        mirrored = self.built.size if self.own_decoder is not None else self.network.grid_encoder(shape).size
        if self.built.returns_vector > (self.own_decoder is not None) or self.built.size != mirrored:
            raise ValueError(
                f"encoder: {type(self.own_encoder).__name__} returns a grid of {self.built.size}, from which the "
                f"network's decoder, of {mirrored}, does not start; give a decoder too"
            )
        return self.built

    def decoder(
        self, latent_dim: int, shape: tuple[int, ...], context_dim: int = 0, condition: Condition = "concat"
    ) -> nn.Module:
        if self.own_decoder is None:
            return self.network.grid_decoder(latent_dim, shape)
        return OwnGridDecoder(self.own_decoder, shape, self.built is not None and self.built.returns_vector)
