"""Convolutions whose weights a style scales for each sample (Karras et al. 2020, arXiv:1912.04958)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equalized import EqualizedLinear
from .fir import FIR

__all__ = ["ModulatedConv2d", "unscaled"]

TINY = 1e-8  # keeps a demodulation of weights that are all zero finite


def unscaled(x: Tensor) -> torch.autocast:
    """Return a context without autocast on x's device: styles are few numbers, and all of a map hangs on each."""
    return torch.autocast(x.device.type, enabled=False)


class ModulatedConv2d(nn.Conv2d):
    """x [N, width, H, W] and a style w [N, style] to [N, out, H, W], or twice the size with `double`; without a bias.

    s = affine(w) scales the weight's inputs; with `demodulate`, each sample's weights of each output are then divided by
    their length. Scaling x before and the result after one convolution with the shared weight is the same function, at
    the price of a plain convolution. Without demodulation the weight counts 1 / sqrt(inputs of an output) times.
    `double` convolves x with zeros put in between, then filters.
    """

    def __init__(
        self, width: int, out: int, kernel: int, style: int, *, demodulate: bool = True, double: bool = False
    ) -> None:
        super().__init__(width, out, kernel, padding=kernel // 2, bias=False)
        self.demodulate = demodulate
        self.affine = EqualizedLinear(style, width, start=1.0)
        self.fir = FIR() if double else None
        nn.init.normal_(self.weight)

    def forward(self, input: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]  # a style comes with the map
        """Return the map."""
        with unscaled(input):
            scale = self.affine(w.float())
            if self.demodulate:
                length = (scale.square() @ self.weight.square().sum((2, 3)).t() + TINY).rsqrt()
            else:
                scale = scale / self.weight[0].numel() ** 0.5
        x = self._convolved(input * _each_channel(scale, input))
        return x * _each_channel(length, x) if self.demodulate else x

    def _convolved(self, x: Tensor) -> Tensor:
        if self.fir is None:
            return F.conv2d(x, self.weight, padding=self.padding)
        x = F.conv_transpose2d(x, self.weight.flip(2, 3).transpose(0, 1), stride=2)
        return self.fir.blurred(x, padding=1, gain=4.0)


def _each_channel(factors: Tensor, x: Tensor) -> Tensor:
    return factors.to(x.dtype)[:, :, None, None]
