from __future__ import annotations

import re
import struct
import zipfile

import numpy as np
import pytest
import torch

from vaebench.data.arrays import Arrays


def save(tmp_path, **arrays) -> str:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def everything(data: Arrays) -> torch.Tensor:
    return torch.cat([data.train.x, data.validation.x, data.test.x])


def byte_pictures(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((20, 7, 5), "auto", (1, 7, 5)),
        ((20, 3, 7, 5), "auto", (3, 7, 5)),
        ((20, 7, 5, 3), "auto", (3, 7, 5)),
        ((20, 1, 7, 5), "auto", (1, 7, 5)),
        ((20, 7, 5, 4), "auto", (4, 7, 5)),
        ((20, 3, 5, 3), "chw", (3, 5, 3)),
        ((20, 3, 5, 3), "hwc", (3, 3, 5)),
        ((20, 12, 5, 7), "chw", (12, 5, 7)),
        ((20, 9), "auto", (9,)),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_any_shape_is_read_channels_first(tmp_path, shape, layout, expected, streamed):
    array = byte_pictures(*shape)
    path = str(tmp_path / "x.npy")
    np.save(path, array)
    data = Arrays(path=path, layout=layout, memory_gib=0 if streamed else 1)
    assert data.shape == data.train.shape == expected
    assert data.train.in_memory is not streamed
    is_last = len(shape) == 4 and (layout == "hwc" or (layout == "auto" and shape[3] in (3, 4)))
    pictures = torch.from_numpy(array).permute(0, 3, 1, 2) if is_last else torch.from_numpy(array)
    pictures = (pictures.reshape(20, *expected) / 255).flatten(1)
    seen = torch.cat([b.x for s in (data.train, data.validation, data.test) for b in s.batches()]).flatten(1)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 2)
    # Each picture appears once, with its pixels in their places.
    same = (seen[:, None] == pictures[None]).all(-1)
    assert (same.sum(0) == 1).all()
    assert (same.sum(1) == 1).all()


@pytest.mark.parametrize(
    ("array", "likelihood", "scale"),
    [
        (byte_pictures(10, 6, 6), "continuous_bernoulli", 255),
        (byte_pictures(10, 6, 6).astype(np.int64), "continuous_bernoulli", 255),
        (byte_pictures(10, 6, 6, 3), "discretized_logistic", 255),
        (byte_pictures(10, 6, 6) > 99, "bernoulli", 1),
        ((byte_pictures(10, 6, 6) > 99).astype(np.uint8), "bernoulli", 1),
        ((byte_pictures(10, 6, 6) > 99).astype(np.float64), "bernoulli", 1),
        (byte_pictures(10, 6, 6) / 255, "continuous_bernoulli", 1),
        (byte_pictures(10, 6, 6) / 255 - 0.5, "gaussian", 1),
        (byte_pictures(10, 6).astype(np.float16), "gaussian", 1),
        ((byte_pictures(10, 6) / 255).astype(">f4"), "continuous_bernoulli", 1),
        (np.asfortranarray(byte_pictures(10, 6, 6)), "continuous_bernoulli", 255),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_values_choose_the_likelihood(tmp_path, array, likelihood, scale, streamed):
    path = str(tmp_path / "x.npy")
    np.save(path, array)
    data = Arrays(path=path, memory_gib=0 if streamed else 1)
    assert data.likelihood_name == likelihood
    params = torch.zeros(2, *data.likelihood.params_shape(data.shape))
    batch = data.train.batch([0, 1])
    assert torch.isfinite(data.likelihood(params, event_ndim=len(data.shape)).log_prob(batch.x)).all()
    values = np.unique(array.astype(np.float32)) / np.float32(scale)
    assert np.isin(batch.x.numpy(), values).all()


def test_streamed_equals_in_memory_to_the_bit(tmp_path):
    path = str(tmp_path / "x.npy")
    np.save(path, np.random.RandomState(0).randn(30, 4, 5))
    in_memory, streamed = Arrays(path=path), Arrays(path=path, memory_gib=0)
    order = torch.randperm(24)
    for ours, theirs in zip(streamed.train.batches(order, 7), in_memory.train.batches(order, 7), strict=True):
        assert torch.equal(ours.x, theirs.x)
    few, few_streamed = Arrays(path=path, num_examples=5), Arrays(path=path, num_examples=5, memory_gib=0)
    assert torch.equal(few.train.batch(range(5)).x, few_streamed.train.batch(range(5)).x)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid", "test"),
        ("x_train", "x_val", "x_test"),
        ("train_images", "validation_images", "test_images"),
        ("Train-Data", "VALID-data", "testing-data"),
    ],
)
def test_parts_of_the_file_are_kept(tmp_path, names):
    arrays = [byte_pictures(n, 4, 4) for n in (9, 3, 4)]
    data = Arrays(path=save(tmp_path, **dict(zip(names, arrays, strict=True))))
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 3, 4)
    assert torch.equal(data.test.x, torch.from_numpy(arrays[2])[:, None] / 255)
    assert torch.equal(data.validation.x, torch.from_numpy(arrays[1])[:, None] / 255)


