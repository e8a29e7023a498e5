"""Discs, computed."""

import torch

from ganzoo.api import DataError, TensorDataset


def discs(*, size: int = 32, channels: int = 1, labels: bool = False, count: int = 512) -> TensorDataset:
    """One soft disc a picture, in one of four corners, which are the classes (ganzoo-example, 2026)."""
    if count < 4 or size < 8:
        raise DataError(f"dataset 'discs' needs a 'count' of at least 4 and a 'size' of at least 8, not {count} and {size}")
    source = torch.Generator().manual_seed(1)
    corner = torch.arange(count) % 4
    middle = torch.stack([corner // 2, corner % 2], 1) * 0.5 + 0.25 + (torch.rand(count, 2, generator=source) - 0.5) * 0.2
    radius = 0.08 + 0.1 * torch.rand(count, generator=source)
    grid = (torch.arange(size) + 0.5) / size
    down, across = ((grid[None, :] - middle[:, axis, None]) for axis in (0, 1))
    distance = (down[:, :, None] ** 2 + across[:, None, :] ** 2).sqrt()
    shade = torch.sigmoid((radius[:, None, None] - distance) * size)
    pixels = (shade * 255).round().to(torch.uint8)
    samples = pixels[:, None].expand(-1, channels, -1, -1).contiguous()
    return TensorDataset(samples, corner, classes=4 if labels else 0)
