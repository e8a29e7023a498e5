"""Self-attention over feature maps, and what it attends to as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import PluginError

__all__ = ["SelfAttention", "attention_after", "attention_maps"]


class SelfAttention(nn.Module):
    """Every pixel sees the whole map (SAGAN, Zhang et al. 2019, arXiv:1805.08318): [N, C, H, W] to the same shape.

    x + gamma * out(softmax(query(x)^T key(x)) value(x)) with 1x1 convolutions without bias; gamma starts at zero, so that a
    network begins as the one without attention. As in the authors' code, keys and queries have C/8 channels, values C/2
    (at least one), and keys and values are max-pooled by two, which leaves a quarter of the pixels to attend to.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)

    def attention(self, x: Tensor) -> Tensor:
        """Return how much each pixel attends to each pooled pixel, [N, H*W, H*W/4]; each row sums to one."""
        keys = F.max_pool2d(self.key(x), 2).flatten(2)
        return torch.softmax(self.query(x).flatten(2).transpose(1, 2) @ keys, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Add what each pixel attends to."""
        values = F.max_pool2d(self.value(x), 2).flatten(2)
        attended = values @ self.attention(x).to(values.dtype).transpose(1, 2)
        added: Tensor = x + self.gamma * self.out(attended.reshape(*attended.shape[:2], *x.shape[2:]))
        return added


def attention_after(resolution: int, sizes: Sequence[int], role: str) -> int:
    """Return the place of the first map of a network that has this resolution; -1 where it is 0: no attention.

    `sizes` are the network's maps in pixels; PluginError, which names the network's role, where none fits.
    """
    if resolution == 0:
        return -1
    if resolution not in sizes:
        offered = ", ".join(str(size) for size in dict.fromkeys(sizes))
        raise PluginError(f"the {role}'s attention finds no map of {resolution} pixels; give one of {offered}")
    return list(sizes).index(resolution)


@torch.no_grad()
def attention_maps(net: nn.Module, *inputs: Tensor, **cond: Any) -> list[Tensor]:
    """Return the maps of each self-attention layer of a network for these inputs, in the order in which they are met.

    A map is [N, H, W, H/2, W/2], float32: where pixel (row, column) of sample n looks is `map[n, row, column]`.
    """
    maps: list[Tensor] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, SelfAttention)
        height, width = inputs[0].shape[2:]
        maps.append(layer.attention(inputs[0]).float().view(-1, height, width, height // 2, width // 2))

    layers = [layer for layer in net.modules() if isinstance(layer, SelfAttention)]
    if not layers:
        raise PluginError(f"{type(net).__name__} has no self-attention to look at; switch it on in the architecture")
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        net(*inputs, **cond)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
