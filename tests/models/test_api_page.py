"""The examples of the VAE interface that users know, one after the other, in PyTorch's conventions.

These differ in three ways: no random keys, channels before height and width, and `create_encoder` for
`create_encoder_unified`.
"""

import pytest
import torch
from torch import nn

from vaebench import models
from vaebench.core import Batch
from vaebench.distributions.quantizers.vq import VectorQuantizer
from vaebench.models import VAE, VQVAE, BetaVAE, BetaVAEWithCapacity, ConditionalVAE
from vaebench.networks import (
    CNNDecoder,
    CNNEncoder,
    ConditionalDecoder,
    ConditionalEncoder,
    Conv,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
    create_decoder,
    create_encoder,
)

BASE_KEYS = ["reconstructed", "reconstruction", "mean", "log_var", "logvar", "z"]
IMAGE = (1, 28, 28)


def mlp(latent_dim=20):
    encoder = MLPEncoder(hidden_dims=[32], latent_dim=latent_dim, activation="relu", input_dim=(784,))
    return encoder, MLPDecoder(hidden_dims=[32], output_dim=(784,), latent_dim=latent_dim, activation="relu")


def cnn(latent_dim=64):
    encoder = CNNEncoder(hidden_dims=[4, 8, 8, 8], latent_dim=latent_dim, activation="relu", input_dim=IMAGE)
    decoder = CNNDecoder(hidden_dims=[8, 8, 8, 4], output_dim=IMAGE, latent_dim=latent_dim, activation="relu")
    return encoder, decoder


def test_vae():
    encoder, decoder = mlp()
    vae, x = VAE(encoder=encoder, decoder=decoder, latent_dim=20, kl_weight=1.0), torch.rand(32, 784)

    mean, log_var = vae.encode(x)
    assert mean.shape == log_var.shape == (32, 20)
    z = torch.randn(32, 20)
    assert vae.decode(z).shape == (32, 784)
    z = vae.reparameterize(mean, log_var)
    assert z.shape == (32, 20)
    outputs = vae(x)
    assert list(outputs.keys()) == BASE_KEYS
    assert torch.equal(outputs["reconstructed"], outputs["reconstruction"])
    assert torch.equal(outputs["log_var"], outputs["logvar"])
    losses = vae.loss_fn(x=x, outputs=outputs)
    assert f"Reconstruction: {losses['reconstruction_loss']:.4f}, KL: {losses['kl_loss']:.4f}"
    assert set(losses) == {"reconstruction_loss", "recon_loss", "kl_loss", "total_loss", "loss"}
    torch.testing.assert_close(losses["total_loss"], losses["reconstruction_loss"] + losses["kl_loss"])

    assert vae.sample(n_samples=16, temperature=1.0).shape == (16, 784)
    hot, cold = (vae.sample(n_samples=64, temperature=t).std(0).mean() for t in (2.0, 0.5))
    assert hot > 1.5 * cold
    assert vae.generate(n_samples=3, temperature=0.5).shape == vae.sample(3).shape == (3, 784)
    assert vae.sample().shape == (1, 784)
    stochastic = vae.reconstruct(x, deterministic=False)
    assert not torch.equal(stochastic, vae.reconstruct(x, deterministic=False))
    torch.testing.assert_close(vae.reconstruct(x, deterministic=True), vae.decode(mean))
    path = vae.interpolate(x[0], x[1], steps=10)
    torch.testing.assert_close(path[[0, -1]], vae.decode(mean[:2]))
    traversal = vae.latent_traversal(x=x[0], dim=5, range_vals=(-3.0, 3.0), steps=15)
    assert traversal.shape == (15, 784)
    with pytest.raises(ValueError, match=r"dim must be in \[0, 20\)"):
        vae.latent_traversal(x=x[0], dim=20)
    with pytest.raises(ValueError, match="latent_dim must be"):
        VAE(encoder=encoder, decoder=decoder, latent_dim=0)


