"""The encoder-decoder module: its interface as users know it, line by line, and where ours differs on purpose."""

import pytest
import torch

from vaebench.networks import VAEDecoder, VAEEncoder
from vaebench.objectives import GramLoss

LEVELS = ("C2", "C3", "C4", "C5", "C6")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return VAEEncoder(latent_dim=36, context_dim=256, image_channels=3, base_channels=32)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(1)
    return VAEDecoder(latent_dim=36, image_channels=3, base_channels=32, num_mixtures=10)


@pytest.fixture(scope="module")
def seen():
    torch.manual_seed(2)
    return torch.randint(0, 256, (2, 3, 64, 64)) / 255, torch.randn(2, 256), torch.rand(2, 6, 8, 8)


def test_the_examples_from_beginning_to_end(encoder, decoder, seen):
    observations, context, A = seen

    z_mean, z_logvar = encoder(observations, context)
    z = encoder.reparameterize(z_mean, z_logvar)
    assert z_mean.shape == z_logvar.shape == z.shape == (2, 36)

    skips = encoder.get_unet_skips(observations, levels=("C2", "C3", "C4", "C5", "C6"), context=context)
    assert {name: tuple(skip.shape) for name, skip in skips.items()} == {
        "C2": (2, 32, 32, 32), "C3": (2, 64, 16, 16), "C4": (2, 128, 8, 8), "C5": (2, 256, 4, 4), "C6": (2, 512, 2, 2),
    }  # fmt: skip

    logit_probs, means, log_scales, coeffs = decoder(z, skips=skips, attention_map=A)
    # One component for each pixel, shared by its channels; C (C - 1) / 2 coefficients, which are 3 for colour.
    assert logit_probs.shape == (2, 10, 64, 64)
    assert means.shape == log_scales.shape == coeffs.shape == (2, 3, 10, 64, 64)

    reconstruction = decoder.mdl_head.sample(logit_probs, means, log_scales, coeffs)
    assert reconstruction.shape == (2, 3, 64, 64)
    levels = reconstruction * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert decoder.mdl_head.mean(logit_probs, means, log_scales, coeffs).shape == (2, 3, 64, 64)
    p = decoder.mdl_head.distribution(logit_probs, means, log_scales, coeffs)
    assert p.log_prob(observations).shape == (2,)

    gram_loss = GramLoss()
    loss = gram_loss(skips["C4"], encoder.get_unet_skips(observations, ("C4",), context)["C4"], img_level=True)
    assert loss.item() == pytest.approx(0, abs=1e-10)


def test_posterior_and_skips_come_of_one_forward_pass(encoder, seen):
    observations, context, _ = seen
    calls = []
    hooks = [m.register_forward_hook(lambda *_: calls.append(1)) for m in encoder.trunk.levels.values()]
    q, skips = encoder.encode_with_skips(observations, context)
    for hook in hooks:
        hook.remove()
    assert len(calls) == len(LEVELS)
    assert tuple(skips) == LEVELS
    torch.testing.assert_close(q.mean, encoder(observations, context).mean)
    torch.testing.assert_close(skips["C5"], encoder.get_unet_skips(observations, ("C5",), context)["C5"])


