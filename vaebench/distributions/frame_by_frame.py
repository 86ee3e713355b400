"""Videos whose frames depend on those before them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution


class FrameByFrame(Distribution):
    r"""p(x) = prod_t p(x_t | x_{t-1}), the first frame given a black one.

    Args:
        given: (x_{t-1} for some of the frames (..., T', C, H, W), which frames) -> p(x_t | x_{t-1}), a distribution
            with batch shape (..., T') over (C, H, W).
        batch_shape: (...).
        event_shape: (T, C, H, W).
        like: Gives dtype and device.
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own class attribute

    def __init__(
        self,
        given: Callable[[Tensor, slice], Distribution],
        batch_shape: tuple[int, ...],
        event_shape: tuple[int, ...],
        like: Tensor,
    ) -> None:
        self._given, self._like = given, like
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of videos (..., T, C, H, W), nats; one pass for all frames."""
        before = torch.cat([torch.zeros_like(value[..., :1, :, :, :]), value[..., :-1, :, :, :]], -4)
        return self._given(before, slice(None)).log_prob(value).sum(-1)

    @property
    def mean(self) -> Tensor:
        """Each frame's mean given the means of those before it, shape (..., T, C, H, W): what pictures show."""
        return self._in_turn(lambda p: p.mean)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw videos, frame after frame; shape (*sample_shape, ..., T, C, H, W)."""
        with torch.no_grad():
            if not sample_shape:
                return self._in_turn(lambda p: p.sample())
            drawn = [self._in_turn(lambda p: p.sample()) for _ in range(torch.Size(sample_shape).numel())]
            return torch.stack(drawn).unflatten(0, tuple(sample_shape))

    def _in_turn(self, frame_of: Callable[[Distribution], Tensor]) -> Tensor:
        frame = self._like.new_zeros(*self.batch_shape, 1, *self.event_shape[1:])
        frames = []
        for t in range(self.event_shape[0]):
            frame = frame_of(self._given(frame, slice(t, t + 1)))
            frames.append(frame)
        return torch.cat(frames, -4)
