"""Squeeze-and-excitation: each channel weighted by what the whole picture says of it."""

from __future__ import annotations

from torch import Tensor, nn

from vaebench.messages import check_range


class SqueezeExcitation(nn.Module):
    """h * sigmoid(W2 relu(W1 mean(h))), the mean over the picture's positions.

    References:
        Squeeze-and-Excitation Networks (Hu et al., 2018), https://arxiv.org/abs/1709.01507; NVAE (Vahdat and Kautz,
        2020), https://arxiv.org/abs/2007.03898, whose widths these are
    Args:
        channels: C.
        reduction: The hidden layer has C / reduction units, and at least 4.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        check_range("reduction", reduction, at_least=1, whole=True)
        hidden = max(channels // reduction, 4)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, h: Tensor) -> Tensor:
        """Return shape (B, C, H, W)."""
        weights = self.excite(self.squeeze(h.mean((2, 3))).relu()).sigmoid()
        return h * weights[..., None, None]
