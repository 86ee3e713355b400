"""Attention maps that modulate the features of a decoder, position by position."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vaebench.messages import check_range


class AttentionFiLM(nn.Module):
    r"""(1 + gamma) h + beta at every position, gamma and beta linear in the K maps there; at the start the identity.

    .. math:: [\gamma, \beta] = W \, \mathrm{resize}(A), \quad W = 0 \text{ at first}

    The maps are resized bilinearly to the features' size, and otherwise taken as they are: normalising them over the
    slots is the caller's.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), https://arxiv.org/abs/1709.07871
    Args:
        channels: C of the features.
        num_slots: K; None learns it from the first call, and must then have been called before an optimiser is made.
    """

    def __init__(self, channels: int, num_slots: int | None) -> None:
        super().__init__()
        check_range("num_slots", num_slots, at_least=1, whole=True, or_null=True)
        self.channels = channels
        self.linear: nn.Conv2d | None = None
        if num_slots is not None:
            self._build(num_slots)

    def _build(self, num_slots: int) -> None:
        linear = nn.utils.skip_init(nn.Conv2d, num_slots, 2 * self.channels, 1, bias=False)
        nn.init.zeros_(linear.weight)
        self.linear = linear

    def forward(self, h: Tensor, attention_map: Tensor) -> Tensor:
        """Return shape (B, C, H, W) for h of that shape and maps (B, K, h, w).

        Raises:
            ValueError: if the maps belong to another batch, or are of another number.
        """
        if attention_map.ndim == 4 and self.linear is None:
            self._build(attention_map.shape[1])
            self.to(h.device)
        known = None if self.linear is None else self.linear.in_channels
        if attention_map.ndim != 4 or attention_map.shape[0] != h.shape[0] or attention_map.shape[1] != known:
            raise ValueError(
                f"expected attention maps of shape ({h.shape[0]}, {known or 'K'}, h, w), got "
                f"{tuple(attention_map.shape)}"
            )
        assert self.linear is not None
        resized = F.interpolate(attention_map.to(h.dtype), size=h.shape[2:], mode="bilinear", align_corners=False)
        gamma, beta = self.linear(resized).chunk(2, dim=1)
        return h * (1 + gamma) + beta