def test_loss_fn_takes_a_batch_a_beta_and_another_reconstruction_loss():
    encoder, decoder = mlp()
    vae, x = VAE(encoder=encoder, decoder=decoder, latent_dim=20), torch.rand(8, 784)
    outputs = vae(x)
    expected = vae.loss_fn(x=x, outputs=outputs)["loss"]
    for batch in (Batch(x), {"x": x}):
        assert torch.equal(vae.loss_fn(batch=batch, outputs=outputs)["loss"], expected)
    losses = vae.loss_fn(x=x, outputs=outputs, beta=3.0, reconstruction_loss_fn=lambda p, t: (p - t).abs().mean())
    torch.testing.assert_close(losses["recon_loss"], (outputs["reconstructed"] - x).abs().mean())
    torch.testing.assert_close(losses["loss"], losses["recon_loss"] + 3 * losses["kl_loss"])
    with pytest.raises(ValueError, match="loss_fn needs x, or a batch that holds it"):
        vae.loss_fn()


def test_beta_vae():
    encoder, decoder = mlp(32)
    beta_vae = BetaVAE(
        encoder=encoder,
        decoder=decoder,
        latent_dim=32,
        beta_default=4.0,
        beta_warmup_steps=10000,
        reconstruction_loss_type="mse",
    )
    batch = torch.rand(4, 784)
    for step, beta in ((0, 0.0), (1, 4e-4), (5000, 2.0), (9999, 3.9996), (10000, 4.0), (10001, 4.0)):
        outputs = beta_vae(batch)
        losses = beta_vae.loss_fn(x=batch, outputs=outputs, step=step)
        assert losses["beta"].item() == pytest.approx(beta)
        torch.testing.assert_close(losses["total_loss"], losses["reconstruction_loss"] + beta * losses["kl_loss"])
    # mse: half the squared error, summed over pixels, and the Gaussian's constant
    squared = (outputs["reconstructed"] - batch).square().sum(1).mean() / 2
    constant = 784 * 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(losses["reconstruction_loss"], squared + constant)
    bce = BetaVAE(encoder=encoder, decoder=decoder, latent_dim=32, beta_default=2, reconstruction_loss_type="bce")
    x = batch.round()
    outputs = bce(x)
    expected = nn.functional.binary_cross_entropy(outputs["reconstruction"], x, reduction="none").sum(1).mean()
    losses = bce.loss_fn(x=x, outputs=outputs)  # no step is needed where beta is constant
    torch.testing.assert_close(losses["recon_loss"], expected)
    assert losses["beta"] == 2
    with pytest.raises(ValueError, match="beta changes with the step: give step="):
        beta_vae.loss_fn(x=batch)


def test_capacity():
    encoder, decoder = mlp(32)
    capacity_vae = BetaVAEWithCapacity(
        encoder=encoder,
        decoder=decoder,
        latent_dim=32,
        use_capacity_control=True,
        capacity_max=25.0,
        capacity_num_iter=25000,
        gamma=1000.0,
    )
    x = torch.rand(4, 784)
    outputs = capacity_vae(x)
    losses = capacity_vae.loss_fn(x=x, outputs=outputs, step=5000)
    assert losses["current_capacity"].item() == pytest.approx(5.0)
    torch.testing.assert_close(losses["kl_capacity_diff"], losses["kl_loss"] - 5.0)
    torch.testing.assert_close(losses["capacity_loss"], 1000 * losses["kl_capacity_diff"].abs())
    torch.testing.assert_close(losses["loss"], losses["recon_loss"] + losses["capacity_loss"])


def test_conditional_vae():
    base_encoder = MLPEncoder(hidden_dims=[16, 8], latent_dim=32)  # without a shape, as on the page
    base_decoder = MLPDecoder(hidden_dims=[8, 16, 16], output_dim=(784,), latent_dim=32)
    conditional_encoder = ConditionalEncoder(encoder=base_encoder, num_classes=10, embed_dim=128)
    conditional_decoder = ConditionalDecoder(decoder=base_decoder, num_classes=10, embed_dim=128)
    cvae = ConditionalVAE(encoder=conditional_encoder, decoder=conditional_decoder, latent_dim=32, condition_dim=10)
    x, labels = torch.rand(5, 784), torch.tensor([0, 1, 2, 3, 4])
    outputs = cvae(x, y=labels)
    assert list(outputs.keys()) == BASE_KEYS
    one_hot = nn.functional.one_hot(labels, 10)
    mean, _ = cvae.encode(x, labels)
    assert torch.equal(mean, cvae.encode(x, y=one_hot)[0])
    torch.testing.assert_close(mean, conditional_encoder(x, condition=labels)[0])
    torch.testing.assert_close(cvae.decode(mean, y=labels), conditional_decoder(mean, condition=labels))
    assert not torch.allclose(cvae.decode(mean, y=labels), cvae.decode(mean, y=labels.flip(0)))
    target_labels = torch.tensor([5, 5, 5, 5])
    assert cvae.sample(n_samples=4, y=target_labels).shape == (4, 784)
    assert cvae.reconstruct(x, y=labels).shape == (5, 784)
    assert cvae.log_weights(x, 3, labels).shape == (3, 5)

    cvae.loss(Batch(x, labels), 0).total.backward()
    assert all(parameter.grad is not None for parameter in cvae.parameters())
    assert (conditional_encoder.embedding.table.weight.grad.abs().sum(1) > 0).tolist() == [True] * 5 + [False] * 5
    with pytest.raises(ValueError, match="ConditionalVAE needs labels: give y="):
        cvae.encode(x)


