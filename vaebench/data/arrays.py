"""A user's own arrays."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
import torch

from vaebench.data.dataset import Dataset
from vaebench.data.examples import Examples, fill_parts, unseen_classes
from vaebench.data.io.array_files import ArrayFile, open_arrays
from vaebench.data.io.array_rows import LAYOUTS, ArrayRows, is_channels_last
from vaebench.data.io.contexts import read_contexts
from vaebench.data.io.own_path import memory_limit, own_path
from vaebench.data.io.values import Range, Scale, Values, check_scale, scan, understand
from vaebench.messages import did_you_mean

PART_WORDS = {
    "train": ("train", "training"),
    "validation": ("valid", "validation", "val"),
    "test": ("test", "testing"),
}
DATA_WORDS = frozenset({"x", "image", "images", "data", "pictures", "samples", "features", "input", "inputs"})
LABEL_WORDS = frozenset({"y", "label", "labels", "target", "targets", "class", "classes"})
LABELS_COPIES = 4  # of the labels in memory, while they are numbered


class Arrays(Dataset):
    """A user's own .npz or .npy file of pictures of any size, grey or colour, of videos, or of vectors.

    Shapes (N, H, W), (N, C, H, W) and (N, H, W, C) are pictures, x of shape (C, H, W); (N, T, C, H, W) and (N, T, H, W,
    C) are videos, x of shape (T, C, H, W); (N, D) are vectors, x of shape (D,). Whole numbers are grey levels of 8
    bits, x = k / 255, or of 16, x = k / 65535, unless all are 0 and 1 (or 0 and 255); floats stay as they are; `scale`
    decides otherwise. The likelihood follows: Bernoulli for two values, DiscretizedLogistic(256) for 8-bit colour,
    Binomial for the levels of a scale below 255, a continuous Bernoulli for other values in [0, 1], a Gaussian of
    learned scale for the rest. What was found is told in one line, and what is ambiguous is a warning with the key that
    settles it.

    In a .npz the arrays are found by name, words joined by "_": train, valid and test (or x_train, images_test and the
    like) keep their parts; otherwise x, images or data is split by a fixed shuffle, and so is train where a part is
    missing. Labels are y, labels or targets, with the same words; they are numbered in the order of their distinct
    values. An .npy file that takes more than `memory_gib` is not read but mapped, and streamed. No pickle is ever
    loaded: arrays of Python objects are left out.

    Args:
        path: The file.
        root: The folder from which a relative path counts; the working directory by default.
        key: The array of pictures or vectors; auto finds it by name.
        labels_key: The array of labels; auto finds it by name, none leaves labels out.
        context_key: The array of contexts, for a model that is told one: (N, E), over time (N, T, E), or pictures
            (N, C, H, W), of which bytes are k / 255. They stand in the place of labels. none for no contexts.
        scale: A value k stands for k / scale; auto is 255 or 65535 for whole numbers, 1 for floats.
        layout: chw, hwc, or auto, where the channels are the dimension of 1, 3 or 4.
        validation_fraction: Share that validates, where the file has no such part.
        test_fraction: Share that tests, where the file has no such part.
        num_examples: Keep this many of the training examples; all by default.
        binarization: none, threshold (x > 0.5), static (drawn once), or dynamic (drawn for every training batch; the
            validation and test examples once); for values in [0, 1].
        memory_gib: Memory that reading may take, copies included; an .npy file that needs more is streamed from disk.
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
        context_key: str = "none",
        scale: float | Literal["auto"] = "auto",
        layout: str = "auto",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        num_examples: int | None = None,
        binarization: str = "none",
        memory_gib: float = 3.0,
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(
                f"expected dataset.layout to be one of {', '.join(LAYOUTS)}, got {layout!r}"
                + did_you_mean(str(layout), LAYOUTS)
            )
        check_scale(scale)
        limit = memory_limit(memory_gib)
        file = open_arrays(own_path(path, root, "pictures.npz"), "dataset.path")
        names = _find_data(file, key)
        labels_of = _find_labels(file, names, labels_key) if context_key == "none" else {}
        rows = _read_rows(file, names, labels_of, layout, limit)
        shape = _common_shape(file, rows)
        values = _understood(file, names, rows, scale)
        labels, num_classes = _numbered(file, labels_of)
        contexts = {} if context_key == "none" else {"train": read_contexts(file, names, context_key)}
        parts = {}
        for part, (array, channels_last) in rows.items():
            source = ArrayRows(array, values, channels_last)
            x = source if isinstance(array, np.memmap) else source.read_all()
            parts[part] = Examples(x, contexts.get(part, labels.get(part)), contexts.get(part))
        if binarization != "none" and values.kind == "real":
            raise ValueError(f"expected values from 0 to 1 for dataset.binarization={binarization}, got others")
        likelihood_name, likelihood_arguments = values.likelihood(shape)
        train, validation, test = fill_parts(
            parts, validation_fraction=validation_fraction, test_fraction=test_fraction, where=f"'{file.path}'"
        )
        super().__init__(
            train,
            validation,
            test,
            likelihood_name=likelihood_name,
            likelihood_arguments=likelihood_arguments,
            scale=values.kept_scale,
            binarization=binarization,
            num_examples=num_examples,
            num_classes=num_classes,
            found=_found(file, names, labels_of, values),
            cautions=list(filter(None, [values.caution, unseen_classes(parts)])),
        )


