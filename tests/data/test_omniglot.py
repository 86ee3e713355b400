from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from vaebench.data.omniglot import Omniglot, area_average

CHARACTERS = {"Greek": ("character01", "character02"), "Greek_(old)": ("character01",)}
DRAWERS = 3


def png(ink: np.ndarray) -> bytes:
    """A picture as published: one bit, paper white, ink black."""
    content = io.BytesIO()
    Image.fromarray(ink == 0).convert("1").save(content, format="PNG")
    return content.getvalue()


def pictures(seed: int) -> dict[str, np.ndarray]:
    """Name from the alphabet on -> 105x105 pixels, ink = 1, in order."""
    random = np.random.RandomState(seed)
    names = [
        f"{alphabet}/{character}/{i:04d}_{drawer:02d}.png"
        for alphabet, characters in CHARACTERS.items()
        for i, character in enumerate(characters)
        for drawer in range(1, DRAWERS + 1)
    ]
    return {name: (random.rand(105, 105) < 0.2).astype(np.uint8) for name in names}


def write(root, *, packed: bool) -> None:
    folder = root / "omniglot-py"
    folder.mkdir()
    for seed, part in enumerate(("images_background", "images_evaluation")):
        if packed:
            with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
                archive.writestr(f"{part}/", "")
                # Packed in another order, with what a Mac leaves behind.
                for name, ink in reversed(pictures(seed).items()):
                    archive.writestr(f"{part}/{name}", png(ink))
                    archive.writestr(f"__MACOSX/{part}/{name}", b"")
        else:
            for name, ink in pictures(seed).items():
                path = folder / part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(ink))


@pytest.mark.parametrize("packed", [True, False])
def test_the_published_form_is_read(tmp_path, packed, offline):
    write(tmp_path, packed=packed)
    data = Omniglot(root=str(tmp_path), num_validation=2)
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 2, 9)
    assert data.shape == (1, 28, 28)
    assert data.num_classes == 6
    assert data.test.y.tolist() == [3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert sorted(torch.cat([data.train.y, data.validation.y]).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ink = torch.from_numpy(np.stack(list(pictures(1).values())))
    assert torch.equal(data.test.x, area_average(ink, 28)[:, None] / 255)
    assert data.test.x.mean().item() == pytest.approx(ink.float().mean().item(), abs=1e-3)
    assert offline == []


def test_at_the_original_size_ink_is_one(tmp_path):
    write(tmp_path, packed=True)
    data = Omniglot(root=str(tmp_path), num_validation=2, size=105)
    assert torch.equal(data.test.x[:, 0].to(torch.uint8), torch.from_numpy(np.stack(list(pictures(1).values()))))


def test_the_area_average_is_the_one_of_the_shared_file(shared):
    packed = np.load(shared("omniglot/omniglot_105x105_packed.npz"))["evaluation_packed"][::20]
    ink = torch.from_numpy(np.unpackbits(packed, axis=1, count=105 * 105).reshape(-1, 105, 105))
    averaged = np.load(shared("omniglot/omniglot_28x28.npz"))["evaluation_images"][::20]
    assert np.array_equal(area_average(ink, 28).numpy(), averaged)


def test_where_sizes_divide_the_average_is_a_mean_of_blocks():
    ink = torch.randint(0, 2, (3, 105, 105))
    blocks = ink.reshape(3, 21, 5, 21, 5).double().mean((2, 4))
    assert torch.equal(area_average(ink, 21), (blocks * 255).round().to(torch.uint8))


def test_binarised_ink_takes_a_bernoulli(tmp_path):
    write(tmp_path, packed=True)
    data = Omniglot(root=str(tmp_path), num_validation=2, binarization="static")
    assert data.likelihood_name == "bernoulli"
    assert set(data.train.x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("size", [0, 106, 28.0, "28", True])
def test_impossible_sizes_are_one_sentence(tmp_path, size):
    with pytest.raises(ValueError, match=r"dataset\.size from 1 to 105"):
        Omniglot(root=str(tmp_path), size=size)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no picture", "cannot read 'Greek/character01/0000_01.png' of"),
        (b"", "cannot read 'Greek/character01/0000_01.png' of"),
        (png(np.ones((105, 104))), "expected 105x105 pixels in 'Greek/character01/0000_01.png'"),
        (png(np.ones((105, 105)))[:-30], "cannot read 'Greek/character01/0000_01.png' of"),
    ],
)
def test_damaged_pictures_are_named(tmp_path, content, sentence):
    write(tmp_path, packed=False)
    (tmp_path / "omniglot-py/images_background/Greek/character01/0000_01.png").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        Omniglot(root=str(tmp_path), num_validation=2)
    assert "dataset.root" in str(error.value)


def test_damaged_and_empty_archives_are_one_sentence(tmp_path):
    write(tmp_path, packed=True)
    path = tmp_path / "omniglot-py/images_evaluation.zip"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cannot read .*images_evaluation\.zip' \(dataset\.root\)"):
        Omniglot(root=str(tmp_path), num_validation=2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing here")
    with pytest.raises(ValueError, match=r"expected pictures <alphabet>/<character>/\*\.png in"):
        Omniglot(root=str(tmp_path), num_validation=2)


def test_missing_without_a_network_is_one_sentence(tmp_path, offline):
    with pytest.raises(ValueError, match=r"images_background\.zip' is not there .*dataset\.root"):
        Omniglot(root=str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_unfolds_is_one_sentence(tmp_path):
    folder = tmp_path / "omniglot-py"
    folder.mkdir()
    with zipfile.ZipFile(folder / "images_background.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images_background/A/b/1.png", bytes(2**21))
    with pytest.raises(ValueError, match="unfolds to more than 1048576 bytes"):
        Omniglot(root=str(tmp_path))
