"""Networks: shapes in, features out; no probability."""

from vaebench.networks.conv import Conv
from vaebench.networks.mlp import MLP
from vaebench.networks.network import Network

__all__ = ["MLP", "Conv", "Network"]
