"""The plain convolutional networks of the spectral norm paper."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.attention import SelfAttention, attention_after
from ganzoo.layers.conditional import ConditionalBatchNorm, LabelledLogit, require_label
from ganzoo.layers.images import image_format

from .dcgan import down, up

Label = Literal["projection", "heads", "none"]


class SNDCGAN(Architecture):
    """The convolutional networks of SNGAN's table 3 (Miyato et al. 2018, arXiv:1802.05957).

    `width` is the channels at full resolution; they double at each of three halvings, so 64 means 64-128-256-512.
    G: z to an eighth of the size, batch norm and ReLU, three 4x4 transposed convolutions of stride 2, a 3x3 one to pixels,
    tanh. D: seven convolutions, 3x3 of stride 1 and 4x4 of stride 2 in turn, LeakyReLU(0.1), a linear logit; no norm, as
    spectral norm is a regularizer. Weights start from N(0, 0.02), biases at zero; layers before a norm have biases too.
    `generator_attention` and `discriminator_attention` put self-attention (arXiv:1805.08318) after the first layer whose
    maps have that many pixels; 0 is none.
    Deviation: the paper's have no classes. Here G then has conditional batch norms (arXiv:1610.07629), and
    `discriminator_label` is what D makes of the label: "projection" (arXiv:1802.05637), "heads", a logit for each class of
    which the label's counts, or "none", which leaves it to a regularizer.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "G's batch norm takes its statistics over each piece of a batch"
    }

    def __init__(
        self,
        *,
        width: int = 64,
        generator_attention: int = 0,
        discriminator_attention: int = 0,
        discriminator_label: Label = "projection",
    ) -> None:
        self.width = width
        self.generator_attention = generator_attention
        self.discriminator_attention = discriminator_attention
        self.discriminator_label: Label = discriminator_label
        if width < 1:
            raise PluginError(f"architecture 'sndcgan' needs a 'width' of at least 1, not {width}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the transposed-convolutional generator."""
        channels, size = image_format(spec, "sndcgan")
        sizes = [size // 8, size // 4, size // 2, size]
        attention = attention_after(self.generator_attention, sizes, "generator")
        return Generator(spec.latent, self._widths()[::-1], sizes[0], channels, spec.classes, attention)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the convolutional discriminator."""
        channels, size = image_format(spec, "sndcgan")
        sizes = [size, *(size >> halving for halving in (1, 1, 2, 2, 3, 3))]
        attention = attention_after(self.discriminator_attention, sizes, "discriminator")
        features = self.width * size * size // 8  # 8 width at an eighth of the size each way
        label = LabelledLogit(features, spec.classes, self.discriminator_label)
        return Discriminator(channels, self._widths(), label, features, attention)

    def _widths(self) -> list[int]:
        """Channels from full resolution to an eighth of it."""
        return [self.width * 2**index for index in range(4)]


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]; `widths` from an eighth of the size on."""

    def __init__(self, latent: int, widths: list[int], start: int, channels: int, classes: int, attention: int) -> None:
        super().__init__()
        self.classes = classes
        self.start = start
        self.linear = nn.Linear(latent, widths[0] * start * start)
        self.norms = nn.ModuleList(ConditionalBatchNorm(width, classes) for width in widths)
        self.layers = nn.ModuleList(up(width, out, 4, bias=True) for width, out in pairwise(widths))
        self.layers.append(nn.Conv2d(widths[-1], channels, 3, padding=1))
        self.attention = SelfAttention(widths[attention]) if attention >= 0 else None
        self.attention_after = attention
        self.apply(initialise)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        label = require_label(label, self.classes)
        x = self.linear(z).unflatten(1, (-1, self.start, self.start))
        for index, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            x = F.relu(norm(x, label))
            if self.attention is not None and index == self.attention_after:
                x = self.attention(x)
            x = layer(x)
        return x.tanh()


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N] and the flat last map [N, features]."""

    def __init__(self, channels: int, widths: list[int], label: LabelledLogit, features: int, attention: int) -> None:
        super().__init__()
        self.feature_width = features
        convolutions = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for width, out in pairwise(widths):
            convolutions += [down(width, out, 4, bias=True), nn.Conv2d(out, out, 3, padding=1)]
        self.layers = nn.Sequential()
        for index, convolution in enumerate(convolutions):
            self.layers.extend([convolution, nn.LeakyReLU(0.1)])
            if index == attention:
                self.layers.append(SelfAttention(convolution.out_channels))
        self.linear = nn.Linear(features, label.outputs)
        self.label = label
        self.apply(initialise)

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        features = self.layers(x).flatten(1)
        return DiscriminatorOutput(self.label(self.linear(features), features, label), features)


def initialise(layer: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and start biases at zero."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
