"""Equalised learning rate: weights start from N(0, 1) and are scaled where they are used (arXiv:1710.10196).

Adam's steps are about as long for every parameter; with weights of one size it changes all layers at one pace.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .resampling import convolve_halve, double_convolve

__all__ = ["EqualizedConv2d", "EqualizedConvolveHalve", "EqualizedDoubleConvolve", "EqualizedLinear"]


class EqualizedLinear(nn.Linear):
    """x [N, width] to [N, out] with the weight times gain / sqrt(width).

    `multiplier` slows or speeds the layer up: weights start from N(0, 1 / multiplier^2), and they and the bias count
    multiplier times, so that steps of the optimizer count that much while the layer starts as without. `start` is the
    bias's first value as it counts.
    """

    def __init__(
        self, width: int, out: int, *, bias: bool = True, gain: float = 1.0, multiplier: float = 1.0, start: float = 0.0
    ) -> None:
        super().__init__(width, out, bias=bias)
        self.multiplier = multiplier
        self.scale = gain * multiplier / width**0.5
        nn.init.normal_(self.weight, 0.0, 1 / multiplier)
        if bias:
            nn.init.constant_(self.bias, start / multiplier)

    def forward(self, input: Tensor) -> Tensor:
        """Return the scaled layer's output."""
        bias = self.bias if self.bias is None or self.multiplier == 1 else self.bias * self.multiplier
        return F.linear(input, self.weight * self.scale, bias)


class EqualizedConv2d(nn.Conv2d):
    """A convolution that keeps the size, with an odd kernel and the weight times gain / sqrt(inputs of an output)."""

    def __init__(self, width: int, out: int, kernel: int, *, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(width, out, kernel, padding=kernel // 2, bias=bias)
        self.scale = gain / (width * kernel**2) ** 0.5
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the map."""
        return F.conv2d(input, self.weight * self.scale, self.bias, padding=self.kernel_size[0] // 2)


class EqualizedDoubleConvolve(EqualizedConv2d):
    """The convolution of nearest-neighbour doubled x: [N, width, H, W] to [N, out, 2H, 2W]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of twice the size."""
        return double_convolve(input, self.weight * self.scale, self.bias)


class EqualizedConvolveHalve(EqualizedConv2d):
    """The 2x2 mean of the convolution of x: [N, width, H, W] with even sizes to [N, out, H/2, W/2]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the map of half the size."""
        return convolve_halve(input, self.weight * self.scale, self.bias)
