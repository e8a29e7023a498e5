"""Images from 4x4 pixels up: how wide networks are at each size, and all sizes of an image in one row of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import PluginError

__all__ = ["SMALLEST", "pack", "pyramid", "scales", "unpack", "widths"]

SMALLEST = 4  # pixels


def scales(size: int) -> list[int]:
    """Return the sizes 4, 8, ... up to this one."""
    found = [SMALLEST * 2**step for step in range(max(size // SMALLEST, 1).bit_length())]
    if found[-1] != size:
        raise PluginError(f"images of {size} pixels do not double from {SMALLEST}; give 4, 8, 16, ... (data.size)")
    return found


def widths(size: int, base: int, most: int) -> list[int]:
    """Return the channels at the sizes 4, 8, ... up to this one: base / size, and never more than `most`."""
    return [max(min(base // scale, most), 1) for scale in scales(size)]


def pyramid(x: Tensor) -> list[Tensor]:
    """Return images [N, C, S, S] at the sizes 4, 8, ... S, each the 2x2 mean of the next."""
    found = [x]
    for _ in scales(x.shape[-1])[1:]:
        found.insert(0, F.avg_pool2d(found[0], 2))
    return found


def pack(images: Sequence[Tensor]) -> Tensor:
    """Return images [N, C, s, s] of several sizes as one row of numbers a sample, in the given order."""
    return torch.cat([image.flatten(1) for image in images], 1)


def unpack(packed: Tensor, channels: int, sizes: Sequence[int]) -> list[Tensor]:
    """Return the images [N, channels, s, s] of these sizes that `pack` made a row of."""
    lengths = [channels * size**2 for size in sizes]
    if packed.ndim != 2 or packed.shape[1] != sum(lengths):
        raise PluginError(
            f"packed images of {channels} channels and sizes {list(sizes)} are rows of {sum(lengths)} numbers, "
            f"not of shape {tuple(packed.shape)}; choose a game of pyramids"
        )
    rows = torch.split(packed, lengths, 1)
    return [row.reshape(-1, channels, size, size) for row, size in zip(rows, sizes, strict=True)]
