"""Choices made of latents, so that whoever draws latents need not know of the choices."""

from __future__ import annotations

import torch
from torch import Tensor


def quantile(z: Tensor, prior: str) -> Tensor:
    """Return what share of the prior's draws lies below each latent: uniform in [0, 1]."""
    return torch.special.ndtr(z) if prior == "normal" else (z + 1) / 2
