"""Doubling and halving folded into the neighbouring convolution: the same function with four ninths of the arithmetic.

A 3x3 convolution after nearest-neighbour doubling is a 4x4 transposed convolution of stride 2, and one before a 2x2 mean is
a 4x4 convolution of stride 2, both with the kernel's sums over shifts by one pixel. The parameters stay those of the plain
convolution, whose class these remain, so that initialisation, spectral norm and the like treat them alike.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import PluginError

__all__ = ["ConvolveHalve", "DoubleConvolve", "convolve_halve", "double_convolve"]


def double_convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return conv(nearest-neighbour doubling of x), [N, out, 2H, 2W]; weight [out, in, k, k] with odd k keeps the size."""
    kernel = _summed(weight).flip(2, 3).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=weight.shape[-1] // 2)


def convolve_halve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 2x2 mean of conv(x), [N, out, H/2, W/2]; weight [out, in, k, k] with odd k keeps the size."""
    return F.conv2d(x, _summed(weight) / 4, bias, stride=2, padding=weight.shape[-1] // 2)


def _summed(weight: Tensor) -> Tensor:
    """Return a kernel's sum over the four shifts by no or one pixel each way, one wider than the kernel; float32."""
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


class _Folded(nn.Conv2d):
    """A convolution that keeps the size, with an odd kernel."""

    def __init__(self, width: int, out: int, kernel: int = 3, *, bias: bool = True) -> None:
        if kernel % 2 == 0:
            raise PluginError(f"{type(self).__name__} needs an odd kernel, which keeps the size, not {kernel}")
        super().__init__(width, out, kernel, padding=kernel // 2, bias=bias)


class DoubleConvolve(_Folded):
    """conv(nearest-neighbour doubling of x): [N, width, H, W] to [N, out, 2H, 2W]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of twice the size."""
        return double_convolve(input, self.weight, self.bias)


class ConvolveHalve(_Folded):
    """2x2 mean of conv(x): [N, width, H, W] with even sizes to [N, out, H/2, W/2]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of half the size."""
        return convolve_halve(input, self.weight, self.bias)