def test_a_part_in_black_and_white_keeps_the_scale_of_the_others(tmp_path):
    test = (pixels := byte_pictures(4, 4, 4)) % 2
    data = Arrays(path=save(tmp_path, train=byte_pictures(9, 4, 4), test=test))
    assert pixels.max() > 1
    assert data.likelihood_name == "continuous_bernoulli"
    assert torch.equal(data.test.x, torch.from_numpy(test)[:, None] / 255)


def test_keras_form_with_labels(tmp_path):
    path = save(
        tmp_path,
        x_train=byte_pictures(10, 4, 4),
        y_train=np.arange(10) % 4 + 5,
        x_test=byte_pictures(3, 4, 4),
        y_test=np.array([8, 5, 6]),
    )
    data = Arrays(path=path, validation_fraction=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 2, 3)
    assert data.num_classes == 4
    assert data.test.y.tolist() == [3, 0, 1]
    for split in (data.train, data.validation):
        for batch in split.batches():
            found = (
                (batch.x[:, None] == torch.from_numpy(byte_pictures(10, 4, 4))[None, :, None] / 255).flatten(2).all(-1)
            )
            assert torch.equal(batch.y, found.int().argmax(1) % 4)


def test_labels_may_be_words(tmp_path):
    data = Arrays(path=save(tmp_path, images=byte_pictures(6, 4, 4), labels=np.array(["b", "a", "c"] * 2)))
    assert data.num_classes == 3
    assert sorted(torch.cat([s.y for s in (data.train, data.validation, data.test)]).tolist()) == [0, 0, 1, 1, 2, 2]
    assert Arrays(path=data_path(tmp_path), labels_key="none").train.y is None


def data_path(tmp_path) -> str:
    return str(tmp_path / "data.npz")


def test_a_key_of_any_name(tmp_path):
    path = save(tmp_path, first=byte_pictures(5, 4), second=byte_pictures(9, 4), kinds=np.arange(9) % 2)
    data = Arrays(path=path, key="second", labels_key="kinds")
    assert len(data.train) == 7
    assert data.num_classes == 2
    with pytest.raises(ValueError, match=r"not first and second, .* set dataset\.key"):
        Arrays(path=path)
    assert len(Arrays(path=save(tmp_path, only=byte_pictures(9, 4), weights=np.ones(9))).train) == 7


def test_a_relative_path_counts_from_the_root(tmp_path):
    save(tmp_path, x=byte_pictures(10, 4))
    assert Arrays(path="data.npz", root=str(tmp_path)).shape == (4,)


def test_binarised_arrays(tmp_path):
    path = save(tmp_path, x=byte_pictures(10, 4, 4))
    data = Arrays(path=path, binarization="threshold")
    assert data.likelihood_name == "bernoulli"
    assert torch.equal(data.train.x, (Arrays(path=path).train.x > 0.5).float())
    with pytest.raises(ValueError, match=r"values from 0 to 1 for dataset\.binarization=static"):
        Arrays(path=save(tmp_path, x=np.random.RandomState(0).randn(10, 4)), binarization="static")


@pytest.mark.parametrize(
    ("name", "shape", "likelihood", "num_classes"),
    [
        ("cifar10/cifar10_subset.npz", (3, 32, 32), "discretized_logistic", 10),
        ("lpc_sprites/lpc_sprites_64x64.npz", (3, 64, 64), "discretized_logistic", None),
        ("binarized_mnist/binarized_mnist.npz", (784,), "bernoulli", None),
    ],
)
def test_real_files(shared, name, shape, likelihood, num_classes):
    data = Arrays(path=str(shared(name)), num_examples=100)
    assert data.shape == shape
    assert data.likelihood_name == likelihood
    assert data.num_classes == num_classes


class Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("form", ["npz", "npy", "pickle", "key"])
def test_python_objects_are_never_loaded(tmp_path, form):
    array = np.array([Attack()] * 4, dtype=object)
    path, key = tmp_path / f"x.{form}", "auto"
    if form == "npz":
        np.savez(path, x=array, y=array)
    elif form == "key":
        path, key = tmp_path / "x.npz", "y"
        np.savez(path, x=byte_pictures(10, 4), y=array)
    elif form == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        path.write_bytes(array.dumps())
    with pytest.raises(ValueError, match=r"Python objects|magic string") as error:
        Arrays(path=str(path), key=key)
    assert re.search(r"dataset\.(path|key)", str(error.value))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"x": np.array([[0.0, 1.0], [np.nan, 2.0]])},
            r"finite numbers in 'x' of .*\(dataset\.path\), got nan .* row 1",
        ),
        ({"x": np.array([[0.0, 1.0], [2.0, -np.inf]])}, r"got -inf .* row 1"),
        ({"x": np.array([[0.0, 1e300]])}, r"got inf \(as float32\) in row 0"),
        ({"x": np.zeros((0, 4))}, r"empty array of shape \(0, 4\)"),
        ({"x": np.zeros((4, 0, 3), np.uint8)}, r"empty array"),
        ({"x": np.zeros(4)}, r"expected shape \(N, D\), .* got \(4,\)"),
        ({"x": np.zeros(())}, r"expected shape \(N, D\), .* got \(\)"),
        ({"x": np.zeros((4, 2, 2, 2, 2, 2))}, r"expected shape \(N, D\)"),
        ({"x": np.zeros((4, 2), complex)}, r"expected numbers in 'x' .* got type complex128"),
        ({"x": np.full((4, 2), "a")}, r"expected numbers in 'x' .* got type <U1"),
        ({"x": np.zeros((4, 2), "M8[s]")}, r"expected numbers"),
        ({"x": np.zeros((4, 2), [("a", "f4")])}, r"expected numbers"),
        ({"x": np.full((4, 2), -1)}, r"from 0 to 255 .* or 65535 .* in 'x' .* got -1 to -1; set dataset\.scale"),
        ({"x": np.full((4, 2), 65536)}, r"whole numbers from 0 to 255"),
        ({"x": np.zeros((5, 3, 5, 3), np.uint8)}, r"both could be; set dataset\.layout"),
        ({"x": np.zeros((5, 8, 5, 7), np.uint8)}, r"neither is 1, 3 or 4; set dataset\.layout"),
        ({"x": np.zeros((5, 4)), "images": np.zeros((5, 4))}, r"not x and images, .* set dataset\.key"),
        ({"a": np.zeros(4)}, r"expected one array of examples in .* set dataset\.key"),
        ({"test": np.zeros((4, 4)), "valid": np.zeros((4, 4))}, r"expected one array of examples"),
        ({"train": np.zeros((9, 4)), "test": np.zeros((4, 5))}, r"one shape of examples"),
        ({"train": byte_pictures(9, 4), "test": np.full((4, 4), 0.3)}, r"all 8-bit or all floats"),
        ({"x": np.zeros((9, 4)), "y": np.zeros(8, int)}, r"labels of shape \(9,\), .* dataset\.labels_key"),
        ({"x": np.zeros((9, 4)), "y": np.zeros((9, 3))}, r"labels of shape \(9,\)"),
        ({"x": np.zeros((9, 4)), "y": np.zeros(9)}, r"whole numbers or words"),
        (
            {"x_train": np.zeros((9, 4)), "x_test": np.zeros((9, 4)), "y_train": np.zeros(9, int)},
            r"labels for each array",
        ),
        ({}, r"got no array"),
    ],
)
def test_bad_arrays_are_one_sentence(tmp_path, arrays, sentence):
    path = save(tmp_path, **arrays)
    with pytest.raises(ValueError, match=sentence) as error:
        Arrays(path=path)
    assert "\n" not in str(error.value)
    assert "data.npz" in str(error.value)


