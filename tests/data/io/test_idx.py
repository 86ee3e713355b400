from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from vaebench.data.fashion_mnist import FashionMNIST
from vaebench.data.io.idx import read_idx
from vaebench.data.mnist import MNIST

CLASSES = {"MNIST": MNIST, "FashionMNIST": FashionMNIST}


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(root, name: str, *, packed: bool = True, sizes: tuple[int, int] = (20, 6)) -> dict[str, np.ndarray]:
    """Small files in the published form; returns what they hold."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    arrays = {}
    for part, n in zip(("train", "t10k"), sizes, strict=True):
        arrays[f"{part}-images-idx3-ubyte"] = random.randint(0, 256, (n, 28, 28)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = random.randint(0, 10, n).astype(np.uint8)
    for stem, array in arrays.items():
        if packed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / stem).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("packed", [True, False])
def test_the_published_form_is_read(tmp_path, name, packed, offline):
    arrays = write(tmp_path, name, packed=packed)
    before = sorted(tmp_path.rglob("*"))
    data = CLASSES[name](root=str(tmp_path), num_validation=5)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 5, 6)
    assert data.shape == (1, 28, 28)
    expected = torch.from_numpy(arrays["t10k-images-idx3-ubyte"])[:, None] / 255
    assert torch.equal(data.test.x, expected)
    assert data.test.y.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    pixels = torch.cat([data.train.x, data.validation.x]).flatten(1).sum(1).sort().values
    assert torch.allclose(
        pixels, torch.from_numpy(arrays["train-images-idx3-ubyte"] / 255.0).flatten(1).sum(1).float().sort().values
    )
    assert sorted(tmp_path.rglob("*")) == before
    assert offline == []


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("MNIST", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("FashionMNIST", [6000] * 10),
    ],
)
def test_the_real_files(shared, name, counts):
    root = shared(f"{name}/raw").parents[1]
    data = CLASSES[name](root=str(root))
    assert (len(data.train), len(data.validation), len(data.test)) == (50000, 10000, 10000)
    assert (data.train.y.bincount() + data.validation.y.bincount()).tolist() == counts
    assert data.likelihood_name == "continuous_bernoulli"
    assert data.num_classes == 10
    mean = (data.train.x.double().sum() + data.validation.x.double().sum()) / (60000 * 784)
    assert mean.item() == pytest.approx(
        {"MNIST": 0.1306604762738429, "FashionMNIST": 0.2860405969887955}[name], abs=1e-7
    )


def test_binarised_grey_takes_a_bernoulli(tmp_path):
    write(tmp_path, "MNIST")
    data = MNIST(root=str(tmp_path), num_validation=5, binarization="dynamic", num_examples=4)
    assert len(data.train) == 4
    assert data.likelihood_name == "bernoulli"
    batch = data.train.batch([0, 1])
    assert ((batch.x == 0) | (batch.x == 1)).all()
    assert not torch.equal(batch.x, data.train.batch([0, 1]).x)


def test_a_missing_file_without_a_network_is_one_sentence(tmp_path, offline):
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz' is not there .* set dataset\.root to the folder"
    ) as error:
        MNIST(root=str(tmp_path / "data"))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert offline


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot read|got other content"),
        (b"no gzip at all", "cannot read"),
        (gzip.compress(idx(np.zeros((3, 2, 2), np.uint8)), mtime=0)[:-9], "cannot read"),
        (gzip.compress(b"\x00\x00\x0d\x01rest", mtime=0), "an idx file of bytes, got other content"),
        (gzip.compress(idx(np.zeros((3, 2, 2), np.uint8))[:-1], mtime=0), r"array of shape \(3, 2, 2\), got 11 bytes"),
        (gzip.compress(bytes([0, 0, 8, 3, 0]), mtime=0), "expected"),
        (gzip.compress(bytes([0, 0, 8, 2]) + b"\xff" * 8, mtime=0), "expected"),
        (gzip.compress(bytes([0, 0, 8, 0]) + b"x", mtime=0), "expected"),
        (gzip.compress(bytes([0, 0, 8, 4]) + struct.pack(">I", 2**16) * 4, mtime=0), "expected"),
        (gzip.compress(bytes([0, 0, 8, 99]) + struct.pack(">I", 1) * 99 + b"x", mtime=0), "expected"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_idx(path)
    assert "dataset.root" in str(error.value)
    assert path.name in str(error.value)


def test_labels_must_be_as_many_as_pictures(tmp_path):
    write(tmp_path, "MNIST")
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(5, np.uint8))))
    with pytest.raises(ValueError, match=r"shapes \(6, 28, 28\) and \(5,\)"):
        MNIST(root=str(tmp_path), num_validation=5)


def test_labels_beyond_nine_are_refused(tmp_path):
    write(tmp_path, "MNIST")
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(6, 10, np.uint8))))
    with pytest.raises(ValueError, match=r"labels from 0 to 9 in .*t10k-labels-idx1-ubyte\.gz"):
        MNIST(root=str(tmp_path), num_validation=5)


def test_no_pictures_are_refused(tmp_path):
    write(tmp_path, "MNIST", sizes=(0, 6))
    with pytest.raises(ValueError, match=r"expected pictures in .* got shape \(0, 28, 28\)"):
        MNIST(root=str(tmp_path), num_validation=0)


def test_more_validation_than_pictures_is_refused(tmp_path):
    write(tmp_path, "MNIST")
    with pytest.raises(ValueError, match=r"dataset\.num_validation from 0 to 19, .* got 10000"):
        MNIST(root=str(tmp_path))


def test_a_packed_file_that_unfolds_further_than_it_says_is_not_unfolded(tmp_path, monkeypatch):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 10) + bytes(50_000_000)))
    read: list[int] = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: read.append(size) or original(self, size))
    with pytest.raises(ValueError, match="got more than 10 bytes"):
        read_idx(path)
    assert 0 <= min(read) <= max(read) <= 11
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2]) + struct.pack(">2I", 2**20, 2**20)))
    with pytest.raises(ValueError, match="at most 1073741824 bytes, got the shape"):
        read_idx(path)
