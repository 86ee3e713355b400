"""What a picture's values mean: bits, ranges, black and white; and what is left out."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_images import pixels
from vaebench.data.images import Images


def fill(tmp_path, image, suffix=".tif", number=12):
    for i in range(number):
        image.save(tmp_path / f"{i}{suffix}")
    return Images(path=str(tmp_path))


@pytest.mark.parametrize(
    ("dtype", "top"),
    [(np.int32, 255), (np.int32, 65535), (np.uint16, 65535), (np.float32, 1)],
)
def test_grey_of_more_than_eight_bits_keeps_its_levels(tmp_path, dtype, top):
    levels = np.arange(256).reshape(16, 16)
    data = fill(tmp_path, Image.fromarray((levels / 255 * top).astype(dtype)))
    assert sorted((data.train.x[0] * 255).round().int().flatten().tolist()) == list(range(256))
    assert f"12 of more than 8 bits ({np.dtype(dtype).name} from 0 to {top}), brought to 8 (k / {top})" in data.found
    assert data.cautions == ()


def test_the_range_of_all_pictures_decides(tmp_path):
    """A dark picture of 16 bits among bright ones is no picture of 8 bits."""
    Image.fromarray(np.full((4, 4), 200, dtype=np.int32)).save(tmp_path / "dark.tif")
    data = fill(tmp_path, Image.fromarray(np.full((4, 4), 60000, dtype=np.int32)))
    x = torch.cat([data.train.x, data.validation.x, data.test.x])
    assert sorted({round(255 * value) for value in x.flatten().tolist()}) == [round(200 / 257), round(60000 / 257)]


def test_twelve_bits_are_a_warning_that_its_key_settles(tmp_path):
    twelve = (np.arange(64).reshape(8, 8) * 65).astype(np.uint16)
    data = fill(tmp_path, Image.fromarray(twelve))
    assert "set dataset.scale=4095" in data.cautions[0]
    data = Images(path=str(tmp_path), scale=4095)
    assert data.cautions == ()
    assert data.train.x.max().item() == 1
    with pytest.raises(ValueError, match=r"grey values from 0 to 4095 leave 0 to 255 \(dataset\.scale\)"):
        Images(path=str(tmp_path), scale=255)


def test_floats_beyond_the_unit_interval_need_a_scale(tmp_path):
    with pytest.raises(ValueError, match=r"set dataset\.scale to the value that is white"):
        fill(tmp_path, Image.fromarray(pixels(4, 6).astype(np.float32)))
    data = Images(path=str(tmp_path), scale=255)
    assert torch.equal((data.train.x[0, 0] * 255).round().to(torch.uint8), torch.from_numpy(pixels(4, 6)))


@pytest.mark.parametrize("memory_gib", [0, 1])
def test_black_and_white_has_a_bernoulli(tmp_path, memory_gib):
    fill(tmp_path, Image.fromarray(pixels(4, 6) > 99), ".png")
    data = Images(path=str(tmp_path), memory_gib=memory_gib)
    assert data.likelihood_name == "bernoulli"
    assert "12 pictures, black and white" in data.found


def test_black_and_white_in_eight_bits_is_the_same(tmp_path):
    data = fill(tmp_path, Image.fromarray((pixels(4, 6) > 99) * np.uint8(255)), ".png")
    assert data.likelihood_name == "bernoulli"
    assert set(data.train.x.flatten().tolist()) == {0, 1}


def test_what_is_left_out_is_counted(tmp_path):
    picture = Image.fromarray(pixels(4, 6))
    for name in ("a.jfif", "b.jpe"):
        picture.save(tmp_path / name, format="JPEG")
    for name in ("notes.txt", "more.txt", "README"):
        (tmp_path / name).write_text("text")
    data = fill(tmp_path, picture, ".png", 10)
    assert "has 12 pictures, grey; left out for their endings: 2 (.txt), 1 (no ending)" in data.found


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_no_program_is_started_for_postscript(tmp_path, monkeypatch, name):
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    monkeypatch.setattr(os, "system", lambda *a: pytest.fail("a program was started"))
    fill(tmp_path, Image.fromarray(pixels(4, 6)), ".png")
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / name).write_text(eps)
    with pytest.raises(ValueError, match="no picture that Pillow knows"):
        Images(path=str(tmp_path), size=8)
