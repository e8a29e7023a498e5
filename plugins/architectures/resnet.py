"""The residual networks that WGAN-GP introduced and SNGAN settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.attention import SelfAttention, attention_after
from ganzoo.layers.conditional import ConditionalBatchNorm, require_label
from ganzoo.layers.images import image_format
from ganzoo.layers.resampling import ConvolveHalve, DoubleConvolve

Label = Literal["projection", "none"]  # what a discriminator makes of the label

FLAT = 32  # up to this size in pixels all blocks have one width; above, the widths form a pyramid


class ResNet(Architecture):
    """Residual networks of WGAN-GP (arXiv:1704.00028) and SNGAN (Miyato et al. 2018, arXiv:1802.05957).

    Up to 32 pixels G has blocks of one width from 4x4 up and D four blocks, the first two downsampling; from 64 pixels on
    the widths form a pyramid, and the width option names its widest, innermost end. 0 means the published width: 256 and
    128 up to 32 pixels, 1024 and 1024 above. With classes, G has conditional batch norms in its blocks (arXiv:1610.07629)
    and D a projection (Miyato & Koyama 2018, arXiv:1802.05637); with `discriminator_label = "none"` D leaves the label to a
    regularizer. `pool` is how D's last map becomes features: SNGAN sums, WGAN-GP averages. `generator_attention` and
    `discriminator_attention` put self-attention (arXiv:1805.08318) after the first block of that many pixels; 0 is none.
    D has no norm; spectral norm is a regularizer.
    Doubling and halving are folded into the convolution beside them, and a shortcut's 1x1 convolution is computed at the
    lower resolution: the same functions with less arithmetic. Biases start at zero, as in the Chainer original.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "G's batch norm takes its statistics over each piece of a batch"
    }

    name: ClassVar[str] = "resnet"  # in errors

    def __init__(
        self,
        *,
        generator_width: int = 0,
        discriminator_width: int = 0,
        pool: Literal["sum", "mean"] = "sum",
        generator_attention: int = 0,
        discriminator_attention: int = 0,
        discriminator_label: Label = "projection",
    ) -> None:
        self.generator_width = generator_width
        self.discriminator_width = discriminator_width
        self.pool = pool
        self.generator_attention = generator_attention
        self.discriminator_attention = discriminator_attention
        self.discriminator_label: Label = discriminator_label
        for option, value in (("generator_width", generator_width), ("discriminator_width", discriminator_width)):
            if value < 0:
                raise PluginError(f"architecture {self.name!r} needs a {option!r} of 0 (as published) or more, not {value}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the residual generator."""
        channels, size = image_format(spec, self.name)
        if size <= FLAT:
            widths = [self.generator_width or 256] * (size.bit_length() - 2)
        else:
            widths = self._pyramid("generator_width", self.generator_width or 1024, size)
        sizes = [8 * 2**index for index in range(len(widths) - 1)]
        attention = attention_after(self.attention_in(size)[0], sizes, "generator")
        return Generator(spec.latent, widths, channels, spec.classes, attention)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the residual discriminator."""
        channels, size = image_format(spec, self.name)
        if size <= FLAT:
            widths, halvings = [self.discriminator_width or 128] * 4, 2
        else:
            widths, halvings = self._pyramid("discriminator_width", self.discriminator_width or 1024, size)[::-1], 5
        sizes = [size >> min(index + 1, halvings) for index in range(len(widths))]
        attention = attention_after(self.attention_in(size)[1], sizes, "discriminator")
        return Discriminator(
            widths, halvings, channels, spec.classes, pool=self.pool, attention=attention, label=self.discriminator_label
        )

    def attention_in(self, size: int) -> tuple[int, int]:
        """Return at how many pixels G and D attend in images of this size."""
        return self.generator_attention, self.discriminator_attention

    def _pyramid(self, option: str, width: int, size: int) -> list[int]:
        """Channels from the innermost to the outermost resolution; 128 pixels have the innermost width once more."""
        if width % 16:
            raise PluginError(
                f"architecture {self.name!r} needs a {option!r} divisible by 16 for {size} pixels, not {width}"
            )
        return [width] * (size // 128) + [width // 2**index for index in range(5)]


class GeneratorBlock(nn.Module):
    """Norm, ReLU, doubling, convolution, norm, ReLU, convolution, beside a 1x1 convolution.

    `norm` makes a norm from its channels and the number of classes, or from whatever else its condition is measured in.
    """

    def __init__(
        self, width: int, out: int, classes: int, norm: Callable[[int, int], nn.Module] = ConditionalBatchNorm
    ) -> None:
        super().__init__()
        self.norm1 = norm(width, classes)
        self.conv1 = _initialised(DoubleConvolve(width, out), gain=2**0.5)
        self.norm2 = norm(out, classes)
        self.conv2 = _conv3(out, out)
        self.shortcut = _initialised(nn.Conv2d(width, out, 1))

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return a map of twice the size; the condition is the norms'."""
        hidden = self.conv1(F.relu(self.norm1(x, condition)))
        hidden = self.conv2(F.relu(self.norm2(hidden, condition)))
        return hidden + _double(self.shortcut(x))


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]; `widths` of 4x4 and of each block's output."""

    def __init__(self, latent: int, widths: list[int], channels: int, classes: int, attention: int = -1) -> None:
        super().__init__()
        self.classes = classes
        self.linear = _initialised(nn.Linear(latent, widths[0] * 16))
        self.blocks = nn.ModuleList()
        for index, (width, out) in enumerate(pairwise(widths)):
            self.blocks.append(GeneratorBlock(width, out, classes))
            if index == attention:
                self.blocks.append(SelfAttention(out))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = _initialised(nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        label = require_label(label, self.classes)
        x = self.linear(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x) if isinstance(block, SelfAttention) else block(x, label)
        return self.conv(F.relu(self.norm(x))).tanh()


class DiscriminatorBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution and perhaps average pooling, beside the identity or a 1x1 convolution.

    The first block of a network starts from pixels, so it has no first ReLU.
    """

    def __init__(self, width: int, hidden: int, out: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve = halve
        self.first = first
        self.conv1 = _conv3(width, hidden)
        self.conv2 = _initialised(ConvolveHalve(hidden, out), gain=2**0.5) if halve else _conv3(hidden, out)
        self.shortcut = _initialised(nn.Conv2d(width, out, 1)) if halve or width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same or half the size."""
        hidden = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.halve:
            return hidden + self.shortcut(x)
        return hidden + self.shortcut(F.avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N] and pooled features [N, widths[-1]].

    In a wide network the first convolution of a block has the block's output channels, otherwise its input channels.
    """

    def __init__(
        self,
        widths: list[int],
        halvings: int,
        channels: int,
        classes: int,
        *,
        pool: Literal["sum", "mean"] = "sum",
        wide: bool = False,
        attention: int = -1,
        label: Label = "projection",
    ) -> None:
        super().__init__()
        self.classes = classes
        self.pool = pool
        self.label: Label = label
        self.feature_width = widths[-1]
        self.blocks = nn.Sequential()
        for index, (width, out) in enumerate(pairwise([channels, *widths])):
            hidden = out if wide or index == 0 else width
            self.blocks.append(DiscriminatorBlock(width, hidden, out, halve=index < halvings, first=index == 0))
            if index == attention:
                self.blocks.append(SelfAttention(out))
        self.linear = _initialised(nn.Linear(widths[-1], 1))
        projected = classes if label == "projection" else 0
        self.projection = _initialised(nn.Embedding(projected, widths[-1])) if projected else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        label = require_label(label, self.classes) if self.label == "projection" else None
        x = F.relu(self.blocks(x))
        features = x.sum((2, 3)) if self.pool == "sum" else x.mean((2, 3))
        logits = self.linear(features).squeeze(1)
        if self.projection is not None and label is not None:
            logits = logits + (self.projection(label) * features).sum(1)
        return DiscriminatorOutput(logits, features)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _conv3(width: int, out: int) -> nn.Module:
    return _initialised(nn.Conv2d(width, out, 3, padding=1), gain=2**0.5)


def _initialised(layer: nn.Conv2d | nn.Linear | nn.Embedding, gain: float = 1.0) -> nn.Module:
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
