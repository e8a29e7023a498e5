"""A learned space of styles, and a generator that styles modulate layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import require_label
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear
from ganzoo.layers.fir import FIR, FilteredHalve
from ganzoo.layers.images import image_format
from ganzoo.layers.minibatch import MinibatchStddev
from ganzoo.layers.modulation import ModulatedConv2d, unscaled
from ganzoo.layers.pixel_norm import unit_size
from ganzoo.layers.scales import widths

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)  # pixels
LIMITS = (
    *((option, 1, math.inf) for option in ("channel_base", "channel_max", "style", "mapping_layers")),
    ("discriminator_mapping_layers", 1, math.inf),
    ("group", 0, math.inf),
    ("mean_decay", 0, 1),
    ("mixing", 0, 1),
)
SLOW = 0.01  # learning rate of the mappings beside that of the rest


class StyleGAN2(Architecture):
    """Networks of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), with the sizes of StyleGAN2-ADA (arXiv:2006.06676).

    A size s from 4 pixels on has min(channel_base / s, channel_max) channels. G: z, scaled to unit size, becomes a style w
    of `style` numbers through `mapping_layers` linear layers at 0.01 of the learning rate; from a learned 4x4 map on, each
    size has two 3x3 convolutions whose weights w modulates and demodulates, with noise of learned strength, and adds its
    colours to the filtered image of the size before. `mixing` is the share of images in training whose later layers follow
    a second z. D has two 3x3 convolutions a size, with filtered halving and, in `residual` blocks, a 1x1 convolution around
    them; it appends the standard deviation in groups of `group` samples (0: it does not) to its 4x4 map. LeakyReLU(0.2)
    times sqrt(2) everywhere; equalised learning rates. With classes, an embedding of the label goes into the mapping beside
    z, and D has a projection on one that went through a mapping of its own (or none: `discriminator_label`).
    In training G's noise is drawn anew each time and the mean style is followed; in eval mode the noise is constant and
    `truncate` draws styles towards the mean. The paper has channel_base 16384 or 32768, channel_max and style 512.
    Modulation scales the maps before and after a shared convolution, which is the same function.
    Deviations: each image has a mixing point of its own; the mean style in the average of G is averaged like its weights.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "samples-fit-the-spec": "G ends linearly, as published: colours may leave [-1, 1], and pictures are clipped",
        "samples-are-judged-alone": "D's minibatch standard deviation mixes samples, as published; group = 0 leaves it out",
        "accumulation-equals-the-batch": "each piece of a batch draws its own noise and has other groups for its deviation",
    }

    def __init__(
        self,
        *,
        channel_base: int = 2048,
        channel_max: int = 64,
        style: int = 128,
        mapping_layers: int = 8,
        mean_decay: float = 0.995,
        mixing: float = 0.9,
        discriminator_blocks: Literal["residual", "plain"] = "residual",
        group: int = 4,
        discriminator_label: Literal["projection", "none"] = "projection",
        discriminator_mapping_layers: int = 8,
    ) -> None:
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.style = style
        self.mapping_layers = mapping_layers
        self.mean_decay = mean_decay
        self.mixing = mixing
        self.discriminator_blocks = discriminator_blocks
        self.group = group
        self.discriminator_label = discriminator_label
        self.discriminator_mapping_layers = discriminator_mapping_layers
        for option, least, most in LIMITS:
            given = getattr(self, option)
            if not least <= given <= most:
                limits = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
                raise PluginError(f"architecture 'stylegan2' needs a {option!r} {limits}, not {given}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the style-based generator."""
        channels, size = image_format(spec, "stylegan2", SIZES)
        styles = StyleMapping(spec.latent, spec.classes, self.style, self.mapping_layers)
        width = widths(size, self.channel_base, self.channel_max)
        return Generator(styles, self.style, width, channels, self.mean_decay, self.mixing, spec.prior)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the discriminator."""
        channels, size = image_format(spec, "stylegan2", SIZES)
        width = widths(size, self.channel_base, self.channel_max)
        told = spec.classes and self.discriminator_label == "projection"
        mapping = StyleMapping(0, spec.classes, width[0], self.discriminator_mapping_layers) if told else None
        return Discriminator(channels, width, self.group, mapping, residual=self.discriminator_blocks == "residual")


class ScaledLeakyReLU(nn.Module):
    """LeakyReLU(0.2) times sqrt(2), which keeps the size of what comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified map."""
        return F.leaky_relu(x, 0.2) * 2**0.5


class StyleMapping(nn.Module):
    """Latents [N, latent] (0: none), with an embedding of the label where there are classes, to styles [N, style]."""

    def __init__(self, latent: int, classes: int, style: int, layers: int) -> None:
        super().__init__()
        self.latent = latent
        self.classes = classes
        self.embedding = EqualizedLinear(classes, style) if classes else None
        start = latent + (style if classes else 0)
        steps = pairwise([start, *[style] * layers])
        pairs = ((EqualizedLinear(width, out, multiplier=SLOW), ScaledLeakyReLU()) for width, out in steps)
        self.layers = nn.Sequential(*(layer for pair in pairs for layer in pair))

    def forward(self, z: Tensor | None, label: Tensor | None = None) -> Tensor:
        """Return the styles in float32."""
        label = require_label(label, self.classes)
        parts = [] if z is None else [unit_size(z.float())]
        if self.embedding is not None and label is not None:
            parts.append(unit_size(self.embedding(F.one_hot(label, self.classes).float())))
        styles: Tensor = self.layers(torch.cat(parts, 1))
        return styles


class StyledConvolution(nn.Module):
    """A modulated convolution, perhaps of twice the size, with noise, bias and rectifier."""

    noise: Tensor

    def __init__(self, width: int, out: int, style: int, size: int, *, double: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(width, out, 3, style, double=double)
        self.bias = nn.Parameter(torch.zeros(out, 1, 1))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(size, size))  # of samples

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the map for styles w [N, style]."""
        x = self.conv(x, w)
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device) if self.training else self.noise
        x = x + (noise * self.strength + self.bias).to(x.dtype)
        return F.leaky_relu(x, 0.2) * 2**0.5


