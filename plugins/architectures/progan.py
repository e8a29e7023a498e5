"""Networks that grow from 4x4 pixels up while they train."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import LabelledLogit, require_label
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedConvolveHalve, EqualizedDoubleConvolve, EqualizedLinear
from ganzoo.layers.growth import Growth
from ganzoo.layers.images import image_format
from ganzoo.layers.minibatch import MinibatchStddev
from ganzoo.layers.pixel_norm import PixelNorm, unit_size
from ganzoo.layers.scales import widths

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)  # pixels
GAIN = 2**0.5  # of a layer before a rectifier


class ProGAN(Architecture):
    """Progressively grown networks with equalised learning rates (Karras et al. 2018, arXiv:1710.10196).

    A size s from 4 pixels on has min(channel_base / s, channel_max) channels. G: z, scaled to unit size, through a linear
    layer to 4x4; for each size two 3x3 convolutions, the first after nearest-neighbour doubling, each followed by
    LeakyReLU(0.2) and pixel norm; a 1x1 convolution to colours, with nothing after it. D mirrors that without norms, takes
    2x2 means, and appends the standard deviation in groups of `group` samples (0: it does not) to its 4x4 map.
    [[stages]] with sizes make both grow: while the share `fade` of a stage of a new size lasts, G's images and D's features
    are blended from those of the size before. The game `progressive` blends the real images alike; without stages the
    networks are whole from the start. With classes, G sees the one-hot label beside z, and D has a projection or a logit
    for each class (`discriminator_label`). The paper has channel_base 16384 and channel_max 512.
    Deviations: each entry of G's first map has a bias, as in pytorch_GAN_zoo; optimizers keep their state when a stage
    begins; the authors' D learns labels by an auxiliary classifier.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "samples-fit-the-spec": "G ends linearly, as published: colours may leave [-1, 1], and pictures are clipped",
        "gradients-reach-everything": "the colour layers of the sizes before serve while the networks grow and then rest",
        "samples-are-judged-alone": "D's minibatch standard deviation mixes samples, as published; group = 0 leaves it out",
        "accumulation-equals-the-batch": "D's minibatch standard deviation has other groups in each piece of a batch",
    }

    def __init__(
        self,
        *,
        channel_base: int = 2048,
        channel_max: int = 64,
        fade: float = 0.5,
        group: int = 4,
        discriminator_label: Literal["projection", "heads", "none"] = "projection",
    ) -> None:
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.fade = fade
        self.group = group
        self.discriminator_label = discriminator_label
        for option, value, least in (
            ("channel_base", channel_base, 1),
            ("channel_max", channel_max, 1),
            ("group", group, 0),
        ):
            if value < least:
                raise PluginError(f"architecture 'progan' needs a {option!r} of at least {least}, not {value}")
        if not 0 <= fade <= 1:
            raise PluginError(f"architecture 'progan' needs a 'fade' from 0 to 1, a share of a stage, not {fade}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the growing generator."""
        channels, size = image_format(spec, "progan", SIZES)
        return Generator(spec, channels, size, widths(size, self.channel_base, self.channel_max), self.fade)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the growing discriminator."""
        channels, size = image_format(spec, "progan", SIZES)
        width = widths(size, self.channel_base, self.channel_max)
        label = LabelledLogit(width[0], spec.classes, self.discriminator_label)
        return Discriminator(channels, size, width, self.fade, Judgement(width[0], self.group, label))


class LabelledInput(nn.Module):
    """Latents [N, latent] with the one-hot label beside them, where there are classes."""

    def __init__(self, latent: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.width = latent + classes

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return [N, latent + classes]."""
        label = require_label(label, self.classes)
        return z if label is None else torch.cat([z, F.one_hot(label, self.classes).to(z.dtype)], 1)


class GeneratorBlock(nn.Sequential):
    """Two convolutions, the first after doubling, each with LeakyReLU and pixel norm."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(
            EqualizedDoubleConvolve(width, out, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            PixelNorm(),
            EqualizedConv2d(out, out, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            PixelNorm(),
        )


class Generator(Growth):
    """Latents [N, latent] to images [N, channels, s, s] of the size s that it has grown to."""

    def __init__(self, spec: Spec, channels: int, size: int, widths: list[int], fade: float) -> None:
        super().__init__(size, fade)
        self.condition = LabelledInput(spec.latent, spec.classes)
        self.first = nn.Sequential(
            EqualizedLinear(self.condition.width, widths[0] * 16, gain=GAIN / 4),
            nn.Unflatten(1, (widths[0], 4, 4)),
            nn.LeakyReLU(0.2),
            PixelNorm(),
            EqualizedConv2d(widths[0], widths[0], 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            PixelNorm(),
        )
        self.blocks = nn.ModuleList(GeneratorBlock(width, out) for width, out in pairwise(widths))
        self.colours = nn.ModuleList(EqualizedConv2d(width, channels, 1) for width in widths)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        old = x = self.first(unit_size(self.condition(z, label)))
        for block in self.blocks[: self.depth]:
            old, x = x, block(x)
        image: Tensor = self.colours[self.depth](x)
        if not self.fading:
            return image
        before: Tensor = self.colours[self.depth - 1](old)
        return self.blend(image, F.interpolate(before, scale_factor=2.0, mode="nearest"))


class DiscriminatorBlock(nn.Sequential):
    """Two convolutions, the second followed by 2x2 means, each with LeakyReLU."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(
            EqualizedConv2d(width, width, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            EqualizedConvolveHalve(width, out, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
        )


class Judgement(nn.Module):
    """The end of D: a 4x4 map [N, width, 4, 4] to logits [N] and features [N, width]."""

    def __init__(self, width: int, group: int, label: LabelledLogit, gain: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *([MinibatchStddev(group)] if group else []),
            EqualizedConv2d(width + (1 if group else 0), width, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            EqualizedLinear(width * 16, width, gain=GAIN),
            nn.LeakyReLU(0.2),
        )
        self.logit = EqualizedLinear(width, label.outputs, gain=gain)
        self.labelled = label

    def forward(self, x: Tensor, label: Tensor | None) -> DiscriminatorOutput:
        """Return logits and features."""
        features = self.body(x)
        return DiscriminatorOutput(self.labelled(self.logit(features), features, label), features)


class Scale(nn.Module):
    """One size of D: colours to features [N, width, s, s], and these to features of half the size."""

    def __init__(self, channels: int, width: int, out: int) -> None:
        super().__init__()
        self.colours = from_colours(channels, width)
        self.block = DiscriminatorBlock(width, out)


class Discriminator(Growth):
    """Images [N, channels, s, s] of the size s that it has grown to, to logits [N] and features [N, widths[0]]."""

    def __init__(self, channels: int, size: int, widths: list[int], fade: float, judgement: Judgement) -> None:
        super().__init__(size, fade)
        self.feature_width = widths[0]
        self.scales = nn.ModuleList(Scale(channels, width, out) for width, out in pairwise(widths[::-1]))
        self.colours = from_colours(channels, widths[0])
        self.judgement = judgement

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        entrances = [*(scale.colours for scale in self.scales), self.colours]  # largest first
        first = len(self.scales) - self.depth
        features = entrances[first](x)
        for index, scale in enumerate(self.scales[first:], first):
            features = scale.block(features)
            if self.fading and index == first:
                features = self.blend(features, entrances[index + 1](F.avg_pool2d(x, 2)))
        judged: DiscriminatorOutput = self.judgement(features, label)
        return judged


def from_colours(channels: int, width: int) -> nn.Module:
    """Return the layer from images to features."""
    return nn.Sequential(EqualizedConv2d(channels, width, 1, gain=GAIN), nn.LeakyReLU(0.2))