def test_wrapped_networks_of_another_number_of_classes_or_condition():
    def wrapped(num_classes, condition="concat"):
        encoder, decoder = mlp(3)
        return {
            "encoder": ConditionalEncoder(encoder, num_classes, 4, condition),
            "decoder": ConditionalDecoder(decoder, num_classes, 4, condition),
            "latent_dim": 3,
        }

    assert ConditionalVAE(**wrapped(7)).num_classes == 7
    with pytest.raises(ValueError, match="encoder: ConditionalEncoder must have num_classes=10; got 7"):
        ConditionalVAE(**wrapped(7), condition_dim=10)
    with pytest.raises(ValueError, match="must have num_classes=11, one of them for no label; got 10"):
        ConditionalVAE(**wrapped(10), condition_dim=10, label_dropout=0.1)
    with pytest.raises(ValueError, match=r"condition_type is what ConditionalEncoder\(condition=…\) says"):
        ConditionalVAE(**wrapped(10), condition_type="film")
    assert ConditionalVAE(**wrapped(10, "film"), condition_type="film").num_classes == 10
    dropping = ConditionalVAE(**wrapped(11), label_dropout=0.5)
    x = torch.rand(6, 784)
    assert dropping.num_classes == 10
    assert torch.equal(dropping.encode(x).mean, dropping.encoder.module(x, torch.full((6,), 10))[0])
    assert dropping.loss(Batch(x, torch.arange(6)), 0).total.isfinite()


def test_vq_vae_with_an_encoder_that_returns_one_vector():
    """The page's own example: latent_dim 64 with embeddings of 64 is one code for a picture."""
    for latent_dim, num_codes in ((64, 1), (192, 3)):
        encoder, decoder = cnn(latent_dim)
        vqvae = VQVAE(
            encoder=encoder,
            decoder=decoder,
            latent_dim=latent_dim,
            num_embeddings=512,
            embedding_dim=64,
            commitment_cost=0.5,
        )
        x = torch.rand(4, *IMAGE)
        outputs = vqvae(x)
        assert set(outputs) >= {*BASE_KEYS, "z_e", "quantized", "commitment_loss", "codebook_loss"}
        assert outputs["encoding_indices"].shape == (4, num_codes, 1)
        torch.testing.assert_close(outputs["z_e"].squeeze(-1).mT.flatten(1), encoder(x)[0])
        quantized, aux = vqvae.quantize(encoder(x)[0])
        assert quantized.shape == (4, latent_dim)
        torch.testing.assert_close(vqvae.decode(outputs["quantized"]), decoder(quantized))
        rows = vqvae.quantizer.embedding[aux["encoding_indices"].squeeze(-1)]
        torch.testing.assert_close(quantized.unflatten(1, (-1, 64)), rows)
        losses = vqvae.loss_fn(x=x, outputs=outputs)
        distance = (encoder(x)[0] - quantized).square().sum(1).mean()
        for found in (outputs, aux, losses):
            torch.testing.assert_close(found["commitment_loss"], 0.5 * distance)
            torch.testing.assert_close(found["codebook_loss"], distance)
        torch.testing.assert_close(
            losses["total_loss"], losses["reconstruction_loss"] + losses["commitment_loss"] + losses["codebook_loss"]
        )
        vqvae.loss(Batch(x), 0).total.backward()
        assert encoder.mean.weight.grad.abs().sum() > 0
        assert vqvae.quantizer.embedding.grad.abs().sum() > 0


