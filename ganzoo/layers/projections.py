"""Convolutions from and to a single pixel, computed as the matrix products that they are.

The general kernels are several times slower at this shape; parameters, initialisation and results are those of the
convolutions, whose classes these remain, so that spectral norm and the like treat them alike.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from ganzoo.api import PluginError

__all__ = ["FromPixel", "ToPixel"]


class FromPixel(nn.ConvTranspose2d):
    """The transposed convolution of a 1x1 image: x [N, in, 1, 1] to [N, out, kernel, kernel], stride 1, no padding."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the kernel's copies, in channels-last layout."""
        if x.shape[2:] != (1, 1):
            raise PluginError(f"FromPixel takes images of 1x1 pixels, not {tuple(x.shape[2:])}; use nn.ConvTranspose2d")
        weight = self.weight.permute(0, 2, 3, 1)  # [in, kernel, kernel, out]: a view in channels-last layout
        made: Tensor = (x.flatten(1) @ weight.flatten(1)).view(-1, *weight.shape[1:])
        if self.bias is not None:
            made = made + self.bias
        return made.permute(0, 3, 1, 2)


class ToPixel(nn.Conv2d):
    """The convolution whose kernel covers the whole image: x [N, in, kernel, kernel] to [N, out, 1, 1]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return one pixel a sample."""
        if tuple(input.shape[2:]) != self.kernel_size:
            raise PluginError(
                f"ToPixel takes images of {self.kernel_size} pixels, not {tuple(input.shape[2:])}; use nn.Conv2d"
            )
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return linear(input.permute(0, 2, 3, 1).flatten(1), weight, self.bias)[:, :, None, None]