def test_a_streamed_file_is_checked_too(tmp_path):
    path = str(tmp_path / "x.npy")
    array = np.zeros((10000, 3))
    array[9999, 1] = np.nan
    np.save(path, array)
    with pytest.raises(ValueError, match=r"got nan .* in row 9999"):
        Arrays(path=path, memory_gib=0)


def test_a_packed_file_that_unpacks_to_too_much_is_not_read(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1000), np.uint8))
    with pytest.raises(
        ValueError, match=r"at most dataset\.memory_gib=0\.0001 to read 'x' .* store the array as \.npy"
    ):
        Arrays(path=str(path), memory_gib=1e-4)


@pytest.mark.parametrize("keep", [0, 3, 60, -40])
@pytest.mark.parametrize("form", ["npz", "npy"])
def test_cut_files_are_one_sentence(tmp_path, form, keep):
    path = tmp_path / f"x.{form}"
    (np.savez if form == "npz" else np.save)(path, byte_pictures(50, 9))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cannot read .*dataset\.path"):
        Arrays(path=str(path))


def test_a_damaged_member_is_one_sentence(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=byte_pictures(500, 9))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"cannot read .*dataset\.path"):
        Arrays(path=str(path))


@pytest.mark.parametrize(
    "shape", ["(-5, 4)", "(10**6, 10**6)", "(2**40, 2**40)", "(1, 2**62)", "(True, 4)", "('a', 4)"]
)
@pytest.mark.parametrize("form", ["npz", "npy"])
@pytest.mark.parametrize("memory_gib", [4.0, 1e30])
def test_a_header_that_lies_is_one_sentence(tmp_path, shape, form, memory_gib):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(20)
    path = tmp_path / f"data.{form}"
    if form == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=r"dataset\.(path|memory_gib)"):
        Arrays(path=str(path), memory_gib=memory_gib)


def test_members_that_are_no_arrays_are_passed_over(tmp_path):
    path = save(tmp_path, x=byte_pictures(10, 4))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../readme.txt", "hello")
    assert len(Arrays(path=path).train) == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"path": None}, r"expected dataset\.path to say where the data are"),
        ({"path": ""}, r"expected dataset\.path"),
        ({"path": "nowhere.npz"}, r"dataset\.path to name existing data, got 'nowhere\.npz'"),
        ({"path": "."}, r"a \.npy or \.npz file, got '\.', a folder"),
        ({"layout": "wch"}, r"dataset\.layout .* got 'wch'"),
        ({"key": "imges"}, r"dataset\.key to name an array .* 'imges'; did you mean 'images'"),
        ({"labels_key": "lables"}, r"dataset\.labels_key .* 'lables'; did you mean 'labels'"),
        ({"scale": 0}, r"scale must be above 0 and finite; got 0"),
        ({"scale": float("inf")}, r"scale must be above 0 and finite"),
        ({"memory_gib": -1}, r"dataset\.memory_gib to be a number from 0, got -1"),
        ({"memory_gib": float("nan")}, r"dataset\.memory_gib"),
        ({"memory_gib": "4"}, r"dataset\.memory_gib"),
        ({"num_examples": 17}, r"dataset\.num_examples from 1 to 16"),
        ({"validation_fraction": 0.9}, r"lower dataset\.validation_fraction"),
        ({"binarization": "dinamic"}, r"'dinamic'; did you mean 'dynamic'"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, arguments, sentence):
    path = save(tmp_path, images=byte_pictures(20, 4, 4), labels=np.zeros(20, int))
    with pytest.raises(ValueError, match=sentence):
        Arrays(**{"path": path, **arguments})


def test_one_pickled_entry_does_not_bar_the_others(tmp_path):
    """As in the file of dSprites."""
    x = (byte_pictures(40, 8, 8) > 99).astype(np.uint8)
    metadata = np.array({"title": "t"}, dtype=object)
    path = save(tmp_path, imgs=x, latents_classes=np.zeros((40, 6), int), metadata=metadata)
    data = Arrays(path=path, key="imgs", labels_key="none")
    assert torch.equal(everything(data).sum(), torch.tensor(float(x.sum())))
    assert "left out: latents_classes, metadata (Python objects)" in data.found
    with pytest.raises(ValueError, match="got Python objects in 'metadata'"):
        Arrays(path=path, key="metadata")
