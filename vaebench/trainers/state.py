"""State files: a tree of plain values and tensors in one safetensors file, written in one rename. Nothing is pickled.

The tensors are numbered entries of the file; the tree around them is JSON in its header. What can be read back is
therefore numbers, text, lists, tuples and dictionaries, whatever a stranger puts into the file.
"""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vaebench.runs.regular import check_readable
from vaebench.runs.run import write_atomic

FORMAT = "vaebench-state-1"
MAX_BYTES = 2**31  # always allowed: RHVAE's metric grows with the data, not with the model
MAX_TEXT = 2**24  # characters of the tree, without tensors
SIZE_RATIO = 16  # checkpoint to model; moments and averages account for up to six


def save_state(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Write a tree of None, bool, int, float, str, tensors, lists, tuples and dictionaries.

    Raises:
        OSError: no space or no permission; the previous file is as it was.
    """
    tensors: dict[str, Tensor] = {}
    encoded = json.dumps(_encode(dict(tree), tensors, "state"))
    metadata = {FORMAT: encoded}  # one entry, because several are written in no fixed order
    write_atomic(path, save(tensors, metadata))


def load_state(path: str | os.PathLike[str], num_bytes: int | None = None) -> dict[str, Any]:
    """Read what `save_state` wrote, tensors on the CPU.

    Args:
        path: The file.
        num_bytes: Size of the model whose state it is; a file that is far larger is not read.

    Raises:
        ValueError: the file is missing, damaged, too large, or not a state file; the sentence names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint '{path}' is missing")
    _refuse_size(path, num_bytes)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                raise ValueError("it was not written by vaebench")
            if len(metadata[FORMAT]) > MAX_TEXT:
                raise ValueError(f"its description holds {len(metadata[FORMAT]):,} characters")
            tree = _decode(json.loads(metadata[FORMAT]), file, set())
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OverflowError, OSError) as error:
        raise ValueError(f"checkpoint '{path}' is damaged or foreign: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"checkpoint '{path}' is damaged or foreign: expected a dictionary at its top")
    return tree


def save_weights(path: str | os.PathLike[str], weights: Mapping[str, Tensor]) -> None:
    """Write named tensors as an ordinary safetensors file; tensors that share memory are stored apart.

    Raises:
        OSError: no space or no permission; the previous file is as it was.
    """
    write_atomic(path, save(_detached(weights)))


def load_weights(path: str | os.PathLike[str], num_bytes: int | None = None) -> dict[str, Tensor]:
    """Read named tensors, on the CPU.

    Args:
        path: The file.
        num_bytes: Size of the model whose weights they are; a file that is far larger is not read.

    Raises:
        ValueError: the file is missing, damaged or too large; the sentence names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights '{path}' are missing")
    _refuse_size(path, num_bytes)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"weights '{path}' are damaged: expected safetensors ({error})") from None


def check_weights_file(path: Path) -> None:
    """Refuse weights that are missing, or whose header is damaged, without reading them.

    Raises:
        ValueError: the sentence names the file.
    """
    if not path.is_file():
        raise ValueError(f"weights '{path}' are missing")
    check_readable(path)
    try:
        with safe_open(path, framework="pt", device="cpu"):
            pass
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"weights '{path}' are damaged: expected safetensors ({error})") from None


def _refuse_size(path: Path, num_bytes: int | None) -> None:
    check_readable(path)
    size = path.stat().st_size
    if num_bytes is not None and size > max(MAX_BYTES, SIZE_RATIO * num_bytes):
        raise ValueError(f"'{path}' is damaged or foreign: it holds {size:,} bytes, and the model {num_bytes:,}")


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    storages: set[int] = set()
    stored = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        shared = pointer in storages or tensor.untyped_storage().nbytes() != tensor.nbytes
        stored[name] = tensor.clone() if shared else tensor
        storages.add(pointer)
    return stored


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, list):
        return [_encode(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, dict):
        kind = {Counter: "counter", OrderedDict: "ordered"}.get(type(value), "dict")
        return {
            kind: [
                [_encode(key, tensors, where), _encode(item, tensors, f"{where}.{key}")] for key, item in value.items()
            ]
        }
    raise TypeError(f"{where}: a checkpoint holds numbers, text, tensors and containers, got {type(value).__name__}")


def _decode(value: Any, file: Any, seen: set[str]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_decode(item, file, seen) for item in value]
    ((kind, content),) = value.items()
    if kind == "tensor":
        if content in seen:  # a small file could expand without limit
            raise ValueError(f"the tensor '{content}' is used twice")
        seen.add(content)
        return file.get_tensor(content).clone()  # a view would keep the file open
    if kind == "tuple":
        return tuple(_decode(item, file, seen) for item in content)
    if kind in ("dict", "counter", "ordered"):
        pairs = [(_decode(key, file, seen), _decode(item, file, seen)) for key, item in content]
        return {"dict": dict, "counter": Counter, "ordered": OrderedDict}[kind](
            dict(pairs) if kind == "counter" else pairs
        )
    raise ValueError(f"unknown kind '{kind}'")
