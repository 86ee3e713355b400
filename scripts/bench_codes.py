"""Models of codes: the VQ-VAE beside a vae of the same network, its quantiser beside another, and drawing codes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from bench_measure import Row, Settings, interleaved, rows
from bench_training import BATCH_SIZE, SHAPE, binary_images, trainer

from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.models.vae import VAE
from vaebench.models.vq_vae import VQVAE
from vaebench.networks import Conv
from vaebench.samplers.code_prior import CodePriorSampler
from vaebench.samplers.code_transformer import CodeTransformerSampler
from vaebench.samplers.pixelcnn import PixelCNNSampler

NETWORK = Conv((32, 64), hidden_dim=0, kernel_size=4, stride=2)
QUANTIZER = VectorQuantizer(restart_below=0.0)


def codes(settings: Settings) -> list[Row]:
    """`vq_vae` 32-64 with 7x7 codes of 512; one update of the codebook; grids of codes."""
    return [*_training(settings), *_quantisers(settings), *_draws(settings)]


def _training(settings: Settings) -> list[Row]:
    data = binary_images(settings.size(5_000, 200), 100)
    models = {
        "vae": VAE(SHAPE, likelihood="bernoulli", network=NETWORK),
        "vq_vae": VQVAE(SHAPE, likelihood="bernoulli", network=NETWORK, quantizer=QUANTIZER),
    }
    jobs = {name: trainer(model, data, 1, with_run=True, validate_every=None) for name, model in models.items()}
    return rows(
        "codes",
        interleaved(jobs, settings.repeats),
        against="vae",
        unit="examples/s",
        value=lambda t: len(data.train) / t,
        notes={"vq_vae": "each vector against 512 codes, once; their averages by the encodings of the loss"},
    )


def _quantisers(settings: Settings) -> list[Row]:
    """Quantise a batch of 7x7 vectors in training, gradients to them, and update the averages."""
    z = torch.randn(BATCH_SIZE, QUANTIZER.embedding_dim, 7, 7)
    steps = settings.size(20, 2)
    book = QUANTIZER.build().train()

    def ours() -> None:
        for _ in range(steps):
            leaf = z.clone().requires_grad_()
            found = book(leaf)
            (found.z.sum() + found.losses["commitment"].mean()).backward()
            book.update(z)

    jobs: dict[str, Callable[[], object]] = {"quantiser": ours}
    name = "vector-quantize-pytorch"
    if importlib.util.find_spec("vector_quantize_pytorch") is not None:
        from vector_quantize_pytorch import VectorQuantize

        theirs = VectorQuantize(
            dim=QUANTIZER.embedding_dim,
            codebook_size=QUANTIZER.num_embeddings,
            decay=QUANTIZER.decay,
            threshold_ema_dead_code=0,
            rotation_trick=False,
            accept_image_fmap=True,
        ).train()

        def reference() -> None:
            for _ in range(steps):
                leaf = z.clone().requires_grad_()
                quantized, _, loss = theirs(leaf)
                (quantized.sum() + loss.sum()).backward()

        jobs = {name: reference, **jobs}
    return rows(
        "codes",
        interleaved(jobs, settings.repeats),
        against=next(iter(jobs)),
        unit="batches/s",
        value=lambda t: steps / t,
        notes={"quantiser": f"{len(z)} grids of 7x7 vectors; codes are looked up again for the averages"},
    )


def _draws(settings: Settings) -> list[Row]:
    """Draw from priors of random weights, which cost what fitted ones do."""
    model = VQVAE(SHAPE, likelihood="bernoulli", network=NETWORK, quantizer=QUANTIZER).eval()
    num = settings.size(200, 10)

    def job(sampler: CodePriorSampler) -> Callable[[], object]:
        sampler.setup(model).is_fitted.fill_(True)
        return lambda: sampler.sample(num)

    jobs = {"pixelcnn": job(PixelCNNSampler()), "code_transformer": job(CodeTransformerSampler())}
    return rows(
        "codes",
        interleaved(jobs, max(1, settings.repeats // 3)),
        against="pixelcnn",
        unit="grids/s",
        value=lambda t: num / t,
        notes={
            "pixelcnn": "inputs of each convolution are kept",
            "code_transformer": "keys and values of earlier codes are kept",
        },
    )
