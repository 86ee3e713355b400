from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vaebench.data.images import Images


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def folder(tmp_path, n: int = 10, shape: tuple[int, ...] = (7, 5), suffix: str = ".png"):
    """A folder of n grey or colour pictures, and their pixels."""
    pictures = [pixels(*shape, seed=i) for i in range(n)]
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i:03d}{suffix}")
    return pictures


def rows_of(data: Images, pictures: list[np.ndarray]) -> list[int]:
    """Which of the pictures each example is, over all splits; every one must be found."""
    seen = torch.cat([b.x for s in (data.train, data.validation, data.test) for b in s.batches()])
    stack = torch.from_numpy(np.stack(pictures))
    stack = stack.permute(0, 3, 1, 2) if stack.ndim == 4 else stack[:, None]
    same = (seen[:, None] == stack[None] / 255).flatten(2).all(-1)
    assert same.any(1).all()
    return same.int().argmax(1).tolist()


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".PNG"])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_picture_appears_once_with_its_pixels_in_place(tmp_path, shape, suffix, streamed):
    pictures = folder(tmp_path, shape=shape, suffix=suffix)
    data = Images(path=str(tmp_path), memory_gib=0 if streamed else 1)
    assert data.shape == (3 if len(shape) == 3 else 1, 7, 5)
    assert sorted(rows_of(data, pictures)) == list(range(10))
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 1, 1)
    assert data.train.in_memory is not streamed
    assert data.likelihood_name == ("discretized_logistic" if len(shape) == 3 else "continuous_bernoulli")
    assert data.num_classes is None


@pytest.mark.parametrize("binarization", ["none", "threshold", "static", "dynamic"])
def test_streamed_equals_in_memory_to_the_bit(tmp_path, binarization):
    folder(tmp_path, n=30)
    in_memory = Images(path=str(tmp_path), binarization=binarization)
    streamed = Images(path=str(tmp_path), binarization=binarization, memory_gib=0)
    order = torch.randperm(24)
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(streamed, part), getattr(in_memory, part)
        rows = order[order < len(theirs)]
        torch.manual_seed(1)
        expected = [b.x for b in theirs.batches(rows, 7)]
        torch.manual_seed(1)
        assert all(torch.equal(b.x, x) for b, x in zip(ours.batches(rows, 7), expected, strict=True))


def test_a_grey_picture_among_colours_gets_three_channels(tmp_path):
    Image.fromarray(pixels(4, 6)).save(tmp_path / "a.png")
    Image.fromarray(pixels(4, 6, 3)).save(tmp_path / "b.png")
    Image.fromarray(pixels(4, 6, 3)).convert("P").save(tmp_path / "c.png")
    data = Images(path=str(tmp_path))
    assert data.shape == (3, 4, 6)
    assert Images(path=str(tmp_path), mode="grey").shape == (1, 4, 6)
    found = [s.batch([0]).x[0] for s in (data.train, data.validation, data.test)]
    grey = torch.from_numpy(pixels(4, 6)) / 255
    assert any(torch.equal(x, grey.expand(3, 4, 6)) for x in found)


def only(tmp_path, **arguments) -> torch.Tensor:
    """x of the picture of which the folder holds three copies."""
    return Images(path=str(tmp_path), **arguments).train.batch([0]).x[0]


def save_thrice(tmp_path, image: Image.Image, suffix: str = ".png", **arguments) -> None:
    for i in range(3):
        image.save(tmp_path / f"{i}{suffix}", **arguments)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_is_white(tmp_path, mode):
    colour = pixels(4, 6, 3)
    image = Image.fromarray(colour).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[0, 0, 0, 255, 255, 255]], 4, 0).astype(np.uint8)))
    if mode == "LA":
        image = image.convert("LA")
    if mode == "PA":
        palette = Image.new("P", (6, 4), 1)
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.paste(0, (0, 0, 3, 4))
        save_thrice(tmp_path, palette, transparency=0)
        expected = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 4, 3)
    else:
        save_thrice(tmp_path, image)
        expected = torch.from_numpy(colour).permute(2, 0, 1)[:, :, 3:] / 255
    x = only(tmp_path)
    assert (x[..., :3] == 1).all()
    if mode == "LA":
        assert x.shape[0] == 1
    else:
        assert torch.equal(x[..., 3:], expected)


def test_sixteen_bits_become_eight(tmp_path):
    wide = np.array([[0, 257, 65535], [128, 129, 300]], dtype=np.uint16)
    save_thrice(tmp_path, Image.fromarray(wide))
    assert (only(tmp_path) * 255).round().int().tolist() == [[[0, 1, 255], [0, 1, 1]]]


