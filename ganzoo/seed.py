"""Randomness as a function of where a run stands, so that resuming needs counters and no generator state."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed for a purpose and its counters, such as (seed, "order", epoch)."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator of its own for a purpose, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))


def latents(count: int, size: int, prior: str, *parts: int | str) -> Tensor:
    """Return z [count, size], standard normal or uniform in [-1, 1], the same for the same parts."""
    source = generator(*parts)
    if prior == "uniform":
        return torch.rand(count, size, generator=source) * 2 - 1
    return torch.randn(count, size, generator=source)


def truncated(z: Tensor, bound: float, *parts: int | str) -> Tensor:
    """Return normal latents in which every number beyond `bound` standard deviations was drawn again until it was not.

    All of that drawing is one number of the normal distribution between the bounds (Brock et al. 2019, arXiv:1809.11096).
    """
    uniform = torch.rand(z.shape, generator=generator(*parts, "truncated"), dtype=torch.float64) * 2 - 1
    inside = math.sqrt(2) * torch.erfinv(uniform * math.erf(bound / math.sqrt(2)))
    return torch.where(z.abs() > bound, inside.to(z.dtype).clamp(-bound, bound), z)
