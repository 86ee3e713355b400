"""Contexts: an array beside the examples, of which the model is given a row with each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vaebench.data.io.array_files import ArrayFile
from vaebench.messages import did_you_mean


def read_contexts(file: ArrayFile, names: Mapping[str, str], key: str) -> Tensor:
    """Return contexts, float32: (N, E), (N, T, E), or pictures (N, C, H, W), whose bytes are divided by 255.

    Args:
        file: The file.
        names: The arrays of examples, by part; contexts belong to the only one.
        key: Name of the array.

    Raises:
        ValueError: if there is no such array, it has other rows than the examples, or holds no finite numbers.
    """
    if key not in file.headers or len(names) != 1:
        raise ValueError(
            f"expected dataset.context_key to name an array of '{file.path}' beside a single array of examples, got "
            f"{key!r}{did_you_mean(key, file.headers)}"
        )
    shape, dtype = file.headers[key]
    num_examples = file.headers[next(iter(names.values()))][0][0]
    if len(shape) not in (1, 2, 3, 4) or shape[0] != num_examples or dtype.kind not in "buif":
        raise ValueError(
            f"expected contexts of shape ({num_examples}, E), ({num_examples}, T, E) or ({num_examples}, C, H, W), "
            f"numbers, in {key!r} of '{file.path}' (dataset.context_key), got {dtype} of shape {shape}"
        )
    array = file.read(key)
    is_bytes = len(shape) == 4 and array.dtype == np.uint8
    contexts = torch.from_numpy(array.astype(np.float32) / (255 if is_bytes else 1))
    if not bool(contexts.isfinite().all()):
        raise ValueError(f"expected finite contexts in {key!r} of '{file.path}' (dataset.context_key)")
    return contexts[:, None] if contexts.ndim == 1 else contexts
