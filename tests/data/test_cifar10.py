from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

from vaebench.data.cifar10 import BATCHES, CIFAR10
from vaebench.data.io.torchvision_import import import_torchvision

N = 6


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.RandomState(0)
    return {
        name: (random.randint(0, 256, (N, 3, 32, 32)).astype(np.uint8), random.randint(0, 10, N)) for name in BATCHES
    }


def binary(x: np.ndarray, y: np.ndarray) -> bytes:
    return np.concatenate([y[:, None].astype(np.uint8), x.reshape(len(x), -1)], axis=1).tobytes()


def python(x: np.ndarray, y: np.ndarray) -> bytes:
    return pickle.dumps({b"data": x.reshape(len(x), -1), b"labels": y.tolist(), b"batch_label": b"one"}, protocol=4)


def write(root, form: str) -> None:
    kind, container = form.split("-")
    folder = f"cifar-10-batches-{'bin' if kind == 'binary' else 'py'}"
    files = {
        f"{folder}/{name}{'.bin' if kind == 'binary' else ''}": (binary if kind == "binary" else python)(x, y)
        for name, (x, y) in batches().items()
    }
    if container == "folder":
        (root / folder).mkdir()
        for name, content in files.items():
            (root / name).write_bytes(content)
        return
    with tarfile.open(root / f"cifar-10-{kind}.tar.gz", "w:gz") as archive:
        for name, content in {f"{folder}/readme.html": b"hello", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def published(monkeypatch):
    """Let the small pickles of these tests count as the published ones."""
    sums = [hashlib.md5(python(x, y), usedforsecurity=False).hexdigest() for x, y in batches().values()]
    cifar = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[name, s] for name, s in zip(BATCHES[:5], sums[:5], strict=True)])
    monkeypatch.setattr(cifar, "test_list", [[BATCHES[5], sums[5]]])


@pytest.mark.parametrize("form", ["binary-folder", "binary-archive", "python-folder", "python-archive"])
def test_every_published_form_gives_the_same(tmp_path, form, published, offline):
    write(tmp_path, form)
    data = CIFAR10(root=str(tmp_path), num_validation=4)
    x, y = batches()["test_batch"]
    assert torch.equal(data.test.x, torch.from_numpy(x) / 255)
    assert data.test.y.tolist() == y.tolist()
    assert (len(data.train), len(data.validation), len(data.test)) == (5 * N - 4, 4, N)
    ours = torch.cat([data.train.x, data.validation.x]).flatten(1).sort(0).values
    theirs = torch.cat([torch.from_numpy(batches()[name][0]) / 255 for name in BATCHES[:5]]).flatten(1).sort(0).values
    assert torch.equal(ours, theirs)
    assert data.shape == (3, 32, 32)
    assert data.num_classes == 10
    assert data.likelihood_name == "discretized_logistic"
    assert data.likelihood.num_levels == 256
    assert offline == []


def test_torchvision_reads_the_same(tmp_path, published, monkeypatch):
    write(tmp_path, "python-folder")
    cifar = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(cifar, "_check_integrity", lambda self: True)
    monkeypatch.setattr(cifar, "_load_meta", lambda self: None)
    # Pickles of Python 3 have byte keys where the published ones, of Python 2, decode to text.
    for name, (x, y) in batches().items():
        content = pickle.dumps({"data": x.reshape(len(x), -1), "labels": y.tolist()}, protocol=4)
        (tmp_path / "reference").mkdir(exist_ok=True)
        (tmp_path / "reference" / "cifar-10-batches-py").mkdir(exist_ok=True)
        (tmp_path / "reference" / "cifar-10-batches-py" / name).write_bytes(content)
    reference = cifar(str(tmp_path / "reference"), train=False)
    data = CIFAR10(root=str(tmp_path), num_validation=4)
    assert torch.equal(data.test.x, torch.from_numpy(reference.data).permute(0, 3, 1, 2) / 255)
    assert data.test.y.tolist() == list(reference.targets)


class Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("is_published", [False, True])
def test_a_pickle_that_runs_code_runs_none(tmp_path, is_published, monkeypatch):
    write(tmp_path, "python-folder")
    content = pickle.dumps(Attack())
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(content)
    if is_published:
        sums = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(import_torchvision().datasets.CIFAR10, "train_list", [["data_batch_1", sums]])
    with pytest.raises(ValueError, match="is not allowed" if is_published else "published checksum"):
        CIFAR10(root=str(tmp_path), num_validation=4)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda root: (root / "cifar-10-batches-bin/test_batch.bin").unlink(), "expected 'test_batch.bin' in"),
        (lambda root: (root / "cifar-10-batches-bin/test_batch.bin").write_bytes(b""), "rows of 3073 bytes"),
        (lambda root: (root / "cifar-10-batches-bin/test_batch.bin").write_bytes(bytes(3072)), "rows of 3073 bytes"),
        (
            lambda root: (root / "cifar-10-batches-bin/test_batch.bin").write_bytes(bytes([10] * 3073)),
            "labels from 0 to 9",
        ),
    ],
)
def test_damaged_folders_are_one_sentence(tmp_path, damage, sentence):
    write(tmp_path, "binary-folder")
    damage(tmp_path)
    with pytest.raises(ValueError, match=sentence) as error:
        CIFAR10(root=str(tmp_path), num_validation=4)
    assert "dataset.root" in str(error.value)


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_cut_archive_is_one_sentence(tmp_path, keep):
    write(tmp_path, "binary-archive")
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cannot read .*cifar-10-binary\.tar\.gz' \(dataset\.root\)"):
        CIFAR10(root=str(tmp_path), num_validation=4)


def test_missing_without_a_network_is_one_sentence(tmp_path, offline):
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz' is not there .*dataset\.root"):
        CIFAR10(root=str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE])
def test_an_entry_that_unfolds_is_one_sentence(tmp_path, kind):
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size, member.type = 2**27, kind
    with gzip.open(tmp_path / "cifar-10-binary.tar.gz", "wb") as file:
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(2**27))
    with pytest.raises(ValueError, match=r"cannot read .*an entry takes more than 67108864 bytes"):
        CIFAR10(root=str(tmp_path))
