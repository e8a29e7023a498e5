"""Doubling and halving of images with a low-pass filter, [1, 3, 3, 1] each way, against aliasing (arXiv:1912.04958).

All of it is convolutions that treat each channel alone, so gradients of gradients come as with any other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equalized import EqualizedConv2d

__all__ = ["FIR", "FilteredHalve"]


class FIR(nn.Module):
    """The filter, with sum 1, on maps [N, C, H, W]; what lies outside a map is zero."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = taps[:, None] * taps
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def blurred(self, x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
        """Return the filtered map, of 2 * padding - 3 pixels more each way."""
        return F.conv2d(x, self._each(x, gain), padding=padding, groups=x.shape[1])

    def doubled(self, x: Tensor) -> Tensor:
        """Return x with zeros put in between, filtered, [N, C, 2H, 2W]; inside the map that is bilinear interpolation."""
        return F.conv_transpose2d(x, self._each(x, 4.0), stride=2, padding=1, groups=x.shape[1])

    def halved(self, x: Tensor) -> Tensor:
        """Return every second pixel of filtered x, [N, C, H/2, W/2]."""
        return F.conv2d(x, self._each(x, 1.0), stride=2, padding=1, groups=x.shape[1])

    def _each(self, x: Tensor, gain: float) -> Tensor:
        return (self.kernel * gain).to(x.dtype).expand(x.shape[1], 1, 4, 4)


class FilteredHalve(EqualizedConv2d):
    """Every second pixel of the convolution of filtered x: [N, width, H, W] with even sizes to [N, out, H/2, W/2]."""

    def __init__(self, width: int, out: int, kernel: int, *, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(width, out, kernel, bias=bias, gain=gain)
        self.fir = FIR()

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of half the size."""
        weight, kernel = self.weight * self.scale, self.kernel_size[0]
        if kernel == 1:  # it may come last, and the filter need not be computed where nothing is kept
            return F.conv2d(self.fir.halved(input), weight, self.bias)
        return F.conv2d(self.fir.blurred(input, kernel // 2 + 1), weight, self.bias, stride=2)
