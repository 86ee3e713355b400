"""A user's own arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, fill_parts
from vaebench.data.io.array_files import ArrayFile, open_arrays
from vaebench.data.io.array_rows import CHANNELS, LAYOUTS, ArrayRows, Values, is_channels_last, scan
from vaebench.data.io.own_path import memory_limit, own_path
from vaebench.messages import did_you_mean

PART_WORDS = {
    "train": ("train", "training"),
    "validation": ("valid", "validation", "val"),
    "test": ("test", "testing"),
}
DATA_WORDS = frozenset({"x", "image", "images", "data", "pictures", "samples", "features", "input", "inputs"})
LABEL_WORDS = frozenset({"y", "label", "labels", "target", "targets", "class", "classes"})
LIKELIHOODS = {
    "binary": "bernoulli",
    "bytes": "continuous_bernoulli",
    "unit": "continuous_bernoulli",
    "real": "gaussian",
}


class Arrays(Dataset):
    """A user's own .npz or .npy file of pictures of any size, grey or colour, or of vectors.

    Shapes (N, H, W), (N, C, H, W) and (N, H, W, C) are pictures, x of shape (C, H, W); (N, D) are vectors, x of shape
    (D,). Whole numbers are 8-bit pictures, x = k / 255, unless all are 0 and 1; floats stay as they are. The likelihood
    follows: Bernoulli for 0 and 1, DiscretizedLogistic(256) for 8-bit colour, a continuous Bernoulli for other values
    in [0, 1], a Gaussian of learned scale for the rest.

    In a .npz the arrays are found by name, words joined by "_": train, valid and test (or x_train, images_test and the
    like) keep their parts; otherwise x, images or data is split by a fixed shuffle, and so is train where a part is
    missing. Labels are y, labels or targets, with the same words; they are numbered in the order of their distinct
    values. An .npy file above `memory_gib` is not read but mapped, and streamed. No pickle is ever loaded.

    Args:
        path: The file.
        root: The folder from which a relative path counts; the working directory by default.
        key: The array of pictures or vectors; auto finds it by name.
        labels_key: The array of labels; auto finds it by name, none leaves labels out.
        layout: chw, hwc, or auto, where the channels are the dimension of 1, 3 or 4.
        validation_fraction: Share that validates, where the file has no such part.
        test_fraction: Share that tests, where the file has no such part.
        num_examples: Keep this many of the training examples; all by default.
        binarization: none, threshold (x > 0.5), static (drawn once), or dynamic (drawn for every training batch; the
            validation and test examples once); for values in [0, 1].
        memory_gib: Larger arrays are streamed from disk.
    Raises:
        ValueError: The file is missing, damaged, empty, or ambiguous; values are not finite, no numbers, or of another
            shape; a number of examples is more than there are.
    """

    name = "arrays"

    def __init__(
        self,
        path: str | None = None,
        root: str | None = None,
        key: str = "auto",
        labels_key: str = "auto",
        layout: str = "auto",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        num_examples: int | None = None,
        binarization: str = "none",
        memory_gib: float = 4.0,
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(
                f"expected dataset.layout to be one of {', '.join(LAYOUTS)}, got {layout!r}"
                + did_you_mean(str(layout), LAYOUTS)
            )
        limit = memory_limit(memory_gib)
        file = open_arrays(own_path(path, root, "pictures.npz"), "dataset.path")
        names = _find_data(file, key)
        rows = {part: _rows(file, name, layout, limit) for part, name in names.items()}
        kind = _common_kind(file, names, rows)
        labels, num_classes = _read_labels(file, names, labels_key)
        values = Values(kind)
        parts = {}
        for part, (array, channels_last) in rows.items():
            source = ArrayRows(array, values, channels_last)
            parts[part] = Examples(source if isinstance(array, np.memmap) else source.read_all(), labels.get(part))
        if binarization != "none" and kind == "real":
            raise ValueError(f"expected values from 0 to 1 for dataset.binarization={binarization}, got others")
        shape = parts["train"].shape
        is_colour = kind == "bytes" and len(shape) == 3 and shape[0] in CHANNELS[1:]
        arguments: dict[str, dict[str, Any]] = {
            "discretized_logistic": {"num_levels": 256},
            "gaussian": {"learn_scale": True},
        }
        likelihood_name = "discretized_logistic" if is_colour else LIKELIHOODS[kind]
        train, validation, test = fill_parts(
            parts, validation_fraction=validation_fraction, test_fraction=test_fraction, where=f"'{file.path}'"
        )
        super().__init__(
            train,
            validation,
            test,
            likelihood_name=likelihood_name,
            likelihood_arguments=arguments.get(likelihood_name),
            scale=values.scale,
            binarization=binarization,
            num_examples=num_examples,
            num_classes=num_classes,
        )


def _find_data(file: ArrayFile, key: str) -> dict[str, str]:
    """Part -> name of its array; the only part is "train" where the file has none."""
    if key != "auto":
        if key not in file.headers:
            raise ValueError(
                f"expected dataset.key to name an array of '{file.path}', got {key!r}" + did_you_mean(key, file.headers)
            )
        return {"train": key}
    if list(file.headers) == [""]:
        return {"train": ""}
    found: dict[str, list[str]] = {}
    for name in file.headers:
        part, words = _words(name)
        if words <= DATA_WORDS and (part or words):
            found.setdefault(part or "all", []).append(name)
    found["train"] = found.get("train", []) + found.pop("all", [])
    if not found["train"] and len(found) == 1:
        found["train"] = [name for name, (shape, _) in file.headers.items() if len(shape) > 1]
    for names in found.values():
        if len(names) != 1:
            wanted = "one array of examples" if not names else f"one array of examples, not {' and '.join(names)},"
            raise ValueError(f"expected {wanted} in '{file.path}', got {file.describe()}; set dataset.key to its name")
    return {part: found[part][0] for part in PART_WORDS if part in found}


def _words(name: str) -> tuple[str | None, frozenset[str]]:
    """The part that a name speaks of, and its other words."""
    words = set(name.lower().replace("-", "_").split("_"))
    for part, synonyms in PART_WORDS.items():
        if len(words & set(synonyms)) == 1:
            return part, frozenset(words - set(synonyms))
    return None, frozenset(words)


def _rows(file: ArrayFile, name: str, layout: str, limit: float) -> tuple[np.ndarray, bool]:
    """The array, mapped where it is larger than the limit, and whether its channels are last."""
    shape, dtype = file.headers[name]
    where = f"{repr(name) + ' of ' if name else ''}'{file.path}' (dataset.path)"
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"expected shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C) in {where}, got {shape}"
            + ("" if not name else "; set dataset.key to another array")
        )
    if dtype.kind not in "buif":
        raise ValueError(f"expected numbers in {where}, got type {dtype}")
    channels_last = is_channels_last(shape, layout, where)
    is_large = file.nbytes(name) > limit
    if is_large and name:
        raise ValueError(
            f"expected at most dataset.memory_gib={limit / 2**30:g} in {where}, "
            f"got {file.nbytes(name) / 2**30:.3g} GiB; raise it, or store the array as .npy, which can be streamed"
        )
    return file.read(name, mapped=is_large), channels_last


def _common_kind(file: ArrayFile, names: dict[str, str], rows: dict[str, tuple[np.ndarray, bool]]) -> str:
    """The widest kind of values over the parts, which must have one shape."""
    shapes = {ArrayRows(array, Values("real"), last).shape for array, last in rows.values()}
    if len(shapes) > 1:
        raise ValueError(f"expected one shape of examples in '{file.path}' (dataset.path), got {file.describe()}")
    kinds = []
    for part, name in names.items():
        kinds.append(scan(rows[part][0], f"{repr(name) + ' of ' if name else ''}'{file.path}' (dataset.path)").kind)
    if "bytes" in kinds and ("unit" in kinds or "real" in kinds):
        raise ValueError(f"expected the parts of '{file.path}' (dataset.path) to be all 8-bit or all floats, got both")
    order = ("binary", "bytes", "unit", "real")
    return max(kinds, key=order.index)


def _read_labels(file: ArrayFile, names: dict[str, str], labels_key: str) -> tuple[dict[str, torch.Tensor], int | None]:
    """Part -> labels, numbered from 0 over all parts, and how many classes there are."""
    chosen: dict[str, list[str]] = {}
    if labels_key == "auto":
        for name in file.headers:
            part, words = _words(name)
            if words and words <= LABEL_WORDS:
                chosen.setdefault(part or "train", []).append(name)
    elif labels_key in file.headers and len(names) == 1:
        chosen["train"] = [labels_key]
    elif labels_key != "none":
        raise ValueError(
            f"expected dataset.labels_key to be auto, none, or an array of '{file.path}' beside a single array of "
            f"examples, got {labels_key!r}" + did_you_mean(labels_key, file.headers)
        )
    if not chosen:
        return {}, None
    if chosen.keys() != names.keys():
        raise ValueError(
            f"expected labels for each array of examples in '{file.path}', got {file.describe()}; "
            "set dataset.labels_key to none to do without"
        )
    arrays = {}
    for part, candidates in chosen.items():
        shape, dtype = file.headers[candidates[0]]
        expected = file.headers[names[part]][0][:1]
        if len(candidates) > 1 or shape != expected or dtype.kind not in "buiUS":
            raise ValueError(
                f"expected one array of labels of shape {expected}, whole numbers or words, in '{file.path}', "
                f"got {file.describe()}; set dataset.labels_key to its name, or to none"
            )
        arrays[part] = file.read(candidates[0])
    classes, numbers = np.unique(np.concatenate(list(arrays.values())), return_inverse=True)
    stops = np.cumsum([len(array) for array in arrays.values()])[:-1]
    split = np.split(numbers.reshape(-1).astype(np.int64), stops)
    return {part: torch.from_numpy(y.copy()) for part, y in zip(arrays, split, strict=True)}, len(classes)