def test_one_bit_is_black_and_white(tmp_path):
    bits = pixels(4, 6) > 99
    save_thrice(tmp_path, Image.fromarray(bits))
    assert torch.equal(only(tmp_path)[0], torch.from_numpy(bits).float())


@pytest.mark.parametrize(
    ("suffix", "arguments"), [(".png", {}), (".webp", {"lossless": True}), (".tiff", {"compression": "tiff_lzw"})]
)
def test_a_cameras_orientation_is_applied(tmp_path, suffix, arguments):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right by a quarter when shown
    array = pixels(4, 6)
    save_thrice(tmp_path, Image.fromarray(array), suffix, exif=exif, **arguments)
    x = only(tmp_path, mode="grey")
    assert torch.equal(x[0], torch.from_numpy(np.rot90(array, -1).copy()) / 255)


def test_a_form_that_pillow_misreads_is_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save_thrice(tmp_path, Image.fromarray(pixels(4, 6)), ".tiff", exif=exif)
    with pytest.raises(ValueError, match="lies on its side and is not compressed"):
        Images(path=str(tmp_path))


@pytest.mark.parametrize(("size", "shape"), [(4, (3, 4, 4)), ([4, 6], (3, 4, 6)), ((9, 2), (3, 9, 2))])
def test_pictures_of_any_size_are_scaled_and_cut(tmp_path, size, shape):
    for i, side in enumerate([(8, 12), (12, 8), (30, 9), (1, 1)]):
        Image.new("RGB", side, (10, 20, 30)).save(tmp_path / f"{i}.png")
    data = Images(path=str(tmp_path), size=size)
    assert data.shape == shape
    assert torch.equal(data.train.x, (torch.tensor([10, 20, 30]) / 255)[None, :, None, None].expand(2, *shape))


def test_scaling_keeps_the_middle(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255
    save_thrice(tmp_path, Image.fromarray(wide))
    assert torch.equal(only(tmp_path, size=4), torch.ones(1, 4, 4))


def test_mixed_sizes_name_two_files(tmp_path):
    folder(tmp_path, n=3)
    Image.fromarray(pixels(7, 6)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"got 5x7 in '.*000\.png' and 6x7 in '.*b\.png'; set dataset\.size"):
        Images(path=str(tmp_path))


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    for i, name in enumerate(("zebra", "ant", "äffin/inner")):
        (tmp_path / name).mkdir(parents=True)
        for j in range(4):
            Image.new("L", (3, 3), 10 * i + j).save(tmp_path / name / f"{j}.png")
    data = Images(path=str(tmp_path))
    assert data.num_classes == 3
    for split in (data.train, data.validation, data.test):
        for batch in split.batches():
            values = (batch.x[:, 0, 0, 0] * 255).round() // 10
            assert batch.y.tolist() == [{0: 1, 1: 0, 2: 2}[int(v)] for v in values]


def test_without_folders_for_all_there_are_no_classes(tmp_path):
    (tmp_path / "a").mkdir()
    folder(tmp_path / "a", n=4)
    assert Images(path=str(tmp_path)).num_classes is None
    folder(tmp_path, n=1)
    data = Images(path=str(tmp_path))
    assert data.num_classes is None
    assert data.train.y is None


def test_folders_for_the_parts_are_kept(tmp_path):
    for part, n in (("train", 6), ("val", 2), ("test", 3)):
        for kind in ("a", "b"):
            (tmp_path / part / kind).mkdir(parents=True)
            folder(tmp_path / part / kind, n=n)
    data = Images(path=str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 6)
    assert data.num_classes == 2
    assert data.test.y.tolist() == [0, 0, 0, 1, 1, 1]


def test_hidden_and_other_files_are_passed_over(tmp_path):
    folder(tmp_path, n=5)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._000.png").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_text("no picture")
    data = Images(path=str(tmp_path))
    assert len(data.train) + len(data.validation) + len(data.test) == 5


def test_links_are_followed_but_not_round_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    folder(tmp_path / "real", n=4)
    os.symlink(tmp_path / "real", tmp_path / "set" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "set" / "round")
    Image.fromarray(pixels(7, 5, seed=9)).save(tmp_path / "set" / "höhe 日本 .png")
    data = Images(path=str(tmp_path / "set"))
    assert len(data.train) + len(data.validation) + len(data.test) == 5


def test_a_link_to_nowhere_is_named(tmp_path):
    folder(tmp_path, n=4)
    os.symlink(tmp_path / "gone.png", tmp_path / "link.png")
    with pytest.raises(ValueError, match=r"cannot read '.*link\.png' \(dataset\.path\)"):
        Images(path=str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + b"\xff" * 60])
