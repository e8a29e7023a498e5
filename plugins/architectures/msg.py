"""Networks that meet at every scale at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import LabelledLogit
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear
from ganzoo.layers.images import image_format
from ganzoo.layers.pixel_norm import PixelNorm
from ganzoo.layers.scales import pack, pyramid, scales, unpack, widths

from .progan import GAIN, SIZES, GeneratorBlock, Judgement, LabelledInput

WHOLE_BATCH = 2**30  # a group that no batch exceeds


class MSG(Architecture):
    """Networks whose gradients flow at all scales from the start (Karnewar & Wang 2020, arXiv:1903.06048).

    A size s from 4 pixels on has min(channel_base / s, channel_max) channels (16384 and 512 in the source). G is that of
    ProGAN with a 1x1 convolution to colours at every size; D takes the image of each size through a 1x1 convolution of half
    the size's channels and concatenates it with what comes from the larger ones, two 3x3 convolutions and 2x2 means a size.
    D appends the standard deviation over the whole batch to its 4x4 map (`stddev`). All layers have equalised learning
    rates, those to and from colours with the same gain of sqrt(2). z is not normalised.
    The game `multi-scale` asks for `pyramid_generator` and `pyramid_discriminator`, whose samples are the images of all
    sizes packed in a row. In the game `adversarial` G gives its last image only and D sees its 2x2 means. With classes, G
    sees the one-hot label beside z and D has a projection or a logit for each class; the authors' networks have none.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "samples-fit-the-spec": "G ends linearly, as published: colours may leave [-1, 1], and pictures are clipped",
        "samples-are-judged-alone": "D's minibatch standard deviation mixes samples, as published; see option stddev",
        "accumulation-equals-the-batch": "D's minibatch standard deviation is that of each piece of a batch",
    }

    def __init__(
        self,
        *,
        channel_base: int = 2048,
        channel_max: int = 64,
        stddev: bool = True,
        discriminator_label: Literal["projection", "heads", "none"] = "projection",
    ) -> None:
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.stddev = stddev
        self.discriminator_label = discriminator_label
        for option, value in (("channel_base", channel_base), ("channel_max", channel_max)):
            if value < 2:
                raise PluginError(f"architecture 'msg' needs a {option!r} of at least 2, not {value}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the generator of the last image alone."""
        channels, size = image_format(spec, "msg", SIZES)
        return Generator(spec, channels, self._widths(size), [size])

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the discriminator of an image and its own means."""
        return WholeImages(self._pyramid_discriminator(spec))

    def pyramid_generator(self, spec: Spec) -> nn.Module:
        """Return the generator of packed pyramids."""
        channels, size = image_format(spec, "msg", SIZES)
        return Generator(spec, channels, self._widths(size), scales(size))

    def pyramid_discriminator(self, spec: Spec) -> nn.Module:
        """Return the discriminator of packed pyramids."""
        return self._pyramid_discriminator(spec)

    def _pyramid_discriminator(self, spec: Spec) -> Discriminator:
        channels, size = image_format(spec, "msg", SIZES)
        width = self._widths(size)
        label = LabelledLogit(width[0], spec.classes, self.discriminator_label)
        return Discriminator(channels, size, width, Judgement(width[0], WHOLE_BATCH * self.stddev, label, GAIN))

    def _widths(self, size: int) -> list[int]:
        found = widths(size, self.channel_base, self.channel_max)
        for scale, width in zip(scales(size), found, strict=True):
            if width % 2:
                raise PluginError(
                    f"architecture 'msg' halves its channels, of which it has {width} at {scale} pixels; "
                    "give a larger channel_base and an even channel_max"
                )
        return found


class Generator(nn.Module):
    """Latents [N, latent] to images at these sizes, packed in a row where there are several."""

    def __init__(self, spec: Spec, channels: int, widths: list[int], shown: Sequence[int]) -> None:
        super().__init__()
        self.condition = LabelledInput(spec.latent, spec.classes)
        # the transposed 4x4 convolution of one pixel: inputs of an output are the latents alone
        self.first = EqualizedLinear(self.condition.width, widths[0] * 16, bias=False, gain=GAIN)
        self.bias = nn.Parameter(torch.zeros(widths[0], 1, 1))
        self.second = nn.Sequential(
            nn.LeakyReLU(0.2), EqualizedConv2d(widths[0], widths[0], 3, gain=GAIN), nn.LeakyReLU(0.2), PixelNorm()
        )
        self.blocks = nn.ModuleList(GeneratorBlock(width, out) for width, out in pairwise(widths))
        sizes = scales(4 * 2 ** len(self.blocks))
        self.colours = nn.ModuleDict(
            {str(size): EqualizedConv2d(width, channels, 1, gain=GAIN) for size, width in zip(sizes, widths, strict=True)
             if size in shown}
        )  # fmt: skip

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the image [N, channels, S, S], or a packed pyramid."""
        x = self.second(self.first(self.condition(z, label)).unflatten(1, (-1, 4, 4)) + self.bias)
        maps = [x]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        images = [self.colours[key](x) for x in maps if (key := str(x.shape[-1])) in self.colours]
        return pack(images) if len(images) > 1 else images[0]


class DiscriminatorBlock(nn.Sequential):
    """Two convolutions with LeakyReLU, then 2x2 means."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(
            EqualizedConv2d(width, width, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            EqualizedConv2d(width, out, 3, gain=GAIN),
            nn.LeakyReLU(0.2),
            nn.AvgPool2d(2),
        )


class Scale(nn.Module):
    """One size of D: colours to features [N, seen, s, s], and features [N, width, s, s] to those of half the size."""

    def __init__(self, channels: int, seen: int, width: int, out: int) -> None:
        super().__init__()
        self.colours = EqualizedConv2d(channels, seen, 1, gain=GAIN)
        self.block = DiscriminatorBlock(width, out)


class Discriminator(nn.Module):
    """Packed pyramids to logits [N] and features [N, widths[0]]."""

    def __init__(self, channels: int, size: int, widths: list[int], judgement: Judgement) -> None:
        super().__init__()
        self.feature_width = widths[0]
        self.channels = channels
        self.sizes = scales(size)
        inward = widths[::-1]
        seen = [inward[0], *(width // 2 for width in inward[1:])]  # the other half comes from the size above
        self.scales = nn.ModuleList(
            Scale(channels, part, width, out // 2) for part, (width, out) in zip(seen, pairwise(inward), strict=False)
        )
        self.colours = EqualizedConv2d(channels, seen[-1], 1, gain=GAIN)
        self.judgement = judgement

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        smallest, *images = unpack(x, self.channels, self.sizes)
        above: list[Tensor] = []  # what comes from the size above, where there is one
        for scale, image in zip(self.scales, reversed(images), strict=True):
            above = [scale.block(torch.cat([scale.colours(image), *above], 1))]
        judged: DiscriminatorOutput = self.judgement(torch.cat([self.colours(smallest), *above], 1), label)
        return judged


class WholeImages(nn.Module):
    """The discriminator of pyramids for images [N, channels, S, S], which it takes the means of."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.feature_width = discriminator.feature_width
        self.discriminator = discriminator

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        judged: DiscriminatorOutput = self.discriminator(pack(pyramid(x)), label)
        return judged
