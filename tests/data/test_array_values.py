"""What an array's values mean: told in one line, and warned of by the key that settles it; and files that unfold."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest
import torch

from tests.data.test_arrays import byte_pictures, everything, save
from vaebench.data.arrays import Arrays


def found(tmp_path, array, **arguments) -> Arrays:
    path = str(tmp_path / "x.npy")
    np.save(path, array)
    streamed = Arrays(path=path, memory_gib=0, **arguments)
    data = Arrays(path=path, **arguments)
    for split in ("train", "validation", "test"):
        rows = torch.arange(len(getattr(data, split)))
        assert torch.equal(getattr(data, split).batch(rows).x, getattr(streamed, split).batch(rows).x)
    assert data.cautions == streamed.cautions
    return data


@pytest.mark.parametrize(
    ("array", "largest", "kept_by", "cured_by", "likelihood"),
    [
        # array, its largest x, a scale that keeps it, one that changes it, the likelihood then
        (byte_pictures(20, 6, 6).astype(np.float32), 255, 1, 255, "continuous_bernoulli"),
        (byte_pictures(20, 36).astype(np.float64), 255, 1, 255, "continuous_bernoulli"),
        (byte_pictures(20, 6, 6) * np.float32(0.99), 255 * 0.99, 1, 255, "continuous_bernoulli"),
        (byte_pictures(20, 6, 6) / np.float32(127.5) - 1, 1, 1, None, ""),
        (byte_pictures(20, 6, 6) / np.float32(250), 1.02, 1, None, ""),
        ((byte_pictures(20, 6, 6) % 101).astype(np.float32), 100, 1, 100, "binomial"),
        (byte_pictures(20, 6, 6).astype(np.int64) % 10, 9 / 255, 255, 9, "binomial"),
        (byte_pictures(20, 6, 6) % 17, 16 / 255, 255, 16, "binomial"),
        (byte_pictures(20, 6, 6).astype(np.uint16) * 16 + 15, 4095 / 65535, 65535, 4095, "continuous_bernoulli"),
    ],
)
def test_what_is_ambiguous_is_a_warning_that_its_key_settles(tmp_path, array, largest, kept_by, cured_by, likelihood):
    data = found(tmp_path, array)
    (caution,) = data.cautions
    assert f"dataset.scale={kept_by}" in caution
    assert everything(data).max().item() == pytest.approx(largest, rel=1e-6)
    kept = found(tmp_path, array, scale=kept_by)
    assert kept.cautions == ()
    assert torch.equal(everything(kept), everything(data))
    if cured_by is not None:
        assert f"dataset.scale={cured_by}" in caution
        cured = found(tmp_path, array, scale=cured_by)
        assert cured.cautions == ()
        assert everything(cured).max().item() == pytest.approx(array.max() / cured_by)
        assert cured.likelihood_name == likelihood


@pytest.mark.parametrize(
    ("array", "words", "likelihood", "largest"),
    [
        (byte_pictures(20, 6, 6), "uint8 from 0 to 255, x = k / 255", "continuous_bernoulli", 1),
        (byte_pictures(20, 6, 6).astype(np.uint16) * 257, "x = k / 65535", "continuous_bernoulli", 1),
        ((byte_pictures(20, 6, 6) > 99) * np.uint8(255), "black and white (k / 255)", "bernoulli", 1),
        (byte_pictures(20, 6, 6) > 99, "bool from 0 to 1, black and white", "bernoulli", 1),
        (byte_pictures(20, 6, 6) / 255, "float64 from 0 to 1, as they are", "continuous_bernoulli", 1),
        (np.random.RandomState(0).randn(20, 5), "float64 from -", "gaussian", None),
    ],
)
def test_what_is_clear_is_told_and_no_more(tmp_path, array, words, likelihood, largest):
    data = found(tmp_path, array)
    assert data.cautions == ()
    assert words in data.found
    assert "16 train, 2 validation, 2 test" in data.found
    assert data.likelihood_name == likelihood
    if largest is not None:
        assert everything(data).max().item() == largest


@pytest.mark.parametrize("array", [np.zeros((20, 6, 6), np.uint8), np.full((20, 4), 2.5), np.full((20, 6, 6), 7)])
def test_values_that_are_all_equal_are_a_warning(tmp_path, array):
    (caution,) = found(tmp_path, array).cautions
    assert caution.endswith(f"is {array.flat[0]:g}: there is nothing to learn")


def test_pixels_a_little_outside_the_unit_interval_are_to_be_clipped(tmp_path):
    array = np.clip(byte_pictures(20, 6, 6) / 255, -1e-6, 1) - 1e-7
    (caution,) = found(tmp_path, array).cautions
    assert "clip them to [0, 1]" in caution
    assert "255" not in caution


def test_classes_that_no_training_example_has_are_a_warning(tmp_path):
    x, y = byte_pictures(20, 6, 6), np.arange(20) % 3
    path = tmp_path / "x.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:4], y_test=np.array([0, 5, 6, 5]))
    data = Arrays(path=str(path))
    assert data.num_classes == 5
    assert data.cautions[0].startswith("2 of the classes of the test examples never occur")
    np.savez(path, x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    assert Arrays(path=str(path)).cautions == ()


def test_what_a_file_lacks_or_has_twice_is_said(tmp_path):
    x, path = byte_pictures(20, 6, 6), tmp_path / "x.npz"
    np.savez(path, x=x, y=np.eye(4, dtype=int)[np.arange(20) % 4])
    with pytest.raises(
        ValueError, match=r"set dataset.labels_key to none, or store y.argmax\(1\) if they are one-hot$"
    ):
        Arrays(path=str(path))
    np.save(tmp_path / "x.npy", x)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "x.npy", "a.npy")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.write(tmp_path / "x.npy", "a.npy")
    with pytest.raises(ValueError, match=r"it has 2 entries of the name 'a.npy'$"):
        Arrays(path=str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "x.npy", "a.npy")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\(dataset.path\): it is encrypted$"):
        Arrays(path=str(path))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-9])
    for memory_gib in (0, 1):
        with pytest.raises(ValueError, match=r"it ends 9 bytes before its header says"):
            Arrays(path=str(tmp_path / "x.npy"), memory_gib=memory_gib)


def test_a_scale_below_the_values_leaves_the_unit_interval(tmp_path):
    data = found(tmp_path, byte_pictures(20, 6, 6), scale=100)
    assert data.likelihood_name == "gaussian"
    assert everything(data).max().item() == pytest.approx(byte_pictures(20, 6, 6).max() / 100)
    negative = found(tmp_path, byte_pictures(20, 6).astype(np.int64) - 128, scale=1)
    assert everything(negative).min().item() == byte_pictures(20, 6).min() - 128.0


def test_a_pytorch_file_is_told_how_to_become_arrays(tmp_path):
    torch.save(torch.zeros(4, 3), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"is a PyTorch file, a pickle .* numpy\.savez\('x\.npz'"):
        Arrays(path=str(tmp_path / "x.pt"))


@pytest.mark.parametrize("form", ["npy", "npz"])
@pytest.mark.parametrize("sign", ["-", "(", "~"])
def test_a_deep_header_is_one_sentence(tmp_path, form, sign):
    close = ")" * 9000 if sign == "(" else ""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({sign * 9000}1{close},), }}\n".encode()[:60000]
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(20)
    path = tmp_path / f"x.{form}"
    if form == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*dataset\.path"):
        Arrays(path=str(path))


def test_a_header_that_unfolds_is_not_read(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 2**20)
    with pytest.raises(ValueError, match="header takes 2147483648 bytes, more than 10000"):
        Arrays(path=str(path))


def test_a_file_that_is_two_formats_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", byte_pictures(40, 8, 8))
    np.savez(tmp_path / "b.npz", x=byte_pictures(40, 8, 8))
    path = tmp_path / "x.npz"
    path.write_bytes((tmp_path / "a.npy").read_bytes() + (tmp_path / "b.npz").read_bytes())
    with pytest.raises(ValueError, match=r"holds \d+ bytes more than its header says"):
        Arrays(path=str(path))


def test_labels_count_as_memory(tmp_path):
    header = b"{'descr': '<U40000000', 'fortran_order': False, 'shape': (40,), }\n"
    path = tmp_path / "x.npz"
    np.savez(path, x=byte_pictures(40, 8, 8))
    with zipfile.ZipFile(path, "a") as archive:  # a header alone: nothing of what it promises may be asked for
        archive.writestr("y.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(ValueError, match=r"at most dataset\.memory_gib=3 to read 'x' and 'y' .* got 23\.8 GiB"):
        Arrays(path=str(path))


def test_memory_is_counted_with_its_copies(tmp_path):
    path = save(tmp_path, x=byte_pictures(1000, 100))
    Arrays(path=path, memory_gib=3.01e5 / 2**30)  # the array, what is kept of it, and the splits
    with pytest.raises(ValueError, match=r"copies included"):
        Arrays(path=path, memory_gib=2.99e5 / 2**30)
