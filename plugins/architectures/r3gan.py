"""R3GAN: what is left of StyleGAN2 without its tricks, on a modern residual network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import require_label
from ganzoo.layers.fir import FIR
from ganzoo.layers.images import image_format

EXPANSION = 2  # of the channels inside a block
SLOPE = 0.2  # of the rectifiers for negative numbers
GAIN = (2 / (1 + SLOPE**2)) ** 0.5  # what keeps the variance through such a rectifier


class R3GAN(Architecture):
    """Bottleneck residual networks without norm for both sides (Huang et al. 2024, arXiv:2501.05441).

    A stage is `blocks` blocks x + conv1(act(conv3(act(conv1(x))))), twice as wide inside, the 3x3 convolution in groups of
    `group_width` channels; stages of 4x4, 8x8, ... are joined by a [1, 2, 1] filter's interpolation and, where the width
    changes, a 1x1 convolution on the smaller side. G starts from a learned 4x4 basis that is scaled by a linear map of z
    and ends linearly in pixels; D is its mirror image and ends in a depthwise 4x4 convolution and a linear map.
    With classes, G sees an embedding of the label beside z, as wide as z, and D's end has the width of its 4x4 stage and is
    multiplied by an embedding; `discriminator_label = "none"` leaves the label to a regularizer.
    Weights start from N(0, gain^2 / fan-in), inside a block with the rectifier's gain times (all blocks of the network) to
    the power of -1/4 and its last convolution at zero. All stages up to `flat` pixels have one `width`, each one above half
    of that before. Published: 768 with groups of 16 channels (CIFAR-10, FFHQ), 1536 with groups of 32 (ImageNet, flat to
    64 pixels).
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "samples-fit-the-spec": "G ends without a tanh, as published: what it makes is cut off where it becomes bytes"
    }

    def __init__(
        self,
        *,
        width: int = 64,
        group_width: int = 16,
        blocks: int = 2,
        flat: int = 32,
        discriminator_label: Literal["projection", "none"] = "projection",
    ) -> None:
        self.width = width
        self.group_width = group_width
        self.blocks = blocks
        self.flat = flat
        self.discriminator_label = discriminator_label
        for option, value in (("width", width), ("group_width", group_width), ("blocks", blocks), ("flat", flat)):
            if value < 1:
                raise PluginError(f"architecture 'r3gan' needs a {option!r} of at least 1, not {value}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the generator."""
        channels, size = image_format(spec, "r3gan")
        return Generator(spec.latent, self._widths(size), self.group_width, self.blocks, channels, spec.classes)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the discriminator."""
        channels, size = image_format(spec, "r3gan")
        told = spec.classes if self.discriminator_label == "projection" else 0
        return Discriminator(
            self._widths(size)[::-1], self.group_width, self.blocks, channels, told, deaf=self.discriminator_label == "none"
        )

    def _widths(self, size: int) -> list[int]:
        """Channels from 4x4 to the full size."""
        widths = [self.width // max(4 * 2**stage // self.flat, 1) for stage in range(size.bit_length() - 2)]
        if any(EXPANSION * width % self.group_width or not width for width in widths):
            raise PluginError(
                f"architecture 'r3gan' cannot put the channels of {size} pixels, {EXPANSION} x {widths}, into groups of "
                f"{self.group_width}; set another 'width' or 'group_width'"
            )
        return widths


class Block(nn.Module):
    """x + a bottleneck with a grouped convolution; `depth` is the number of blocks of the whole network."""

    def __init__(self, width: int, group_width: int, depth: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        gain = GAIN * depth**-0.25
        self.expand = initialised(nn.Conv2d(width, inner, 1), gain)
        self.spread = initialised(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_width), gain)
        self.contract = initialised(nn.Conv2d(inner, width, 1, bias=False), 0.0)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return x + self.contract(self.activation(self.spread(self.activation(self.expand(x)))))


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size], mostly in [-1, 1]."""

    def __init__(self, latent: int, widths: list[int], group_width: int, blocks: int, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        depth = blocks * len(widths)
        self.embedding = embedded(classes, latent, classes**-0.5) if classes else None
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.linear = initialised(nn.Linear(latent * (2 if classes else 1), widths[0], bias=False))
        self.stages = nn.ModuleList(stage(width, group_width, blocks, depth) for width in widths)
        self.joints = nn.ModuleList(joint(width, out) for width, out in pairwise(widths))
        self.fir = FIR()
        self.pixels = initialised(nn.Conv2d(widths[-1], channels, 1, bias=False))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        label = require_label(label, self.classes)
        if self.embedding is not None and label is not None:
            z = torch.cat([z, self.embedding(label).to(z.dtype)], 1)
        x = self.stages[0](self.basis * self.linear(z)[:, :, None, None])
        for join, blocks in zip(self.joints, self.stages[1:], strict=True):
            x = blocks(self.fir.doubled(join(x)))
        return self.pixels(x)


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N] and features [N, widths[-1]]; `widths` of the full size to 4x4."""

    def __init__(
        self, widths: list[int], group_width: int, blocks: int, channels: int, classes: int, *, deaf: bool
    ) -> None:
        super().__init__()
        self.classes = classes
        self.deaf = deaf  # is it given labels that it has no use for?
        self.feature_width = widths[-1]
        depth = blocks * len(widths)
        self.pixels = initialised(nn.Conv2d(channels, widths[0], 1, bias=False))
        self.stages = nn.ModuleList(stage(width, group_width, blocks, depth) for width in widths)
        self.joints = nn.ModuleList(joint(width, out) for width, out in pairwise(widths))
        self.fir = FIR()
        self.basis = initialised(nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False))
        end = widths[-1] if classes else 1
        self.linear = initialised(nn.Linear(widths[-1], end, bias=False))
        self.embedding = embedded(classes, end, (classes * end) ** -0.5) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        label = None if self.deaf else require_label(label, self.classes)
        x = self.stages[0](self.pixels(x))
        for join, blocks in zip(self.joints, self.stages[1:], strict=True):
            x = blocks(join(self.fir.halved(x)))
        features = self.basis(x).flatten(1)
        end = self.linear(features)
        if self.embedding is not None and label is not None:
            end = end * self.embedding(label).to(end.dtype)
        return DiscriminatorOutput(end.sum(1), features)


def stage(width: int, group_width: int, blocks: int, depth: int) -> nn.Module:
    """Return the blocks of one resolution."""
    return nn.Sequential(*(Block(width, group_width, depth) for _ in range(blocks)))


def joint(width: int, out: int) -> nn.Module:
    """Return what takes the width of one resolution to that of the next."""
    return nn.Identity() if width == out else initialised(nn.Conv2d(width, out, 1, bias=False))


def initialised(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Draw the weights from N(0, gain^2 / fan-in); biases start at zero."""
    nn.init.normal_(layer.weight, 0.0, gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def embedded(classes: int, width: int, deviation: float) -> nn.Embedding:
    """Return an embedding of the label, drawn from a normal distribution."""
    table = nn.Embedding(classes, width)
    nn.init.normal_(table.weight, 0.0, deviation)
    return table
