"""DCGAN: strided convolutions down, strided transposed convolutions up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.attention import SelfAttention, attention_after
from ganzoo.layers.conditional import GeneratorLabelUse, LabelledLatent, LabelledLogit, LabelledMap, LabelUse
from ganzoo.layers.first_layers import ClassBatchNorm, ClassLinear, FirstLayers
from ganzoo.layers.images import image_format
from ganzoo.layers.projections import FromPixel, ToPixel

Norm = Literal["batch", "layer", "none"]


class DCGAN(Architecture):
    """The convolutional networks that most small GANs are built on (Radford et al. 2016, arXiv:1511.06434).

    `width` is the channels at the highest hidden resolution; they double inwards, so 32 pixels have 64-128-256.
    G: z to 4x4, then transposed convolutions of stride 2, norm and ReLU, tanh at the end.
    D: convolutions of stride 2, LeakyReLU(0.2), norm from the second on, a 4x4 convolution to one logit; `layer` norms each
    sample on its own (group norm of one group), as gradient penalties need it.
    With classes, G sees an embedding of the label beside z, or each class has its own first layer and norm there:
    `generator_label = "first-layer"` (arXiv:1708.02556). `discriminator_label` is how D sees the label: "concatenation" is
    one more input channel (arXiv:1411.1784), "projection" adds features times an embedding (arXiv:1802.05637), "heads" has
    a logit for each class, of which the label's counts, and "none" leaves it to a regularizer. `outputs` above 1 makes D
    give a vector of so many numbers a sample, which losses such as `cramer` and `mmd` compare. `generator_attention` and
    `discriminator_attention` put self-attention (arXiv:1805.08318) after the layer of that many pixels; 0 is none.
    Weights start from N(0, 0.02), norm scales from N(1, 0.02). A convolution has a bias where no norm follows; D's last has
    none. Deviation: kernels of 4, as in the later ports, where the paper has 5.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "batch norm takes its statistics over each piece of a batch",
        "samples-are-judged-alone": "D's batch norm mixes samples; for gradient penalties set discriminator_norm = layer",
    }

    def __init__(
        self,
        *,
        width: int = 64,
        kernel: int = 4,
        generator_norm: Literal["batch", "none"] = "batch",
        discriminator_norm: Literal["batch", "layer", "none"] = "batch",
        generator_label: GeneratorLabelUse = "concatenation",
        discriminator_label: LabelUse = "concatenation",
        generator_attention: int = 0,
        discriminator_attention: int = 0,
        outputs: int = 1,
        embedding: int = 50,
    ) -> None:
        self.width = width
        self.kernel = kernel
        self.generator_norm: Norm = generator_norm
        self.discriminator_norm: Norm = discriminator_norm
        self.generator_label: GeneratorLabelUse = generator_label
        self.discriminator_label: LabelUse = discriminator_label
        self.generator_attention = generator_attention
        self.discriminator_attention = discriminator_attention
        self.outputs = outputs
        self.embedding = embedding
        limits = (("width", width, 1), ("kernel", kernel, 2), ("outputs", outputs, 1), ("embedding", embedding, 1))
        for option, value, least in limits:
            if value < least:
                raise PluginError(f"architecture 'dcgan' needs a {option!r} of at least {least}, not {value}")
        if outputs > 1 and discriminator_label in ("projection", "heads"):
            raise PluginError(
                f"architecture 'dcgan' has one logit to which discriminator_label = {discriminator_label!r} applies, and "
                f'not {outputs}; set outputs = 1, or the label to "concatenation" or "none"'
            )

    def generator(self, spec: Spec) -> nn.Module:
        """Return the transposed-convolutional generator."""
        channels, size = image_format(spec, "dcgan")
        widths = self._widths(size)[::-1]
        condition: LabelledLatent | FirstLayers
        if self.generator_label == "first-layer" and spec.classes:
            condition = FirstLayers(spec.latent, spec.classes, (widths[0], 4, 4), normed=self.generator_norm == "batch")
        else:
            condition = LabelledLatent(spec.latent, spec.classes, self.embedding)
        attention = attention_after(self.generator_attention, [4 << index for index in range(len(widths))], "generator")
        return Generator(condition, widths, channels, self.kernel, self.generator_norm, attention)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the convolutional discriminator."""
        channels, size = image_format(spec, "dcgan")
        condition = LabelledMap(channels, size, spec.classes if self.discriminator_label == "concatenation" else 0)
        widths = self._widths(size)
        label = LabelledLogit(widths[-1] * 16, spec.classes, self.discriminator_label)
        sizes = [size >> index for index in range(1, len(widths) + 1)]
        attention = attention_after(self.discriminator_attention, sizes, "discriminator")
        return Discriminator(condition, widths, self.kernel, self.discriminator_norm, label, attention, self.outputs)

    def classifier(self, spec: Spec) -> nn.Module:
        """Return D's network with a logit for each class, which is told no label."""
        channels, size = image_format(spec, "dcgan")
        widths = self._widths(size)
        label = LabelledLogit(widths[-1] * 16, 0, "none")
        condition = LabelledMap(channels, size, 0)
        return Classifier(Discriminator(condition, widths, self.kernel, self.discriminator_norm, label, -1, spec.classes))

    def _widths(self, size: int) -> list[int]:
        """Channels from the highest hidden resolution, size / 2, down to 4x4."""
        return [self.width * 2**index for index in range(size.bit_length() - 3)]


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]."""

    def __init__(
        self,
        condition: LabelledLatent | FirstLayers,
        widths: list[int],
        channels: int,
        kernel: int,
        norm: Norm,
        attention: int = -1,
    ) -> None:
        super().__init__()
        self.condition = condition
        bias = norm == "none"
        first: list[nn.Module] = []
        if isinstance(condition, LabelledLatent):
            first = [FromPixel(condition.width, widths[0], 4, bias=bias), *normed(norm, widths[0])]
        doubling = [[up(width, out, kernel, bias=bias), *normed(norm, out)] for width, out in pairwise(widths)]
        layers: list[nn.Module] = []
        for index, (block, width) in enumerate(zip([first, *doubling], widths, strict=True)):
            layers += [*block, nn.ReLU()]
            layers += [SelfAttention(width)] if index == attention else []
        self.layers = nn.Sequential(*layers, up(widths[-1], channels, kernel, bias=True), nn.Tanh())
        self.apply(initialise)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        start = self.condition(z, label)
        return self.layers(start if start.dim() == 4 else start[:, :, None, None])


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N], or [N, outputs], and the flat 4x4 feature map."""

    def __init__(
        self,
        condition: LabelledMap,
        widths: list[int],
        kernel: int,
        norm: Norm,
        label: LabelledLogit,
        attention: int = -1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.feature_width = widths[-1] * 16
        self.condition = condition
        layers: list[nn.Module] = []
        for index, (width, out) in enumerate(pairwise([condition.channels, *widths])):
            norms = normed(norm, out) if index else []
            layers += [down(width, out, kernel, bias=not norms), *norms, nn.LeakyReLU(0.2)]
            layers += [SelfAttention(out)] if index == attention else []
        self.layers = nn.Sequential(*layers)
        self.logit = ToPixel(widths[-1], outputs * label.outputs, 4, bias=False)
        self.labelled = label
        self.apply(initialise)

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        maps = self.layers(self.condition(x, label if self.condition.classes else None))
        features = maps.flatten(1)
        return DiscriminatorOutput(self.labelled(self.logit(maps).flatten(1), features, label), features)


class Classifier(nn.Module):
    """Images [N, channels, size, size] to the logits of classes [N, classes]."""

    def __init__(self, net: Discriminator) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.net(x).logits


def up(width: int, out: int, kernel: int, *, bias: bool) -> nn.Module:
    """Return a transposed convolution that doubles the size exactly, for odd and even kernels."""
    return nn.ConvTranspose2d(width, out, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2, bias=bias)


def down(width: int, out: int, kernel: int, *, bias: bool) -> nn.Module:
    """Return a convolution that halves the size exactly."""
    return nn.Conv2d(width, out, kernel, 2, (kernel - 1) // 2, bias=bias)


def normed(norm: Norm, channels: int) -> list[nn.Module]:
    """Return the norm as a list of no or one layer."""
    return {"batch": [nn.BatchNorm2d(channels)], "layer": [nn.GroupNorm(1, channels)], "none": []}[norm]


def initialise(layer: nn.Module) -> None:
    """Draw the weights as the paper does; biases start at zero."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | ClassLinear):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | ClassBatchNorm):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