class Down(nn.Sequential):
    def __init__(self, channels, **attributes):
        super().__init__(nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, channels, 4, 2, 1))
        vars(self).update(attributes)


class Up(nn.Sequential):
    def __init__(self, channels):
        super().__init__(nn.ConvTranspose2d(channels, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1))


def test_vq_vae_with_an_encoder_and_a_decoder_of_grids():
    x = torch.rand(3, *IMAGE).round()
    sizes = {"num_embeddings": 16, "embedding_dim": 4}
    vqvae = VQVAE(IMAGE, encoder=Down(4), decoder=Up(4), reconstruction_loss_type="bce", **sizes)
    outputs = vqvae(x)
    assert vqvae.latent_shape == (4, 7, 7)
    torch.testing.assert_close(outputs["z_e"], vqvae.encoder.module(x))
    torch.testing.assert_close(vqvae.decode(outputs["z"]), torch.sigmoid(vqvae.decoder.module(outputs["z"])))
    projected = VQVAE(IMAGE, encoder=Down(6, num_features=6), decoder=Up(4), **sizes)
    assert projected(x)["z_e"].shape == (3, 4, 7, 7)
    one_side = VQVAE(IMAGE, likelihood="bernoulli", encoder=Down(4), network=Conv((4, 8), hidden_dim=0), **sizes)
    assert one_side(x)["reconstruction"].shape == x.shape
    other_side = VQVAE(IMAGE, decoder=Up(4), network=Conv((4, 8), hidden_dim=0), quantizer=VectorQuantizer(16, 4))
    assert other_side(x)["reconstruction"].shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"encoder": Down(5), "decoder": Up(4)}, r"encoder: Down must return a grid \(B, 4, h, w\), or a vector "),
        (
            {"encoder": Down(5, num_features=6), "decoder": Up(4)},
            r"grid \(B, 6, h, w\); got a tensor of shape \(1, 5, 7, 7\)",
        ),
        (
            {"encoder": Down(4), "likelihood": "gaussian"},
            "network's decoder, of .*, does not start; give a decoder",
        ),
        ({"encoder": MLPEncoder([8], 8), "likelihood": "gaussian"}, "does not start; give a decoder too"),
        ({"encoder": Down(4), "decoder": Up(4), "latent_dim": 6}, "latent_dim must be a multiple of embedding_dim"),
        ({"encoder": Down(4), "decoder": Up(4), "quantizer": VectorQuantizer()}, "quantizer is what .* stand for"),
        (
            {"encoder": Down(4), "decoder": nn.Conv2d(4, 1, 1)},
            "Conv2d must return the likelihood's parameters",
        ),
        ({"encoder": Down(4), "decoder": Up(4), "num_embeddings": 1}, "num_embeddings must be"),
    ],
)
def test_vq_vae_refuses(arguments, sentence):
    network = Conv((4, 4, 4), hidden_dim=0)
    with pytest.raises(ValueError, match=sentence):
        VQVAE(IMAGE, network=network, embedding_dim=4, **arguments)(torch.rand(2, *IMAGE))


def test_vq_vae_needs_a_shape():
    with pytest.raises(ValueError, match="shape is needed, unless the encoder has an input_dim or the decoder"):
        VQVAE(encoder=Down(64), decoder=Up(64))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda **n: BetaVAE(**n, beta_default=4.0, beta=2.0), "beta is what beta_default stand for; give one of them"),
        (lambda **n: BetaVAE(**n, beta_default=4.0, kl_weight=2.0), "beta_default and kl_weight are the same"),
        (lambda **n: BetaVAE(**n, beta_default=-1.0), "beta_default must be at least 0"),
        (lambda **n: BetaVAE(**n, beta_warmup_steps=-1), "beta_warmup_steps must be"),
        (lambda **n: BetaVAE(**n, reconstruction_loss_type="msee"), "unknown name 'msee'; did you mean 'mse'"),
        (lambda **n: VAE(**n, kl_weight=4.0), "for another weight of the rate use BetaVAE, got 4.0"),
        (lambda **n: BetaVAEWithCapacity(**n, beta_default=4.0), "beta_default has no place beside a capacity"),
        (lambda **n: BetaVAEWithCapacity(**n, use_capacity_control=False), "without it use BetaVAE"),
        (lambda **n: BetaVAEWithCapacity(**n, capacity_max=-1.0), "capacity_max must be at least 0"),
    ],
)
def test_constructors_refuse(make, sentence):
    encoder, decoder = mlp(3)
    with pytest.raises(ValueError, match=sentence):
        make(encoder=encoder, decoder=decoder, latent_dim=3)