def test_unreadable_files_are_named(tmp_path, content):
    folder(tmp_path, n=4)
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read '.*bad\.png' \(dataset\.path\)"):
        Images(path=str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tiff"])
def test_a_cut_file_is_named_when_read(tmp_path, suffix):
    folder(tmp_path, n=4, shape=(60, 50), suffix=suffix)
    path = tmp_path / f"002{suffix}"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=rf"cannot read '.*002\{suffix}' \(dataset\.path\)"):
        rows_of(Images(path=str(tmp_path), memory_gib=0), [pixels(60, 50)])
    with pytest.raises(ValueError, match=rf"cannot read '.*002\{suffix}' \(dataset\.path\)"):
        Images(path=str(tmp_path))


def huge_png(width: int, height: int) -> bytes:
    """A tiny file whose header promises a huge picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_picture_too_large_to_be_one_is_refused(tmp_path, side):
    folder(tmp_path, n=4)
    (tmp_path / "huge.png").write_bytes(huge_png(side, side))
    with pytest.raises(ValueError, match=r"cannot read '.*huge\.png' \(dataset\.path\): .*pixels"):
        Images(path=str(tmp_path), size=8)


def test_a_file_that_changes_its_size_later_is_named(tmp_path):
    folder(tmp_path, n=4)
    data = Images(path=str(tmp_path), memory_gib=0)
    for path in tmp_path.iterdir():
        Image.fromarray(pixels(7, 6)).save(path)
    with pytest.raises(ValueError, match=r"expected 5x7 pixels in '.*\.png' \(dataset\.path\), got 6x7"):
        data.train.batch([0])


@pytest.mark.parametrize("content", [b"P5 0 0 255 ", b"P5 0 7 255 ", b"P6 99999999 99999999 255 ", b"P5 5 7 255 "])
def test_headers_that_lie_are_named(tmp_path, content):
    folder(tmp_path, n=4)
    (tmp_path / "bad.pgm").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.pgm"):
        Images(path=str(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path):
    folder(tmp_path, n=4)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match=r"cannot read '.*pipe\.png' \(dataset\.path\)"):
        Images(path=str(tmp_path))


def test_a_name_that_is_no_text_can_be_logged(tmp_path):
    folder(tmp_path, n=4)
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.png", "wb") as file:
        file.write(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read '.*udcff.*\.png' \(dataset\.path\)") as error:
        Images(path=str(tmp_path))
    str(error.value).encode()


def test_float_pictures_are_refused(tmp_path):
    save_thrice(tmp_path, Image.fromarray(pixels(4, 6).astype(np.float32)), ".tiff")
    with pytest.raises(ValueError, match=r"store such data as \.npy"):
        Images(path=str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"path": None}, r"expected dataset\.path to say where the data are"),
        ({"path": "nowhere"}, r"dataset\.path to name existing data, got 'nowhere'"),
        ({"path": __file__}, r"a folder of pictures, got the file"),
        (
            {"path": os.path.dirname(__file__)},
            r"expected pictures in .* got no file that ends in \.avif, .*; left out for their endings: \d+ \(\.py\)",
        ),
        ({"root": __file__}, r"expected dataset\.root to be a folder"),
        ({"size": 0}, r"dataset\.size to be a positive number, or \[height, width\], got 0"),
        ({"size": True}, r"dataset\.size"),
        ({"size": "64"}, r"dataset\.size"),
        ({"size": [4]}, r"dataset\.size"),
        ({"size": [4, 4, 3]}, r"dataset\.size"),
        ({"size": [4, 4.5]}, r"dataset\.size"),
        ({"mode": "gray"}, r"dataset\.mode to be one of .* 'gray'; did you mean 'grey'"),
        ({"memory_gib": -1}, r"dataset\.memory_gib"),
        ({"num_examples": 9}, r"dataset\.num_examples from 1 to 8"),
        ({"binarization": "dinamic"}, r"'dinamic'; did you mean 'dynamic'"),
        ({"test_fraction": 1}, r"dataset\.test_fraction from 0 to below 1"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, arguments, sentence):
    folder(tmp_path)
    with pytest.raises(ValueError, match=sentence) as error:
        Images(**{"path": str(tmp_path), **arguments})
    assert "\n" not in str(error.value)