class SynthesisBlock(nn.Module):
    """One size: convolutions that take the styles w [N, layers, style] in turn, and colours added to the smaller image."""

    def __init__(self, width: int, out: int, channels: int, style: int, size: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([StyledConvolution(width, out, style, size, double=True)] if width else [])
        self.convolutions.append(StyledConvolution(out, out, style, size))
        self.colour = ModulatedConv2d(out, channels, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.fir = FIR()

    def forward(self, x: Tensor, image: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return map and image of this size."""
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x, w[:, index])
        colours = self.colour(x, w[:, len(self.convolutions)]).float() + self.bias
        if image is None:
            return x, colours
        with unscaled(image):
            return x, self.fir.doubled(image) + colours


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size]: `synthesis` of `mapping`."""

    mean: Tensor

    def __init__(
        self, styles: StyleMapping, style: int, widths: list[int], channels: int, decay: float, mixing: float, prior: str
    ) -> None:
        super().__init__()
        self.styles = styles
        self.decay, self.mixing, self.prior = decay, mixing, prior
        self.psi = 1.0
        self.constant = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.blocks = nn.ModuleList(
            SynthesisBlock(width, out, channels, style, 4 * 2**index)
            for index, (width, out) in enumerate(pairwise([0, *widths]))
        )
        self.count = (
            sum(len(block.convolutions) for block in self.blocks) + 1
        )  # styles of an image: the colours' is the last
        self.register_buffer("mean", torch.zeros(style))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        w = self.mapping(z, label)
        if self.training and self.mixing:
            w = self._mixed(w, z, label)
        return self.synthesis(w)

    def mapping(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the styles [N, count, style] of latents, each layer's the same."""
        with unscaled(z):
            w: Tensor = self.styles(z, label)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(w.mean(0), 1 - self.decay)
        elif self.psi != 1:
            w = torch.lerp(self.mean, w, self.psi)
        return w[:, None].expand(-1, self.count, -1)

    def synthesis(self, w: Tensor) -> Tensor:
        """Return the images of styles [N, count, style]."""
        x, image, start = self.constant.expand(len(w), -1, -1, -1), None, 0
        for block in self.blocks:
            x, image = block(x, image, w[:, start:])
            start += len(block.convolutions)
        return image

    def truncate(self, psi: float) -> None:
        """Draw styles towards the mean style in eval mode: 1 leaves them, 0 makes all of them the mean."""
        self.psi = psi

    def _mixed(self, w: Tensor, z: Tensor, label: Tensor | None) -> Tensor:
        """Return styles whose later layers, from a point drawn for each image on, belong to other latents."""
        other = torch.randn_like(z) if self.prior == "normal" else torch.rand_like(z) * 2 - 1
        point = torch.randint(1, self.count, (len(z), 1), device=z.device)
        mixes = torch.rand(len(z), 1, device=z.device) < self.mixing
        later = (torch.arange(self.count, device=z.device) >= point) & mixes
        return torch.where(later[:, :, None], self.mapping(other, label), w)


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second filtered and halved, perhaps beside a 1x1 convolution of the same."""

    def __init__(self, width: int, out: int, *, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            EqualizedConv2d(width, width, 3), ScaledLeakyReLU(), FilteredHalve(width, out, 3), ScaledLeakyReLU()
        )
        self.shortcut = FilteredHalve(width, out, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of half the size."""
        made: Tensor = self.body(x)
        return made if self.shortcut is None else (made + self.shortcut(x)) * 0.5**0.5


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N] and features [N, widths[0]]."""

    def __init__(
        self, channels: int, widths: list[int], group: int, mapping: StyleMapping | None, *, residual: bool
    ) -> None:
        super().__init__()
        self.feature_width = last = widths[0]
        self.blocks = nn.Sequential(
            EqualizedConv2d(channels, widths[-1], 1),
            ScaledLeakyReLU(),
            *(DiscriminatorBlock(width, out, residual=residual) for width, out in pairwise(widths[::-1])),
        )
        self.end = nn.Sequential(
            *([MinibatchStddev(group)] if group else []),
            EqualizedConv2d(last + (1 if group else 0), last, 3),
            ScaledLeakyReLU(),
            nn.Flatten(),
            EqualizedLinear(last * 16, last),
            ScaledLeakyReLU(),
        )
        self.logit = EqualizedLinear(last, last if mapping else 1)
        self.mapping = mapping

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        features = self.end(self.blocks(x))
        logits = self.logit(features)
        if self.mapping is not None:
            with unscaled(x):
                style = self.mapping(None, label)
            logits = (logits * style).sum(1, keepdim=True) / self.feature_width**0.5
        return DiscriminatorOutput(logits.squeeze(1), features)
