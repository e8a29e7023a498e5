"""Differentiable augmentation of everything that D sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ganzoo.api import PluginError, Regularizer, did_you_mean

SHIFT = 1 / 8  # of the size, at most
HOLE = 1 / 2  # of the size


class DiffAugment(Regularizer):
    """Shows D augmented reals and fakes, so that little data is not learnt by heart (Zhao et al. 2020, arXiv:2006.10738).

    `policy` names what is done, in this order: "color" (brightness +U(-.5, .5), saturation xU(0, 2), contrast xU(.5, 1.5)),
    "translation" (up to 1/8 of the size, zeros move in) and "cutout" (a square of half the size becomes zero). Every sample
    has draws of its own. Zero is mid-grey, as images lie in [-1, 1].
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "each piece of a batch draws augmentations of its own"
    }

    def __init__(self, *, policy: tuple[str, ...] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        self.policy = tuple(policy)
        for name in self.policy:
            if name not in POLICIES:
                close = did_you_mean(name, POLICIES)
                raise PluginError(f"regularizer 'diffaugment' has no policy {name!r}{close} (of: {', '.join(POLICIES)})")

    def view(self, x: Tensor) -> Tensor:
        """Return images [N, channels, H, W] augmented."""
        if x.dim() != 4:
            raise PluginError(f"regularizer 'diffaugment' augments images [N, C, H, W], not {list(x.shape)}; remove it")
        for name in self.policy:
            x = POLICIES[name](x)
        return x


def color(x: Tensor) -> Tensor:
    """Change brightness, saturation and contrast."""
    x = x + (_uniform(x) - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (_uniform(x) * 2)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (_uniform(x) + 0.5)


def translation(x: Tensor) -> Tensor:
    """Move by whole pixels; what leaves on one side is not seen again on the other."""
    for dim in (2, 3):
        size = x.shape[dim]
        most = int(size * SHIFT + 0.5)
        shift = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        source = torch.arange(size, device=x.device) - shift  # [N, size]: where each pixel comes from
        inside = (source >= 0) & (source < size)
        # wrapped round, the index is a permutation: the gradient's scatter adds nothing twice and is deterministic
        x = x.gather(dim, along(source % size, dim).expand_as(x)) * along(inside, dim)
    return x


def cutout(x: Tensor) -> Tensor:
    """Zero a square, which may reach over the border."""
    hole = torch.ones((), dtype=torch.bool, device=x.device)
    for dim in (2, 3):
        size = x.shape[dim]
        side = int(size * HOLE + 0.5)
        start = torch.randint(0, size + (1 - side % 2), (len(x), 1), device=x.device) - side // 2
        place = torch.arange(size, device=x.device)
        hole = hole & along((place >= start) & (place < start + side), dim)
    return x * ~hole


POLICIES: Mapping[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


def _uniform(x: Tensor) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)


def along(values: Tensor, dim: int) -> Tensor:
    """[N, size] to [N, 1, size, 1] or [N, 1, 1, size]."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None, :]
