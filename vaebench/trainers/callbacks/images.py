"""Images of a run: samples, reconstructions, paths through the latent space, loss curves."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vaebench.core import Batch
from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.messages import check_range
from vaebench.runs.images import save_image, side_by_side, to_image
from vaebench.runs.run import write_atomic
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.callbacks.energy_images import energy_images
from vaebench.trainers.callbacks.figures import latent_space, loss_curves
from vaebench.trainers.training import Training

MOST_POINTS = 2_000  # validation examples in the picture of the latent space
MOST_NUMBERS = 10_000_000  # in all their posterior means
NUM_PATHS, NUM_STEPS = 5, 9  # for the interpolation
MOST_DIMENSIONS = 10  # for the traversal: those in which posterior means vary most
NUM_PIECES = 3 + NUM_PATHS + MOST_DIMENSIONS  # of the work, after each of which progress is told
REACH = 3.0  # standard deviations of the posterior means, either way


class ImagesCallback(Callback):
    """Writes pictures into the folder images of the run, at the end or over epochs too.

    samples.png: decoded draws from the prior. reconstructions.png: validation examples, framed, above their
    reconstructions. interpolation.png: between two framed examples in each row. traversal.png: one example with one
    latent dimension moved in each row. latents.png: the validation split's posterior means in two dimensions, coloured
    by label. losses.png: what was logged, over epochs. Of an energy of points in the plane, density.png: the density
    that it has learned, with chains on it, beside the data.

    The same latents and the same validation images are shown every time. What a model cannot give (samples of one
    without a prior), or data that are not images, is left out.

    Args:
        every_epochs: Epochs between samples and reconstructions, then also kept as epoch-00010-samples.png; null: at
            the end only.
        num_images: How many of each, >= 1.
        animation: Whether the pictures of all epochs are joined to samples.gif and reconstructions.gif at the end.
    """

    def __init__(self, every_epochs: int | None = None, num_images: int = 64, animation: bool = False) -> None:
        check_range("every_epochs", every_epochs, at_least=1, whole=True, or_null=True)
        check_range("num_images", num_images, at_least=1, whole=True)
        if animation and every_epochs is None:
            raise ValueError("animation needs callback.images.every_epochs")
        self.every_epochs = every_epochs
        self.num_images = num_images
        self.animation = animation

    def on_epoch_end(self, training: Training) -> None:
        """Write this epoch's pictures if it is their turn."""
        if training.run is not None and self.every_epochs is not None and training.epoch % self.every_epochs == 0:
            for name, image in self._drawn(training).items():
                save_image(training.run.images / f"epoch-{training.epoch:05d}-{name}.png", image)

    def on_train_end(self, training: Training) -> None:
        """Write the final pictures, and the animations."""
        if training.run is None:
            return
        for name, image in {**self._drawn(training), **self._explored(training)}.items():
            save_image(training.run.images / f"{name}.png", image)
            frames = sorted(training.run.images.glob(f"epoch-*-{name}.png")) if self.animation else []
            if frames:
                save_animation(training.run.images / f"{name}.gif", frames)
        curves = loss_curves(training.run.read_metrics())
        if curves is not None:
            save_image(training.run.images / "losses.png", curves)

    def _drawn(self, training: Training) -> dict[str, Image.Image]:
        """Samples and reconstructions."""
        model: Any = training.model
        if "energy" in model.capabilities:
            return energy_images(training, self.num_images)
        if len(model.shape) not in (3, 4):
            return {}
        found = {}
        with training.evaluating(), fixed_rng(training.seed, Stream.IMAGES):
            _tell(training, 0)
            if {"prior", "likelihood"} <= model.capabilities:
                labels = model.draw_labels(self.num_images)
                found["samples"] = to_image(model.sample(self.num_images, y=labels))
            _tell(training, 1)
            if getattr(model, "reconstructs", False):
                batch = _examples(training, self.num_images // 2 or 1)
                pictures = model.reconstruct(batch.x, deterministic=True, y=batch.y)
                widest = 8 if len(model.shape) == 3 else 2  # videos are wide strips of frames
                rows = side_by_side(batch.x.float().cpu(), pictures.float().cpu(), widest)
                columns = min(widest, len(rows) // 2)
                framed = {i for i in range(len(rows)) if i // columns % 2 == 0}
                found["reconstructions"] = to_image(
                    rows, columns, framed=framed, caption="framed: originals; beneath them: reconstructions"
                )
        return found

    def _explored(self, training: Training) -> dict[str, Image.Image]:
        """The latent space: where the data lie in it, and what its points decode to."""
        model: Any = training.model
        if "posterior" not in model.capabilities or len(getattr(model, "latent_shape", ())) != 1:
            return {}
        batch = _examples(training, min(MOST_POINTS, max(2 * NUM_PATHS, MOST_NUMBERS // model.latent_shape[0])))
        with training.evaluating(), fixed_rng(training.seed, Stream.IMAGES):
            _tell(training, 2)
            pieces = [batch[rows] for rows in torch.arange(len(batch)).split(training.trainer.batch_size)]
            z = torch.cat([model.encode(piece.x, piece.y).mean for piece in pieces])
            found = {"latents": latent_space(z, None if batch.y is None else batch.y.cpu())}
            if "likelihood" in model.capabilities and len(model.shape) == 3 and len(z) > 1:
                found["interpolation"] = _interpolation(training, batch, z)
                found["traversal"] = _traversal(training, batch, z)
        return found


def _examples(training: Training, most: int) -> Batch:
    """The first examples of the validation split, or of the training split where there is none."""
    split = training.validation if len(training.validation) else training.train
    return split.batch(torch.arange(min(most, len(split)))).to(training.device)


def _tell(training: Training, done: int) -> None:
    training.call("on_progress", "pictures", done, NUM_PIECES)


def _interpolation(training: Training, batch: Batch, z: Tensor) -> Image.Image:
    """Straight lines between the posterior means of two examples, which stand framed at the ends of the row."""
    model: Any = training.model
    rows = []
    t = torch.linspace(0, 1, NUM_STEPS, device=z.device, dtype=z.dtype)[:, None]
    for first in range(0, min(2 * NUM_PATHS, len(z) // 2 * 2), 2):
        _tell(training, 3 + first // 2)
        a, b = z[first], z[first + 1]
        labels = None if batch.y is None else batch.y[first : first + 1].repeat(NUM_STEPS, *[1] * (batch.y.ndim - 1))
        rows += [batch.x[first, None], model.decode((1 - t) * a + t * b, labels), batch.x[first + 1, None]]
    columns = NUM_STEPS + 2
    tiles = torch.cat([row.float().cpu() for row in rows])
    framed = {i for i in range(len(tiles)) if i % columns in (0, columns - 1)}
    return to_image(
        tiles, columns, framed=framed, caption="framed: two examples; between them: decoded posterior means"
    )


def _traversal(training: Training, batch: Batch, z: Tensor) -> Image.Image:
    """One example with one dimension moved in each row, over the range of the posterior means."""
    model: Any = training.model
    spread, centre = z.std(0, correction=0), z.mean(0)
    chosen = _most_varying(spread, model.group_sizes)
    steps = torch.linspace(-REACH, REACH, NUM_STEPS, device=z.device, dtype=z.dtype)
    labels = None if batch.y is None else batch.y[:1].repeat(NUM_STEPS, *[1] * (batch.y.ndim - 1))
    rows = []
    for number, dimension in enumerate(chosen):
        _tell(training, 3 + NUM_PATHS + number)
        path = z[:1].repeat(NUM_STEPS, 1)
        path[:, dimension] = centre[dimension] + steps * spread[dimension]
        rows.append(model.decode(path, labels).float().cpu())
    return to_image(
        torch.cat(rows),
        NUM_STEPS,
        row_labels=_row_labels(chosen, model.group_sizes),
        caption=f"one example, each dimension from -{REACH:g} to {REACH:g} standard deviations of the posterior means",
    )


def _most_varying(spread: Tensor, group_sizes: Sequence[int]) -> list[int]:
    """The dimensions that vary most; of a hierarchy as many from each group, the top group first."""
    found, share, first = [], max(1, MOST_DIMENSIONS // len(group_sizes)), 0
    for part in spread.split(list(group_sizes)):
        found += (first + part.argsort(descending=True, stable=True)[:share]).tolist()
        first += len(part)
    return found if len(found) <= MOST_DIMENSIONS else found[:: -(-len(found) // MOST_DIMENSIONS)]


def _row_labels(chosen: Sequence[int], group_sizes: Sequence[int]) -> list[str]:
    """The dimension, and before it the group where there are several."""
    if len(group_sizes) == 1:
        return [f"z {dimension}" for dimension in chosen]
    starts = [0, *itertools.accumulate(group_sizes)]
    groups = [bisect.bisect_right(starts, dimension) - 1 for dimension in chosen]
    return [f"{group}: {dimension - starts[group]}" for group, dimension in zip(groups, chosen, strict=True)]


def save_animation(path: Path, frames: list[Path], seconds: float = 0.2) -> None:
    """Join pictures of one size to an endless GIF."""
    images = [Image.open(frame, formats=["PNG"]).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    write_atomic(
        path,
        lambda temporary: images[0].save(
            temporary, format="GIF", save_all=True, append_images=images[1:], duration=int(1000 * seconds), loop=0
        ),
    )
