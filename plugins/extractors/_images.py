"""What the extractors share: images of any size and colour become what a network was made for; names carry hashes."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow turns colour into grey


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Return images uint8 [N, C, H, W] as float32 0 to 255 with so many channels: grey is repeated, colour becomes luma."""
    images = images.float()
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def resized(images: Tensor, size: int) -> Tensor:
    """Return float images [N, C, H, W] as [N, C, size, size]: bilinear, with antialiasing where they shrink."""
    if images.shape[2:] == (size, size):
        return images
    shrinks = min(images.shape[2:]) > size
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)


def hash8(*parts: Tensor | str) -> str:
    """Return eight hexadecimal digits of a SHA-256 over texts and tensors."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