def test_kl_weight_and_beta_default_are_beta():
    encoder, decoder = mlp(3)
    for arguments in ({"kl_weight": 3.0}, {"beta_default": 3.0}, {"beta": 3.0}):
        assert BetaVAE(encoder=encoder, decoder=decoder, latent_dim=3, **arguments).beta(0) == 3.0
    assert BetaVAE(encoder=encoder, decoder=decoder, latent_dim=3, beta_warmup_steps=10).beta(5) == 0.5


def test_encoders_and_decoders():
    x = torch.rand(2, *IMAGE)
    pairs = [
        (MLPEncoder(hidden_dims=[512, 256, 128], latent_dim=32, activation="relu", input_dim=(784,)), x.flatten(1)),
        (CNNEncoder(hidden_dims=[32, 64, 128, 256], latent_dim=32, activation="relu", input_dim=IMAGE), x),
        (ResNetEncoder(hidden_dims=[8, 16], latent_dim=32, input_dim=IMAGE), x),
    ]
    for encoder, data in pairs:
        mean, log_var = encoder(data)
        assert mean.shape == log_var.shape == (2, 32)
    z = torch.randn(2, 32)
    assert MLPDecoder(hidden_dims=[128, 256, 512], output_dim=(784,), latent_dim=32, activation="relu")(z).shape == (
        2,
        784,
    )
    for decoder in (
        CNNDecoder(hidden_dims=[256, 128, 64, 32], output_dim=IMAGE, latent_dim=32, activation="relu"),
        ResNetDecoder(hidden_dims=[16, 8], output_dim=IMAGE, latent_dim=32),
    ):
        assert decoder(z).shape == (2, *IMAGE)


@pytest.mark.parametrize("kind", ["dense", "cnn", "resnet"])
def test_a_model_of_what_the_factories_create(kind):
    config = {"hidden_dims": [4, 8], "latent_dim": 3}
    options = {"conditional": True, "num_classes": 5, "embed_dim": 2}
    encoder = create_encoder(config={**config, "input_dim": IMAGE}, encoder_type=kind, **options)
    decoder = create_decoder(config={**config, "output_dim": IMAGE}, decoder_type=kind, **options)
    cvae = ConditionalVAE(encoder=encoder, decoder=decoder, latent_dim=3)
    x, y = torch.rand(2, *IMAGE), torch.tensor([0, 4])
    assert cvae(x, y)["reconstruction"].shape == x.shape
    assert torch.isfinite(cvae.loss_fn(x=x, y=y)["loss"])


def test_the_complete_example():
    encoder, decoder = cnn(64)
    model = BetaVAE(
        encoder=encoder,
        decoder=decoder,
        latent_dim=64,
        beta_default=4.0,
        beta_warmup_steps=10000,
        reconstruction_loss_type="mse",
    )
    x = torch.ones(32, *IMAGE)
    outputs = model(x)
    losses = model.loss_fn(x=x, outputs=outputs, step=5000)
    assert f"Beta: {losses['beta']:.4f}" == "Beta: 2.0000"
    assert f"Total Loss: {losses['total_loss']:.4f}"
    assert model.sample(n_samples=16, temperature=1.0).shape == (16, *IMAGE)
    assert model.latent_traversal(x[0], dim=10, steps=15).shape == (15, *IMAGE)


def test_every_model_takes_encoder_decoder_and_latent_dim_alone():
    for name in ("BetaTCVAE", "IWAE", "MIWAE", "PIWAE", "CIWAE", "DIPVAE", "FactorVAE", "InfoVAE", "VampVAE"):
        encoder, decoder = mlp(3)
        model = getattr(models, name)(encoder=encoder, decoder=decoder, latent_dim=3, reconstruction_loss_type="bce")
        assert model.shape == (784,), name
        assert model(torch.rand(4, 784))["z"].shape == (4, 3)