def _find_data(file: ArrayFile, key: str) -> dict[str, str]:
    """Part -> name of its array; the only part is "train" where the file has none."""
    if key != "auto":
        if key in file.objects:
            raise ValueError(
                f"expected dataset.key to name numbers, got Python objects in {key!r} of '{file.path}', which are not "
                "read because they can run code"
            )
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


def _read_rows(
    file: ArrayFile, names: dict[str, str], labels_of: dict[str, str], layout: str, limit: float
) -> dict[str, tuple[np.ndarray, bool]]:
    """Part -> its array, mapped where it would take more than the limit, and whether its channels are last."""
    last = {}
    for part, name in names.items():
        shape, dtype = file.headers[name]
        where = _where(file, name)
        if len(shape) not in (2, 3, 4, 5):
            raise ValueError(
                f"expected shape (N, D), (N, H, W), (N, C, H, W), (N, H, W, C) or (N, T, C, H, W) in {where}, "
                f"got {shape}" + ("" if not name else "; set dataset.key to another array")
            )
        if dtype.kind not in "buif":
            raise ValueError(f"expected numbers in {where}, got type {dtype}")
        last[part] = is_channels_last(shape, layout, where)
    needed = sum(_memory(file, name) for name in names.values())
    needed += sum(LABELS_COPIES * file.nbytes(name) for name in labels_of.values())
    is_large = needed > limit
    if is_large and list(names.values()) != [""]:
        arrays = " and ".join(repr(name) for name in [*names.values(), *labels_of.values()])
        raise ValueError(
            f"expected at most dataset.memory_gib={limit / 2**30:g} to read {arrays} of '{file.path}' (dataset.path), "
            f"got {needed / 2**30:.3g} GiB, copies included; raise it, or store the array as .npy, to be streamed"
        )
    return {part: (file.read(name, mapped=is_large), last[part]) for part, name in names.items()}


def _memory(file: ArrayFile, name: str) -> int:
    """Bytes that an array takes as it is read, converted, and divided into splits."""
    shape, dtype = file.headers[name]
    kept = 1 if dtype.kind in "bu" and dtype.itemsize == 1 else 4
    return file.nbytes(name) + 2 * kept * math.prod(shape)


def _where(file: ArrayFile, name: str) -> str:
    return f"{repr(name) + ' of ' if name else ''}'{file.path}' (dataset.path)"