def test_decoder_does_without_skips_and_maps(decoder):
    z = torch.randn(2, 36)
    plain = decoder(z)
    for other in (decoder(z, skips=None, attention_map=None), decoder(z, attention_map=torch.rand(2, 6, 3, 5))):
        for a, b in zip(plain, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_videos_are_encoded_and_decoded_frame_by_frame():
    torch.manual_seed(0)
    encoder = VAEEncoder(5, 4, 1, 4, image_size=16)
    decoder = VAEDecoder(5, 1, 4, 2, image_size=16, num_slots=3)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the context is the identity at first
    video, context = torch.rand(2, 3, 1, 16, 16), torch.randn(2, 4)
    q, skips = encoder.encode_with_skips(video, context)
    assert q.mean.shape == q.log_var.shape == (2, 3, 5)
    assert skips["C2"].shape == (2, 3, 4, 8, 8)
    torch.testing.assert_close(q.mean[1, 2], encoder(video[1:, 2], context[1:]).mean[0])
    over_time = torch.randn(2, 3, 4)
    moments = encoder(video, over_time)
    torch.testing.assert_close(moments.mean[1, 2], encoder(video[1:, 2], over_time[1:, 2]).mean[0])
    parts = decoder(q.mean, skips=skips, attention_map=torch.rand(2, 3, 3, 4, 4))
    assert [tuple(part.shape) for part in parts] == [
        (2, 3, 2, 16, 16), (2, 3, 1, 2, 16, 16), (2, 3, 1, 2, 16, 16), (2, 3, 0, 2, 16, 16),
    ]  # fmt: skip
    assert decoder.mdl_head.sample(*parts).shape == video.shape
    frame = decoder(q.mean[1], skips={name: skip[1] for name, skip in skips.items()})
    torch.testing.assert_close(parts[1][1], frame[1])


@pytest.mark.parametrize("size", [28, 32, (48, 64), 128])
def test_any_size_of_picture(size):
    height, width = (size, size) if isinstance(size, int) else size
    encoder = VAEEncoder(3, None, 1, 2, image_size=size)
    decoder = VAEDecoder(3, 1, 2, 1, image_size=size)
    q, skips = encoder.encode_with_skips(torch.rand(1, 1, height, width))
    assert decoder(q.mean, skips=skips)[1].shape == (1, 1, 1, height, width)


def test_number_of_mixtures_and_levels_is_honoured():
    for channels, num_mixtures, coefficients in ((1, 3, 0), (2, 5, 1), (4, 2, 6)):
        decoder = VAEDecoder(3, channels, 2, num_mixtures, image_size=8, num_grey_levels=17)
        parts = decoder(torch.zeros(1, 3))
        assert parts[0].shape == (1, num_mixtures, 8, 8)
        assert parts[3].shape == (1, coefficients, num_mixtures, 8, 8)
        x = decoder.mdl_head.sample(*parts) * 16
        torch.testing.assert_close(x, x.round(), rtol=0, atol=1e-4)


def test_attention_maps_of_a_stated_number_are_parameters_from_the_start():
    stated, learnt = VAEDecoder(3, 1, 2, image_size=8, num_slots=4), VAEDecoder(3, 1, 2, image_size=8)
    before = len(list(learnt.parameters()))
    learnt(torch.zeros(1, 3), attention_map=torch.rand(1, 4, 8, 8))
    assert len(list(stated.parameters())) == len(list(learnt.parameters())) > before


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda e, d: e.get_unet_skips(torch.zeros(1, 1, 8, 8), ("C9",)), "levels: the network has C2, C3 and no 'C9'"),
        (lambda e, d: e.get_unet_skips(torch.zeros(1, 1, 8, 8)), "the network has C2, C3 and no 'C4'"),
        (lambda e, d: e(torch.zeros(1, 8, 8)), r"expected pictures \(B, C, H, W\) or videos \(B, T, C, H, W\), got"),
        (lambda e, d: e(torch.zeros(1, 1, 9, 8)), r"pictures of shape \(B, 1, 8, 8\), got \(1, 1, 9, 8\)"),
        (lambda e, d: e(torch.zeros(1, 1, 8, 8), torch.zeros(1, 3)), "expected no context"),
        (lambda e, d: VAEEncoder(3, 2, 1, 2, image_size=8)(torch.zeros(1, 1, 8, 8)), r"of shape \(1, 2\), got none"),
        (
            lambda e, d: VAEEncoder(3, 2, 1, 2, image_size=8)(torch.zeros(2, 3, 1, 8, 8), torch.zeros(2, 4, 2)),
            r"of shape \(2, E\) or \(2, 3, E\) for these videos, got \(2, 4, 2\)",
        ),
        (lambda e, d: d(torch.zeros(2, 3), skips={"C2": torch.zeros(2, 2, 5, 4)}), r"the skip 'C2' to have shape"),
        (
            lambda e, d: d(torch.zeros(2, 3), attention_map=torch.zeros(3, 4, 8, 8)),
            r"attention maps of shape \(2, \w+, h, w\), got \(3, 4, 8, 8\)",
        ),
        (lambda e, d: VAEDecoder(3, 1, 2, 0, image_size=8), "num_mixtures must be a whole number of at least 1; got 0"),
        (lambda e, d: VAEDecoder(3, 5, 2, image_size=8), "orders the 1 to 4 channels"),
        (lambda e, d: VAEEncoder(0), "latent_dim must be a whole number of at least 1; got 0"),
        (lambda e, d: VAEEncoder(3, image_size=(8,)), r"image_size must be a side or \(height, width\)"),
        (lambda e, d: VAEEncoder(3, image_size=4, num_levels=5), "a picture of 4x4 is too small for 5 levels"),
    ],
)
def test_refuses(mistake, sentence):
    encoder, decoder = VAEEncoder(3, None, 1, 2, image_size=8), VAEDecoder(3, 1, 2, 2, image_size=8)
    with pytest.raises(ValueError, match=sentence):
        mistake(encoder, decoder)
