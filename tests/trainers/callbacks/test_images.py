"""Pictures of a training: samples, reconstructions, curves, the latent space."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image

from tests.trainers.callbacks.test_callbacks import pictures_data, train, vae
from tests.trainers.toy_models import DIM
from vaebench.data.split import DataSplit
from vaebench.distributions.likelihoods import Bernoulli, Gaussian
from vaebench.models.conditional_vae import ConditionalVAE
from vaebench.models.vae import VAE
from vaebench.networks import MLP
from vaebench.runs.images import BACKGROUND, FRAME
from vaebench.runs.run import Run
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.figures import latent_space, loss_curves, plane
from vaebench.trainers.callbacks.images import ImagesCallback


def test_pictures_are_written(tmp_path):
    train(
        [ImagesCallback(every_epochs=2, num_images=9, animation=True)],
        Run(tmp_path),
        vae(),
        pictures_data(),
        num_epochs=4,
    )
    names = {file.name for file in Run(tmp_path).images.iterdir()}
    both = {f"{prefix}{kind}.png" for prefix in ("", "epoch-00002-", "epoch-00004-") for kind in KINDS}
    once = {"losses.png", "latents.png", "interpolation.png", "traversal.png"}
    assert names == both | {f"{kind}.gif" for kind in KINDS} | once
    with (
        Image.open(Run(tmp_path).images / "samples.gif") as film,
        Image.open(Run(tmp_path).images / "samples.png") as last,
    ):
        assert film.n_frames == 2
        assert film.size == last.size
        assert last.getextrema()[0][1] > 100  # not black


@pytest.mark.parametrize(("num_images", "columns"), [(6, 3), (16, 8)])
def test_originals_lie_above_their_reconstructions(tmp_path, monkeypatch, num_images, columns):
    model = vae()
    monkeypatch.setattr(model, "reconstruct", lambda x, deterministic, y: 1 - x)  # each picture's negative
    train([ImagesCallback(num_images=num_images)], Run(tmp_path), model, pictures_data(), num_epochs=1)
    with Image.open(Run(tmp_path).images / "reconstructions.png") as image:
        assert image.width >= 2 + columns * 58  # tiles of 56 and gaps of 2
        for left in range(2, columns * 58, 58):
            above, beneath = image.getpixel((left + 5, 2 + 5))[0], image.getpixel((left + 5, 60 + 5))[0]
            assert abs(above + beneath - 255) <= 1
            assert image.getpixel((left + 5, 1)) == FRAME  # around the original
            assert image.getpixel((left + 5, 60 + 57)) == (BACKGROUND,) * 3


def test_pictures_that_take_long_tell_how_far_they_are(tmp_path):
    """One event before each piece of the work, in order: no model can be slow in silence."""
    told = []

    class Listener(Callback):
        def on_progress(self, training, name, done, total):
            if name == "pictures":
                told.append((done, total))

    train([ImagesCallback(num_images=4), Listener()], Run(tmp_path), vae(), pictures_data(), num_epochs=1)
    numbers = [done for done, _ in told]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 3 + 5 + 2  # five paths, two dimensions
    assert numbers[-1] < told[0][1]


KINDS = ("samples", "reconstructions")


def test_data_that_are_no_images_have_curves_alone(tmp_path):
    train(run=Run(tmp_path))
    assert [file.name for file in Run(tmp_path).images.iterdir()] == ["losses.png"]


def test_vectors_have_a_latent_space_to_look_at(tmp_path):
    torch.manual_seed(0)
    model = VAE((DIM,), likelihood=Gaussian(), latent_dim=3, network=MLP(hidden_dims=(8,)))
    train(run=Run(tmp_path), model=model)
    assert {file.name for file in Run(tmp_path).images.iterdir()} == {"losses.png", "latents.png"}


def test_pictures_of_a_conditional_model_take_labels(tmp_path):
    data = pictures_data()
    y = torch.arange(40) % 3
    data.train, data.validation = DataSplit(data.train.x, y[:30]), DataSplit(data.validation.x, y[30:])
    torch.manual_seed(0)
    network = MLP(hidden_dims=(8,))
    model = ConditionalVAE((1, 4, 4), likelihood=Bernoulli(), latent_dim=2, network=network, num_classes=3)
    train(run=Run(tmp_path), model=model, data=data)
    kinds = (*KINDS, "losses", "latents", "interpolation", "traversal")
    assert {file.name for file in Run(tmp_path).images.iterdir()} == {f"{kind}.png" for kind in kinds}


def test_latent_space_is_seen_along_its_principal_axes():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(4, 4).double()).Q
    z = torch.randn(300, 4).double() * torch.tensor([3.0, 0.1, 1.0, 0.1])
    z = z - z.mean(0)
    points, names = plane(z @ basis.T)
    _, _, directions = torch.linalg.svd(z @ basis.T, full_matrices=False)
    torch.testing.assert_close(points.abs(), (z @ basis.T @ directions[:2].T).abs())
    share = 100 * points[:, 0].square().sum() / z.square().sum()
    assert names[0] == f"principal axis 1 ({share:.0f} % of the variance)"
    two = torch.randn(5, 2).double()
    assert torch.equal(plane(two)[0], two)


def test_latents_of_more_dimensions_than_points_are_seen_along_the_same_axes():
    torch.manual_seed(0)
    z = torch.randn(6, 40).double()
    centred = z - z.mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    points, names = plane(z)
    torch.testing.assert_close(points.abs(), (centred @ directions[:2].T).abs())
    share = 100 * sizes[0] ** 2 / sizes.square().sum()
    assert names[0] == f"principal axis 1 ({share:.0f} % of the variance)"


def test_curves_follow_what_was_logged_and_labels_are_named():
    rows = [{"step": 5 * e, "epoch": e, "split": "train", "loss": 9.0 / e, "rate": math.nan} for e in (1, 2, 3)]
    one, two = loss_curves(rows), loss_curves([*rows, {"step": 5, "epoch": 1, "split": "validation", "loss": 3.0}])
    assert one.size == two.size
    assert one.tobytes() != two.tobytes()
    assert loss_curves([{"epoch": 1, "split": "resources", "loss": 1.0}]) is None
    z = torch.randn(40, 2)
    assert latent_space(z).tobytes() != latent_space(z, torch.arange(40) % 3).tobytes()
    assert latent_space(z, torch.arange(40)).width > 100  # a colour bar
