"""BigGAN: wide residual networks, a class embedding shared by all norms, and latents that enter at every resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, PluginError, Spec
from ganzoo.layers.attention import SelfAttention, attention_after
from ganzoo.layers.conditional import ClassTable, ModulatedBatchNorm, require_label
from ganzoo.layers.images import image_format

from .resnet import Discriminator, GeneratorBlock, Label

# times the width: channels of G's 4x4 map and of what each doubling makes, by size of the image
UP = {16: (4, 4, 4), 32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1)}
# times the width: channels of D's maps from the first on
DOWN = {16: (4, 4, 4, 4), 32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
HALVINGS = {16: 2, 32: 2, 64: 4, 128: 5}  # D's

Initialisation = Literal["orthogonal", "normal"]


class BigGAN(Architecture):
    """The residual networks of large-scale class-conditional training (Brock et al. 2019, arXiv:1809.11096).

    `generator_width` and `discriminator_width` are the channel multiplier ch, 96 in the paper: up to 32 pixels all blocks
    have 4 ch channels, as BigGAN-PyTorch's CIFAR networks; above, they form a pyramid from 16 ch inside to ch or 2 ch
    outside.
    G: with `hierarchical`, z is split into a piece for the 4x4 map, which takes what is left over, and one for each block
    (skip-z); without, all of z makes the map. All norms in blocks are batch norms modulated by the block's piece and, with
    classes, by the label's `embedding`, which they share. D: as `resnet`, but a block widens in its first convolution; with
    classes it has a projection of the label, or with `discriminator_label = "none"` leaves it to a regularizer.
    `generator_attention` and `discriminator_attention` put self-attention after the first block of that many pixels; 0 is
    none. Weights start orthogonal as published or "normal", from N(0, 0.02), biases at zero. The paper norms the weights of
    both networks: regularizer `spectral-norm` with `of = "both"`.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "G's batch norm takes its statistics over each piece of a batch"
    }

    def __init__(
        self,
        *,
        generator_width: int = 16,
        discriminator_width: int = 16,
        embedding: int = 128,
        hierarchical: bool = True,
        generator_attention: int = 0,
        discriminator_attention: int = 0,
        discriminator_label: Label = "projection",
        initialisation: Initialisation = "orthogonal",
    ) -> None:
        self.generator_width = generator_width
        self.discriminator_width = discriminator_width
        self.embedding = embedding
        self.hierarchical = hierarchical
        self.generator_attention = generator_attention
        self.discriminator_attention = discriminator_attention
        self.discriminator_label: Label = discriminator_label
        self.initialisation: Initialisation = initialisation
        for option in ("generator_width", "discriminator_width", "embedding"):
            if getattr(self, option) < 1:
                raise PluginError(f"architecture 'biggan' needs {option!r} of at least 1, not {getattr(self, option)}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the residual generator."""
        channels, size = image_format(spec, "biggan")
        widths = [self.generator_width * factor for factor in UP[size]]
        pieces = len(widths) if self.hierarchical else 1
        if spec.latent < pieces:
            raise PluginError(
                f"architecture 'biggan' cannot split {spec.latent} latents into {pieces} pieces; "
                "set latent.size to as many or more, or hierarchical = false"
            )
        piece = spec.latent // pieces if self.hierarchical else 0
        attention = attention_after(self.generator_attention, up_sizes(size), "generator")
        net = Generator(spec.latent, piece, widths, channels, spec.classes, self.embedding, attention)
        return initialised(net, self.initialisation)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the residual discriminator."""
        channels, size = image_format(spec, "biggan")
        widths = [self.discriminator_width * factor for factor in DOWN[size]]
        net = Discriminator(
            widths,
            HALVINGS[size],
            channels,
            spec.classes,
            wide=True,
            attention=attention_after(self.discriminator_attention, down_sizes(size, len(widths)), "discriminator"),
            label=self.discriminator_label,
        )
        return initialised(net, self.initialisation)


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]; each block gets `piece` of the latents."""

    def __init__(
        self,
        latent: int,
        piece: int,
        widths: Sequence[int],
        channels: int,
        classes: int,
        embedding: int,
        attention: int,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.pieces = [latent - piece * (len(widths) - 1), *[piece] * (len(widths) - 1)]
        self.embedding = ClassTable(classes, embedding) if classes else None
        condition = piece + (embedding if classes else 0)
        self.linear = nn.Linear(self.pieces[0], widths[0] * 16)
        self.blocks = nn.ModuleList(
            GeneratorBlock(width, out, condition, ModulatedBatchNorm) for width, out in pairwise(widths)
        )
        self.attention = SelfAttention(widths[attention + 1]) if attention >= 0 else None
        self.attention_after = attention
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        label = require_label(label, self.classes)
        shared = [] if self.embedding is None else [self.embedding(label).to(z.dtype)]
        first, *pieces = z.split(self.pieces, 1)
        x = self.linear(first).unflatten(1, (-1, 4, 4))
        for index, (block, piece) in enumerate(zip(self.blocks, pieces, strict=True)):
            x = block(x, torch.cat([*shared, piece], 1))
            if self.attention is not None and index == self.attention_after:
                x = self.attention(x)
        return self.conv(F.relu(self.norm(x))).tanh()


def up_sizes(size: int) -> list[int]:
    """Return the sizes in pixels of what each doubling from 4x4 up to an image makes."""
    return [8 * 2**index for index in range(size.bit_length() - 3)]


def down_sizes(size: int, count: int) -> list[int]:
    """Return the sizes in pixels of so many maps of D, the first already halved."""
    return [size >> min(index, HALVINGS[size]) for index in range(1, count + 1)]


def initialised(net: nn.Module, how: Initialisation) -> nn.Module:
    """Return the network with every weight of a convolution, linear layer or embedding drawn anew and biases at zero."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            if how == "orthogonal":
                nn.init.orthogonal_(layer.weight)
            else:
                nn.init.normal_(layer.weight, 0.0, 0.02)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net
