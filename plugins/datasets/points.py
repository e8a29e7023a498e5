"""Mixtures of Gaussians in the plane, whose modes can be counted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ganzoo.api import DataError, Recognised, TensorDataset

REACH = 3  # standard deviations within which a point is of high quality


class Points(TensorDataset):
    """Points [N, 2] around the means of modes, drawn once from a seed of its own."""

    def __init__(self, means: Tensor, shares: Tensor, deviation: float, samples: int) -> None:
        if samples < 1:
            raise DataError(f"a dataset of points cannot have {samples} samples; give 1 or more")
        source = torch.Generator().manual_seed(0)
        self.means, self.deviation = means, deviation
        self.shares = shares.double() / shares.sum()
        mode = torch.multinomial(self.shares, samples, replacement=True, generator=source)
        super().__init__(means[mode] + deviation * torch.randn(samples, 2, generator=source))

    @property
    def modes(self) -> int:
        """How many there are."""
        return len(self.means)

    def recognise(self, samples: Tensor) -> Recognised:
        """Return the nearest mode of samples [N, 2], and which lie within three standard deviations of its mean."""
        distance, mode = torch.cdist(samples.double().cpu(), self.means.double()).min(1)
        return Recognised(mode, distance <= REACH * self.deviation)


def ring_8(*, samples: int = 100_000) -> Points:
    """Eight Gaussians on the unit circle, deviation 0.01 (PacGAN's protocol: Lin et al. 2018, arXiv:1712.04086).

    Coordinates are as published, and not in [-1, 1] exactly, so a generator needs an output without bounds.
    """
    angle = torch.arange(8) * (2 * math.pi / 8)
    return Points(torch.stack([angle.cos(), angle.sin()], 1), torch.ones(8), 0.01, samples)


def grid_25(*, samples: int = 100_000) -> Points:
    """25 Gaussians at {-4, -2, 0, 2, 4}^2, deviation 0.05 (PacGAN's protocol: Lin et al. 2018, arXiv:1712.04086)."""
    return Points(_grid(), torch.ones(25), 0.05, samples)


def grid_25_imbalanced(*, samples: int = 100_000) -> Points:
    """The grid of 25 Gaussians (Lin et al. 2018, arXiv:1712.04086) with every second one a tenth as frequent."""
    return Points(_grid(), torch.where(torch.arange(25) % 2 == 0, 1.0, 0.1), 0.05, samples)


def _grid() -> Tensor:
    axis = torch.arange(-4.0, 5.0, 2.0)
    return torch.cartesian_prod(axis, axis)
