"""The one place that imports torchvision, which a CPU-only torch beside a CUDA build of it needs help with."""

from __future__ import annotations

import sys
from types import ModuleType

import torch

_libraries: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision and its data sets.

    A CUDA build of torchvision cannot load its operators beside a CPU-only torch, and then fails at import because two
    operators have no schema. Their schemas are all that it needs: with them data sets, transforms and models work.
    On any other installation this is a plain import.
    """
    try:
        import torchvision.datasets
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        _libraries.append(library)  # the schemas live as long as this object
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets
    return torchvision
