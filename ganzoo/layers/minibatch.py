"""Layers through which D sees how alike the samples of a batch are, so that a generator of few samples is found out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.api import PluginError

__all__ = ["MinibatchDiscrimination", "MinibatchStddev"]

TINY = 1e-8  # keeps the gradient of the deviation finite where all samples of a group are the same


class MinibatchStddev(nn.Module):
    """Maps [N, C, H, W] and `channels` more that hold the standard deviation within a group (arXiv:1710.10196).

    A group is every M-th of the N samples, M = N / group. The deviation of each entry over the group (not corrected for its
    mean) is averaged over pixels and the entry's part of the C channels, one part for each new channel. Where `group` does
    not divide N, the largest smaller number that does takes its place, so one sample alone has no deviation.
    """

    def __init__(self, group: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.group = group
        self.channels = channels
        if group < 1 or channels < 1:
            raise PluginError(
                f"MinibatchStddev needs a group and channels of at least 1, not {group} and {channels}; or leave it out"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Append the channels."""
        count, width, *size = x.shape
        if width % self.channels:
            raise PluginError(
                f"MinibatchStddev cannot cut {width} channels into {self.channels} equal parts; give a divisor"
            )
        group = max(number for number in range(1, min(self.group, count) + 1) if count % number == 0)
        y = x.float().reshape(group, count // group, self.channels, -1, *size)
        variance = (y - y.mean(0)).square().mean(0)  # many times as fast as var along the outermost axis
        deviation = (variance + TINY).sqrt().mean((2, 3, 4))  # [M, channels]
        return torch.cat([x, deviation.to(x.dtype).repeat(group, 1)[:, :, None, None].expand(-1, -1, *size)], 1)


class MinibatchDiscrimination(nn.Module):
    """How close each sample's features [N, F] are to the others', [N, kernels] (Salimans et al. 2016, arXiv:1606.03498).

    A matrix for each kernel takes features f to `dims` numbers M; the result is the sum of exp(-|M(f_i) - M(f_j)|_1) over
    all other samples j. The paper's sum has j = i too, which adds one; the authors' code leaves it out, as here. Weights
    start from N(0, 1 / F): for features of unit size distances are of order one.
    """

    def __init__(self, features: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.kernels = kernels
        self.dims = dims
        if kernels < 1 or dims < 1:
            raise PluginError(f"MinibatchDiscrimination needs kernels and dims of at least 1, not {kernels} and {dims}")
        self.project = nn.Linear(features, kernels * dims, bias=False)
        nn.init.normal_(self.project.weight, 0.0, features**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sums in float32."""
        projected = self.project(features).float().unflatten(1, (self.kernels, self.dims))
        distance = (projected[:, None] - projected[None]).abs().sum(3)  # [N, N, kernels]
        return torch.exp(-distance).sum(1) - 1  # exp(0) of each sample with itself