def _common_shape(file: ArrayFile, rows: dict[str, tuple[np.ndarray, bool]]) -> tuple[int, ...]:
    raw = Values("real", 1.0, torch.float32, "")
    shapes = {ArrayRows(array, raw, last).shape for array, last in rows.values()}
    if len(shapes) > 1:
        raise ValueError(f"expected one shape of examples in '{file.path}' (dataset.path), got {file.describe()}")
    return shapes.pop()


def _understood(
    file: ArrayFile, names: dict[str, str], rows: dict[str, tuple[np.ndarray, bool]], scale: Scale
) -> Values:
    """Return the meaning of the values of all parts together."""
    ranges = [scan(array, _where(file, names[part])) for part, (array, _) in rows.items()]
    found = functools.reduce(Range.joined, ranges)
    of_tones = {seen.is_float for seen in ranges if not seen.is_binary}
    if scale == "auto" and len(of_tones) > 1:
        raise ValueError(f"expected the parts of '{file.path}' (dataset.path) to be all 8-bit or all floats, got both")
    if of_tones and found.is_float not in of_tones:  # a black and white split does not decide for grey ones
        found = dataclasses.replace(found, dtype=next(seen.dtype for seen in ranges if not seen.is_binary))
    are_pictures = all(array.ndim > 2 for array, _ in rows.values())
    return understand(found, f"{_where(file, names['train'])}", scale=scale, are_pictures=are_pictures)


def _found(file: ArrayFile, names: dict[str, str], labels_of: dict[str, str], values: Values) -> str:
    """Describe the contents of the file in one line."""
    arrays = [f"{name or 'one array'} {file.headers[name][0]}" for name in names.values()]
    labels = [f"labels in {name}" for name in labels_of.values()] or ["no labels"]
    others = [name for name in file.headers if name not in (*names.values(), *labels_of.values())]
    left_out = [f"left out: {', '.join([*others, *(f'{name} (Python objects)' for name in file.objects)])}"]
    words = [f"'{file.path}' has {' and '.join(arrays)} {values.found}", *labels]
    return ", ".join(words + left_out * bool(others or file.objects))


def _find_labels(file: ArrayFile, names: dict[str, str], labels_key: str) -> dict[str, str]:
    """Part -> name of its labels; {} where there are none."""
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
        return {}
    if chosen.keys() != names.keys():
        raise ValueError(
            f"expected labels for each array of examples in '{file.path}', got {file.describe()}; "
            "set dataset.labels_key to none to do without"
        )
    for part, candidates in chosen.items():
        shape, dtype = file.headers[candidates[0]]
        expected = file.headers[names[part]][0][:1]
        if len(candidates) > 1 or shape != expected or dtype.kind not in "buiUS":
            is_one_hot = len(candidates) == 1 and len(shape) == 2 and shape[:1] == expected
            hint = "to its name, or to none" if not is_one_hot else "to none, or store y.argmax(1) if they are one-hot"
            raise ValueError(
                f"expected one array of labels of shape {expected}, whole numbers or words, in '{file.path}', "
                f"got {file.describe()}; set dataset.labels_key {hint}"
            )
    return {part: candidates[0] for part, candidates in chosen.items()}


def _numbered(file: ArrayFile, labels_of: dict[str, str]) -> tuple[dict[str, torch.Tensor], int | None]:
    """Part -> labels, numbered from 0 over all parts, and how many classes there are."""
    if not labels_of:
        return {}, None
    arrays = {part: file.read(name) for part, name in labels_of.items()}
    classes, numbers = np.unique(np.concatenate(list(arrays.values())), return_inverse=True)
    stops = np.cumsum([len(array) for array in arrays.values()])[:-1]
    split = np.split(numbers.reshape(-1).astype(np.int64), stops)
    return {part: torch.from_numpy(y.copy()) for part, y in zip(arrays, split, strict=True)}, len(classes)
