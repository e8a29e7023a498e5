"""BigGAN-deep: bottleneck blocks, two at each resolution, and all of z and the label in every norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.attention import SelfAttention, attention_after
from ganzoo.layers.conditional import ClassTable, LabelledLogit, ModulatedBatchNorm, require_label
from ganzoo.layers.images import image_format
from ganzoo.layers.resampling import DoubleConvolve

from .biggan import DOWN, HALVINGS, UP, Initialisation, down_sizes, initialised, up_sizes
from .resnet import Label

BOTTLENECK = 4  # a block's inner convolutions have a quarter of its channels


class BigGANDeep(Architecture):
    """BigGAN's deeper and leaner successor (Brock et al. 2019, arXiv:1809.11096, appendix B).

    `generator_width` and `discriminator_width` are the channel multiplier ch, 128 in the paper, with the pyramids of
    `biggan`; at each resolution there are `depth` blocks: 1x1, two 3x3 at a quarter of the channels, 1x1. G: the label's
    `embedding` and z, not split, make the 4x4 map and modulate all batch norms; a shortcut that must lose channels drops
    the last ones. D: a 3x3 convolution, then blocks whose shortcuts gain channels by a 1x1 convolution; the sum over the
    last map is projected on the label, or with `discriminator_label = "none"` the label is left to a regularizer. The other
    options are those of `biggan`, and the paper norms the weights of both networks: regularizer `spectral-norm` with
    `of = "both"`.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "G's batch norm takes its statistics over each piece of a batch"
    }

    def __init__(
        self,
        *,
        generator_width: int = 16,
        discriminator_width: int = 16,
        depth: int = 2,
        embedding: int = 128,
        generator_attention: int = 0,
        discriminator_attention: int = 0,
        discriminator_label: Label = "projection",
        initialisation: Initialisation = "orthogonal",
    ) -> None:
        self.generator_width = generator_width
        self.discriminator_width = discriminator_width
        self.depth = depth
        self.embedding = embedding
        self.generator_attention = generator_attention
        self.discriminator_attention = discriminator_attention
        self.discriminator_label: Label = discriminator_label
        self.initialisation: Initialisation = initialisation
        for option, least in (("generator_width", 2), ("discriminator_width", 2), ("depth", 1), ("embedding", 1)):
            if getattr(self, option) < least:
                raise PluginError(
                    f"architecture 'biggan-deep' needs {option!r} of at least {least}, not {getattr(self, option)}"
                )

    def generator(self, spec: Spec) -> nn.Module:
        """Return the bottleneck generator."""
        channels, size = image_format(spec, "biggan-deep")
        widths = [self.generator_width * factor for factor in UP[size]]
        attention = attention_after(self.generator_attention, up_sizes(size), "generator")
        net = Generator(spec.latent, widths, self.depth, channels, spec.classes, self.embedding, attention)
        return initialised(net, self.initialisation)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the bottleneck discriminator."""
        channels, size = image_format(spec, "biggan-deep")
        widths = [self.discriminator_width * factor for factor in DOWN[size]]
        sizes = down_sizes(size, len(widths) - 1)
        attention = attention_after(self.discriminator_attention, sizes, "discriminator")
        label = LabelledLogit(widths[-1], spec.classes, self.discriminator_label)
        net = Discriminator(channels, widths, HALVINGS[size], self.depth, label, attention)
        return initialised(net, self.initialisation)


class GeneratorBlock(nn.Module):
    """Four times norm, ReLU and convolution, through a bottleneck, beside the identity; perhaps twice the size."""

    def __init__(self, width: int, out: int, condition: int, *, double: bool) -> None:
        super().__init__()
        self.out = out
        self.double = double
        hidden = width // BOTTLENECK
        self.norms = nn.ModuleList(ModulatedBatchNorm(channels, condition) for channels in (width, hidden, hidden, hidden))
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(width, hidden, 1),
                DoubleConvolve(hidden, hidden) if double else nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.Conv2d(hidden, out, 1),
            ]
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return a map of the same or twice the size."""
        hidden = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            hidden = convolution(F.relu(norm(hidden, condition)))
        x = x[:, : self.out]
        return hidden + (F.interpolate(x, scale_factor=2.0, mode="nearest") if self.double else x)


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]; `widths` of 4x4 and of each resolution."""

    def __init__(
        self,
        latent: int,
        widths: Sequence[int],
        depth: int,
        channels: int,
        classes: int,
        embedding: int,
        attention: int,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = ClassTable(classes, embedding) if classes else None
        condition = latent + (embedding if classes else 0)
        self.linear = nn.Linear(condition, widths[0] * 16)
        self.blocks = nn.ModuleList()
        for index, (width, out) in enumerate(pairwise(widths)):
            self.blocks.extend(GeneratorBlock(width, width, condition, double=False) for _ in range(depth - 1))
            self.blocks.append(GeneratorBlock(width, out, condition, double=True))
            if index == attention:
                self.blocks.append(SelfAttention(out))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        label = require_label(label, self.classes)
        if self.embedding is not None:
            z = torch.cat([self.embedding(label).to(z.dtype), z], 1)
        x = self.linear(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x) if isinstance(block, SelfAttention) else block(x, z)
        return self.conv(F.relu(self.norm(x))).tanh()


class DiscriminatorBlock(nn.Module):
    """Four times ReLU and convolution, through a bottleneck, beside the identity and what it lacks in channels."""

    def __init__(self, width: int, out: int, *, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        hidden = out // BOTTLENECK
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(width, hidden, 1),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.Conv2d(hidden, hidden, 3, padding=1),
            ]
        )
        self.last = nn.Conv2d(hidden, out, 1)
        self.shortcut = nn.Conv2d(width, out - width, 1) if width != out else None

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same or half the size."""
        hidden = x
        for convolution in self.convolutions:
            hidden = convolution(F.relu(hidden))
        hidden = F.relu(hidden)
        if self.halve:
            hidden, x = F.avg_pool2d(hidden, 2), F.avg_pool2d(x, 2)
        kept = x if self.shortcut is None else torch.cat([x, self.shortcut(x)], 1)
        return self.last(hidden) + kept


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N] and summed features [N, widths[-1]]."""

    def __init__(
        self, channels: int, widths: Sequence[int], halvings: int, depth: int, label: LabelledLogit, attention: int
    ) -> None:
        super().__init__()
        self.feature_width = widths[-1]
        self.blocks = nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1))
        for index, (width, out) in enumerate(pairwise(widths)):
            self.blocks.append(DiscriminatorBlock(width, out, halve=index < halvings))
            self.blocks.extend(DiscriminatorBlock(out, out, halve=False) for _ in range(depth - 1))
            if index == attention:
                self.blocks.append(SelfAttention(out))
        self.linear = nn.Linear(widths[-1], label.outputs)
        self.label = label

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        features = F.relu(self.blocks(x)).sum((2, 3))
        return DiscriminatorOutput(self.label(self.linear(features), features, label), features)
