"""Samples and reconstructions to look at."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from vaebench.hardware.random_streams import Stream, fixed_rng
from vaebench.messages import check_range
from vaebench.runs.images import save_image, side_by_side, to_image
from vaebench.runs.run import write_atomic
from vaebench.trainers.callbacks.callback import Callback
from vaebench.trainers.training import Training

if TYPE_CHECKING:
    from pathlib import Path


log = logging.getLogger(__name__)


class ImagesCallback(Callback):
    """Writes images/samples.png and images/reconstructions.png, at the end or over epochs too.

    The same latents and the same validation images are shown every time. What a model cannot give (samples of one
    without a prior), or data that are no images, is left out.

    Args:
        every_epochs: Epochs between pictures, then also kept as epoch-00010-samples.png; null: at the end only.
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
        if self.every_epochs is not None and training.epoch % self.every_epochs == 0:
            for name, images in self._images(training).items():
                self._write(training, f"epoch-{training.epoch:05d}-{name}.png", images)

    def on_train_end(self, training: Training) -> None:
        """Write the final pictures, and the animations."""
        for name, images in self._images(training).items():
            self._write(training, f"{name}.png", images)
            if self.animation and training.run is not None:
                frames = sorted(training.run.images.glob(f"epoch-*-{name}.png"))
                if frames:
                    save_animation(training.run.images / f"{name}.gif", frames)

    def _write(self, training: Training, name: str, images: Tensor) -> None:
        if training.run is not None:
            columns = min(8, len(images) // 2) if "reconstructions" in name else None
            save_image(training.run.images / name, to_image(images, columns))

    def _images(self, training: Training) -> dict[str, Tensor]:
        model: Any = training.model
        if len(model.shape) != 3 or training.run is None:
            return {}
        found = {}
        with training.evaluating(), fixed_rng(training.seed, Stream.IMAGES):
            if {"prior", "likelihood"} <= model.capabilities:
                labels = model.draw_labels(self.num_images)
                found["samples"] = model.sample(self.num_images, y=labels).float().cpu()
            split = training.validation if len(training.validation) else training.train
            if {"posterior", "likelihood"} <= model.capabilities:
                batch = split.batch(torch.arange(min(self.num_images // 2 or 1, len(split)))).to(training.device)
                pictures = model.reconstruct(batch.x, deterministic=True, y=batch.y)
                found["reconstructions"] = side_by_side(batch.x.float().cpu(), pictures.float().cpu())
        return found


def save_animation(path: Path, frames: list[Path], seconds: float = 0.2) -> None:
    """Join pictures of one size to an endless GIF."""
    images = [Image.open(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    write_atomic(
        path,
        lambda temporary: images[0].save(
            temporary, format="GIF", save_all=True, append_images=images[1:], duration=int(1000 * seconds), loop=0
        ),
    )
