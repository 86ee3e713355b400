"""Grids of images, pixel by pixel; files whole or not at all."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from vaebench.runs import images
from vaebench.runs.images import BACKGROUND, MIN_TILE, save_image, side_by_side, to_image


def _pixels(image):
    return np.asarray(image).astype(int)


def test_a_small_grid_pixel_by_pixel(monkeypatch):
    monkeypatch.setattr(images, "MIN_TILE", 1)
    tiles = torch.tensor([[[[0.0, 1.0]]], [[[0.29, 0.4]]], [[[0.6, 0.8]]]])  # three pictures of 1 x 2
    b = BACKGROUND
    expected = [
        [b, b, b, b, b, b, b],
        [b, 0, 255, b, 74, 102, b],
        [b, b, b, b, b, b, b],
        [b, 153, 204, b, b, b, b],
        [b, b, b, b, b, b, b],
    ]
    grid = _pixels(to_image(tiles, columns=2, gap=1))
    assert grid.shape == (5, 7, 3)
    for channel in range(3):
        assert grid[..., channel].tolist() == expected


def test_colours_keep_their_channels(monkeypatch):
    monkeypatch.setattr(images, "MIN_TILE", 1)
    tile = torch.tensor([1.0, 0.6, 0.2]).reshape(1, 3, 1, 1)
    assert _pixels(to_image(tile, gap=0)).tolist() == [[[255, 153, 51]]]


def test_small_tiles_are_enlarged_by_whole_factors():
    tile = torch.rand(1, 1, 8, 5).mul(255).round().div(255)
    grid = _pixels(to_image(tile, gap=2))
    factor = MIN_TILE // 8
    assert grid.shape == (8 * factor + 4, 5 * factor + 4, 3)
    inner = grid[2:-2, 2:-2, 0]
    assert (inner[::factor, ::factor] == (tile[0, 0] * 255).round().int().numpy()).all()
    assert (inner == np.kron(inner[::factor, ::factor], np.ones((factor, factor), int))).all()


def test_large_tiles_keep_their_size():
    assert to_image(torch.zeros(1, 3, 80, 60), gap=0).size == (60, 80)


def test_other_channel_counts_show_the_first_and_values_are_cut(monkeypatch):
    monkeypatch.setattr(images, "MIN_TILE", 1)
    tile = torch.tensor([1.7, -3.0]).reshape(1, 2, 1, 1)
    assert _pixels(to_image(tile, gap=0)).tolist() == [[[255, 255, 255]]]
    tile = torch.tensor([float("nan"), -3.0]).reshape(2, 1, 1, 1)
    assert not _pixels(to_image(tile, gap=0)).any()


@pytest.mark.parametrize(("n", "columns", "expected"), [(1, None, (1, 1)), (9, None, (3, 3)), (10, None, (4, 3))])
def test_the_default_grid_is_about_square(n, columns, expected):
    width, height = to_image(torch.zeros(n, 1, 60, 60), columns, gap=0).size
    assert (width / 60, height / 60) == expected


def test_no_more_columns_than_pictures():
    assert to_image(torch.zeros(2, 1, 60, 60), columns=8, gap=0).size == (120, 60)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4), (1, 4, 4)])
def test_refuses_what_is_no_batch_of_images(shape):
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\) or videos \(N, T, C, H, W\) with N >= 1"):
        to_image(torch.zeros(shape))


def test_reconstructions_lie_beneath_their_originals():
    originals = torch.arange(16.0)
    order = side_by_side(originals, 100 + originals)
    assert order.reshape(4, 8)[:, 0].tolist() == [0, 100, 8, 108]
    few = side_by_side(originals[:3], 100 + originals[:3])
    assert few.tolist() == [0, 1, 2, 100, 101, 102]


def test_saves_a_png_that_reads_back(tmp_path):
    path = tmp_path / "new" / "grid.png"
    images = torch.rand(3, 1, 4, 6)
    save_image(path, images, columns=3)
    assert (_pixels(Image.open(path)) == _pixels(to_image(images, columns=3))).all()
    assert [entry.name for entry in path.parent.iterdir()] == ["grid.png"]


@pytest.mark.parametrize("moment", ["save", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, moment):
    path = tmp_path / "grid.png"
    save_image(path, torch.zeros(1, 1, 4, 4))
    before = path.read_bytes()

    def half_written(self, file, format):
        file.write(b"half")
        raise OSError("no space left on device")

    def interrupted(source, target):
        raise KeyboardInterrupt

    if moment == "save":
        monkeypatch.setattr(Image.Image, "save", half_written)
    else:
        monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises((OSError, KeyboardInterrupt)):
        save_image(path, torch.ones(1, 1, 4, 4))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.png"]


def test_an_unfinished_file_never_bears_the_final_name(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    save = Image.Image.save

    def spy(self, file, format):
        save(self, file, format=format)
        assert not path.exists()  # a kill here would leave no half picture under the name

    monkeypatch.setattr(Image.Image, "save", spy)
    save_image(path, torch.zeros(1, 1, 4, 4))
    assert path.exists()


def test_frames_labels_and_a_caption(monkeypatch):
    monkeypatch.setattr(images, "MIN_TILE", 1)
    tiles = torch.zeros(4, 1, 20, 20)
    plain = to_image(tiles, 2)
    framed = _pixels(to_image(tiles, 2, framed={1, 2}))
    assert framed.shape == _pixels(plain).shape
    for edge, left, is_framed in ((1, 10, False), (1, 32, True), (45, 10, True), (45, 32, False)):
        assert (framed[edge, left].tolist() == list(images.FRAME)) is is_framed
        assert framed[12, left].tolist() == framed[34, left].tolist() == [0, 0, 0]
    written = to_image(tiles, 2, row_labels=["z 3", "z 12"], caption="a line that is longer than the grid is wide")
    margin = written.width - plain.width
    assert written.height == plain.height + images.FONT_SIZE + 8
    assert margin > 0
    labels = _pixels(written)[: plain.height, :20]
    assert min(labels[:22].max(), labels[22:].max()) > 200  # both rows have words beside them
