from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from vaebench.data.binarized_mnist import MD5, BinarizedMNIST


def bits(n: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 2, (n, 784)).astype(np.uint8)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {"train": bits(7, 0), "valid": bits(3, 1), "test": bits(4, 2)}


def write_amat(folder, arrays) -> None:
    for part, array in arrays.items():
        lines = "".join(" ".join(map(str, row)) + "\n" for row in array)
        (folder / f"binarized_mnist_{part}.amat").write_text(lines)


@pytest.mark.parametrize("form", ["npz", "amat"])
def test_both_forms_give_the_same(tmp_path, arrays, form, offline):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    if form == "npz":
        np.savez(folder / "binarized_mnist.npz", **arrays)
    else:
        write_amat(folder, arrays)
    data = BinarizedMNIST(root=str(tmp_path))
    for split, part in ((data.train, "train"), (data.validation, "valid"), (data.test, "test")):
        assert torch.equal(split.x, torch.from_numpy(arrays[part]).reshape(-1, 1, 28, 28).float())
        assert split.y is None
    assert data.shape == (1, 28, 28)
    assert data.num_classes is None
    assert data.likelihood_name == "bernoulli"
    assert offline == []


def test_the_real_file_is_the_published_one(shared):
    data = BinarizedMNIST(root=str(shared("binarized_mnist/binarized_mnist.npz").parents[1]))
    for split, part in ((data.train, "train"), (data.validation, "valid"), (data.test, "test")):
        # Written as the text that Larochelle published it has the checksum that a download is compared with.
        text = np.full((len(split), 2 * 784), ord(" "), np.uint8)
        text[:, ::2] = split.x.reshape(-1, 784).to(torch.uint8).numpy() + ord("0")
        text[:, -1] = ord("\n")
        assert hashlib.md5(text.tobytes(), usedforsecurity=False).hexdigest() == MD5[part]
    assert (len(data.train), len(data.validation), len(data.test)) == (50000, 10000, 10000)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"valid": None}, r"expected arrays train, valid and test of 784 columns"),
        ({"test": np.zeros((2, 100), np.uint8)}, r"784 columns .* test \(2, 100\)"),
        ({"train": np.zeros((0, 784), np.uint8)}, r"784 columns"),
        ({"train": bits(2, 0) * 255}, r"expected 0 and 1 in 'train'"),
        ({"train": np.full((2, 784), np.nan)}, r"expected 0 and 1 in 'train'"),
        ({"train": np.full((2, 784), "a")}, r"expected 0 and 1 in 'train'"),
    ],
)
def test_other_arrays_are_one_sentence(tmp_path, arrays, change, sentence):
    (tmp_path / "binarized_mnist").mkdir()
    arrays = {part: array for part, array in {**arrays, **change}.items() if array is not None}
    np.savez(tmp_path / "binarized_mnist/binarized_mnist.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        BinarizedMNIST(root=str(tmp_path))


@pytest.mark.parametrize("text", ["", "0 1 0\n", "0 " * 783 + "2\n", "<html>0101</html>"])
def test_other_text_is_one_sentence(tmp_path, arrays, text):
    (tmp_path / "binarized_mnist").mkdir()
    write_amat(tmp_path / "binarized_mnist", arrays)
    (tmp_path / "binarized_mnist/binarized_mnist_valid.amat").write_text(text)
    with pytest.raises(ValueError, match=r"expected lines of 784 times 0 or 1 in .*valid\.amat.*dataset\.root"):
        BinarizedMNIST(root=str(tmp_path))


def test_missing_without_a_network_is_one_sentence(tmp_path, offline):
    with pytest.raises(ValueError, match=r"binarized_mnist_train\.amat' is not there .*dataset\.root"):
        BinarizedMNIST(root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
