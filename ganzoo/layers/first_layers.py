"""First layers of several generators that share the rest, all computed at once: each sample meets those of its label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditional import require_label

__all__ = ["ClassBatchNorm", "ClassLinear", "FirstLayers"]


def chosen(label: Tensor, classes: int) -> Tensor:
    """Return which class each label [N] is, as a mask [N, classes]; it asks nothing of the device."""
    return label[:, None] == torch.arange(classes, device=label.device)


class ClassLinear(nn.Module):
    """As many linear layers as classes: x [N, in] to [N, out] by the layer of each sample's label.

    One product does it: x stands in its label's block of a row of zeros, and the layers' weights below each other.
    """

    def __init__(self, width: int, out: int, classes: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(width, 1))  # nn.Linear's own, of each layer by itself
        self.weight = nn.Parameter(torch.empty(classes, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(classes, out).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return what the labels' layers make of x."""
        blocks = chosen(label, len(self.weight)).to(x.dtype)[:, :, None] * x[:, None]
        made: Tensor = blocks.flatten(1) @ self.weight.flatten(0, 1)
        return made if self.bias is None else made + F.embedding(label, self.bias).to(made.dtype)


class ClassBatchNorm(nn.Module):
    """As many batch norms as classes: each sample is normalised with the others of its label in the batch.

    x [N, channels] or [N, channels, H, W], in float32 whatever x is. A class that the batch lacks keeps its running
    statistics; so does the variance of one that has a single number. `train.sync_batch_norm` leaves this norm alone.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, classes: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes, channels))
        self.register_buffer("running_mean", torch.zeros(classes, channels))
        self.register_buffer("running_var", torch.ones(classes, channels))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Normalise, scale and shift each sample as its label has it."""
        flat = x.float().reshape(*x.shape[:2], -1)
        mean, variance = self._statistics(flat, label) if self.training else (self.running_mean, self.running_var)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        normal = flat * F.embedding(label, scale)[:, :, None] + F.embedding(label, shift)[:, :, None]
        return normal.view_as(x).to(x.dtype)

    def _statistics(self, flat: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance [classes, channels] of samples [N, channels, places]; none have zero."""
        member = chosen(label, len(self.weight)).to(flat.dtype)[:, :, None]
        samples = member.sum(0)
        divisor = samples.clamp(min=1)
        mean = (member * flat.mean(2)[:, None]).sum(0) / divisor
        centred = flat - F.embedding(label, mean)[:, :, None]
        variance = (member * centred.square().mean(2)[:, None]).sum(0) / divisor
        self._follow(mean.detach(), variance.detach(), samples * flat.shape[2])
        return mean, variance

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics as torch does, towards the unbiased variance of so many numbers [classes, 1]."""
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.copy_(self.running_mean.lerp(mean, self.momentum * (count > 0)))
        self.running_var.copy_(self.running_var.lerp(unbiased, self.momentum * (count > 1)))


class FirstLayers(nn.Module):
    """A linear layer for each class, and perhaps a batch norm: z [N, latent] to [N, *shape] before any activation.

    That is how MGAN has its generators differ (Hoang et al. 2018, arXiv:1708.02556). `shape` is (width,) or
    (channels, size, size), the latter in channels-last layout.
    """

    def __init__(self, latent: int, classes: int, shape: tuple[int, ...], *, normed: bool) -> None:
        super().__init__()
        self.classes = classes
        self.shape = (*shape[1:], shape[0])
        self.linear = ClassLinear(latent, math.prod(shape), classes, bias=not normed)
        self.norm = ClassBatchNorm(shape[0], classes) if normed else None

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return what the labels' layers make of latents."""
        label = require_label(label, self.classes)
        assert label is not None  # there are classes
        made: Tensor = self.linear(z, label).view(-1, *self.shape).movedim(-1, 1)
        if self.norm is not None:
            made = self.norm(made, label)
        return made
