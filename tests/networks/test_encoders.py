"""Encoders and decoders built by hand: the names of the API page, in PyTorch's conventions."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from vaebench.networks import (
    CNNDecoder,
    CNNEncoder,
    ConditionalDecoder,
    ConditionalEncoder,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
    create_decoder,
    create_encoder,
)
from vaebench.networks.labels import LabelEmbedding

IMAGE = (1, 28, 28)
CONFIG = {"hidden_dims": [4, 8], "latent_dim": 3}


def test_the_pages_examples():
    mean, log_var = MLPEncoder(hidden_dims=[512, 256, 128], latent_dim=32, activation="relu", input_dim=(784,))(
        torch.randn(2, 784)
    )
    assert mean.shape == log_var.shape == (2, 32)
    encoder = CNNEncoder(hidden_dims=[32, 64, 128, 256], latent_dim=64, activation="relu", input_dim=IMAGE)
    mean, log_var = encoder(torch.randn(2, *IMAGE))
    assert mean.shape == log_var.shape == (2, 64)
    decoder = MLPDecoder(hidden_dims=[128, 256, 512], output_dim=(784,), latent_dim=32, activation="relu")
    assert decoder(torch.randn(2, 32)).shape == (2, 784)
    decoder = CNNDecoder(hidden_dims=[256, 128, 64, 32], output_dim=IMAGE, latent_dim=64, activation="relu")
    assert decoder(torch.randn(2, 64)).shape == (2, *IMAGE)

    base = MLPEncoder(hidden_dims=[512, 256], latent_dim=32)
    labels = torch.tensor([0, 1, 2, 3])
    mean, log_var = ConditionalEncoder(encoder=base, num_classes=10, embed_dim=128)(
        torch.randn(4, 784), condition=labels
    )
    assert mean.shape == log_var.shape == (4, 32)
    base = MLPDecoder(hidden_dims=[128, 256, 512], output_dim=(784,), latent_dim=32)
    conditional = ConditionalDecoder(decoder=base, num_classes=10, embed_dim=128)
    assert conditional(torch.randn(4, 32), condition=labels).shape == (4, 784)


def test_hidden_dims_follow_the_datas_flow_on_both_sides():
    widths = [p.shape[0] for p in MLPEncoder([7, 5], 3, input_dim=6).trunk.parameters() if p.ndim == 2]
    assert widths == [7, 5]
    widths = [p.shape[0] for p in MLPDecoder([5, 7], 6, 3).parameters() if p.ndim == 2]
    assert widths == [5, 7, 6]
    channels = [p.shape[0] for p in CNNEncoder([4, 8], 3, input_dim=IMAGE).parameters() if p.ndim == 4]
    assert channels == [4, 8]
    channels = [p.shape[:2] for p in CNNDecoder([8, 4], IMAGE, 3).parameters() if p.ndim == 4]
    assert channels == [(8, 4), (4, 1)]


@pytest.mark.parametrize(
    ("encoder", "decoder"), [(CNNEncoder, CNNDecoder), (ResNetEncoder, ResNetDecoder)], ids=["cnn", "resnet"]
)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 70, 33), (2, 5, 8)])
def test_any_size_and_number_of_channels(encoder, decoder, shape):
    mean, _ = encoder([4, 8, 4], 3, input_dim=shape)(torch.randn(2, *shape))
    assert decoder([4, 8, 4], shape, 3)(mean).shape == (2, *shape)
    assert encoder([4, 8], 3, input_dim=shape, pool="gap")(torch.randn(2, *shape))[0].shape == (2, 3)


def test_residual_networks_have_residual_blocks():
    assert any(type(m).__name__ == "Residual" for m in ResNetEncoder([4], 3, input_dim=IMAGE).modules())
    assert any(type(m).__name__ == "Residual" for m in ResNetDecoder([4], IMAGE, 3).modules())


def test_the_shape_may_come_from_the_first_batch():
    encoder = CNNEncoder([4, 8], 3)
    assert not list(encoder.parameters())
    encoder(torch.randn(2, *IMAGE))
    assert encoder.input_dim == IMAGE
    with pytest.raises(ValueError, match=r"expected x of shape \(B, 1, 28, 28\), got \(2, 1, 28, 27\)"):
        encoder(torch.randn(2, 1, 28, 27))


@pytest.mark.parametrize("condition", ["concat", "film", "add"])
def test_a_conditional_cnn_is_told_the_class(condition):
    x, z = torch.randn(2, *IMAGE), torch.randn(2, 3)
    encoder = ConditionalEncoder(CNNEncoder([4, 8], 3, input_dim=IMAGE), 10, 6, condition)
    decoder = ConditionalDecoder(CNNDecoder([8, 4], IMAGE, 3), 10, 6, condition)
    for module, data in ((encoder, x), (decoder, z)):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
        out = [module(data, torch.tensor(y)) for y in ([3, 4], [3, 5])]
        first, second = (o[0] if isinstance(o, tuple) else o for o in out)
        torch.testing.assert_close(first[0], second[0])
        assert not torch.allclose(first[1], second[1])


def test_a_conditional_encoders_first_layer_is_wider_by_the_embedding():
    encoder = ConditionalEncoder(CNNEncoder([4, 8], 3, input_dim=IMAGE), 10, 6)
    assert next(p for p in encoder.encoder.parameters() if p.ndim == 4).shape[1] == 1 + 6


def test_a_label_is_an_integer_of_any_type_or_weights_of_the_classes():
    embedding = LabelEmbedding(5, 3)
    y = torch.tensor([4, 0, 2])
    rows = embedding(y)
    assert torch.equal(rows, embedding.table.weight[y])
    for kind in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(embedding(y.to(kind)), rows)
    one_hot = nn.functional.one_hot(y, 5)
    assert torch.equal(embedding(one_hot), rows)
    assert torch.equal(embedding(one_hot.double()), rows)
    torch.testing.assert_close(embedding(torch.full((1, 5), 0.2))[0], embedding.table.weight.mean(0))


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (torch.tensor([0, 5]), "expected labels from 0 to 4, got 5"),
        (torch.tensor([-1, 5]), "expected labels from 0 to 4, got -1"),
        (torch.zeros(2, 4), r"weights of shape \(B, 5\), got float32 of shape \(2, 4\)"),
        (torch.zeros(2), r"expected labels as integers of shape \(B,\) or .* got float32 of shape \(2,\)"),
    ],
)
def test_labels_that_do_not_fit(y, sentence):
    with pytest.raises(ValueError, match=sentence):
        LabelEmbedding(5, 3)(y)


def test_labels_are_needed():
    with pytest.raises(ValueError, match="expected labels as `condition`, got none"):
        ConditionalEncoder(MLPEncoder([4], 3, input_dim=6), 5, 2)(torch.zeros(2, 6))


class Own(nn.Module):
    def forward(self, x, c):
        return x + c.sum(1, keepdim=True)


def test_an_encoder_of_ones_own_takes_the_embedding_or_is_refused():
    encoder = ConditionalEncoder(Own(), 5, 2)
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 4])
    torch.testing.assert_close(encoder(x, y), x + encoder.embedding(y).sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"Linear.forward must take the embedded label, shape \(B, 2\), as its second"):
        ConditionalEncoder(nn.Linear(4, 3), 5, 2)


@pytest.mark.parametrize("kind", ["dense", "cnn", "resnet"])
@pytest.mark.parametrize("conditional", [False, True])
def test_factories(kind, conditional):
    options = {"conditional": conditional, **({"num_classes": 5, "embed_dim": 2} if conditional else {})}
    y = (torch.tensor([0, 4]),) if conditional else ()
    encoder = create_encoder(config={**CONFIG, "input_dim": IMAGE}, encoder_type=kind, **options)
    mean, _ = encoder(torch.randn(2, *IMAGE), *y)
    decoder = create_decoder(config={**CONFIG, "output_dim": IMAGE}, decoder_type=kind, **options)
    assert decoder(mean, *y).shape == (2, *IMAGE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"config": CONFIG, "encoder_type": "resnt"}, r"encoder_type: unknown name 'resnt'; did you mean 'resnet'\?"),
        (
            {"config": {**CONFIG, "hiden_dims": 1}, "encoder_type": "cnn"},
            "no argument 'hiden_dims'; did you mean 'hidden_",
        ),
        ({"config": {"hidden_dims": [4]}, "encoder_type": "cnn"}, "config: CNNEncoder needs latent_dim"),
        (
            {"config": CONFIG, "encoder_type": "cnn", "conditional": True},
            "needs num_classes and embed_dim, got num_classes=No",
        ),
        (
            {"config": {**CONFIG, "latent_dim": 0}, "encoder_type": "cnn"},
            "latent_dim must be a whole number of at least 1",
        ),
    ],
)
def test_factories_refuse(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_encoder(**arguments)


def test_a_decoder_refuses_latents_of_another_size():
    with pytest.raises(ValueError, match=r"expected z of shape \(B, 3\), got \(2, 4\)"):
        MLPDecoder([4], 6, 3)(torch.zeros(2, 4))


def test_importing_the_room_imports_only_what_is_asked_for():
    code = "import sys, vaebench.networks as n; print([m for m in sys.modules if m.startswith(n.__name__)])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "vaebench.networks.mlp" in loaded
    assert "vaebench.networks.resnet" not in loaded
    assert "vaebench.networks.encoders" not in loaded
