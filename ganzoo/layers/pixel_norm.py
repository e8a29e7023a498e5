"""Feature vectors of unit size."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["PixelNorm", "unit_size"]

TINY = 1e-8  # keeps vectors of zeros finite


def unit_size(x: Tensor) -> Tensor:
    """Return x [N, C, ...] with the squares of each vector along C averaging to one."""
    return x * (x.square().mean(1, keepdim=True) + TINY).rsqrt()


class PixelNorm(nn.Module):
    """Each pixel's feature vector divided by its root mean square (Karras et al. 2018, arXiv:1710.10196)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x [N, C, ...] normalised along C."""
        return unit_size(x)
