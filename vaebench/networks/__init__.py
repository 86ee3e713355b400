"""Networks: shapes in, features out; no probability."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vaebench.networks.conv import Conv
from vaebench.networks.mlp import MLP
from vaebench.networks.network import Network

if TYPE_CHECKING:
    from vaebench.networks.decoders import CNNDecoder, ConditionalDecoder, MLPDecoder, ResNetDecoder, create_decoder
    from vaebench.networks.encoders import CNNEncoder, ConditionalEncoder, MLPEncoder, ResNetEncoder, create_encoder
    from vaebench.networks.resnet import ResNet
    from vaebench.networks.unet import UNet
    from vaebench.networks.vae_decoder import VAEDecoder
    from vaebench.networks.vae_encoder import VAEEncoder

_MODULES = {
    "ResNet": "resnet",
    "UNet": "unet",
    "VAEEncoder": "vae_encoder",
    "VAEDecoder": "vae_decoder",
    **dict.fromkeys(("MLPEncoder", "CNNEncoder", "ResNetEncoder", "ConditionalEncoder", "create_encoder"), "encoders"),
    **dict.fromkeys(("MLPDecoder", "CNNDecoder", "ResNetDecoder", "ConditionalDecoder", "create_decoder"), "decoders"),
}

__all__ = [
    "MLP",
    "CNNDecoder",
    "CNNEncoder",
    "ConditionalDecoder",
    "ConditionalEncoder",
    "Conv",
    "MLPDecoder",
    "MLPEncoder",
    "Network",
    "ResNet",
    "ResNetDecoder",
    "ResNetEncoder",
    "UNet",
    "VAEDecoder",
    "VAEEncoder",
    "create_decoder",
    "create_encoder",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
