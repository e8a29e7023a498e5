"""The fully connected networks of the first tutorials, for images, vectors and anything else of a fixed shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import GeneratorLabelUse, LabelledLatent, LabelledLogit, LabelledMap, LabelUse
from ganzoo.layers.first_layers import FirstLayers
from ganzoo.layers.images import image_format

CHANNELS = (32, 64, 128)  # convolutional discriminator

Activation = Literal["leaky-relu", "relu"]


class MLP(Architecture):
    """The smallest networks that make recognisable digits and garments (Goodfellow et al. 2014, arXiv:1406.2661).

    G: linear layers latent-256-512-1024-pixels, batch norm and LeakyReLU(0.2) after each hidden one, tanh at the end;
    `generator_norm = "inner"` leaves the first hidden layer without norm. `output = "linear"` drops the tanh, for data that
    are no images: what G makes then has no bounds.
    D, "convolutional": 5x5 convolutions of stride 2 with 32-64-128 channels, LeakyReLU(0.2), batch norm from the second on,
    a linear logit. D, "linear": linear layers of `discriminator_hidden` widths on the flat sample, with norm and dropout
    from the second on; then samples may have any shape, vectors (F,) included.
    With classes, G sees an embedding of the label beside z, or each class has its own first layer and norm there:
    `generator_label = "first-layer"` (arXiv:1708.02556). `discriminator_label` is how D sees the label: "concatenation" is
    one more input channel, or an embedding beside the flat sample (arXiv:1411.1784), "projection" adds features times an
    embedding (arXiv:1802.05637), "heads" has a logit for each class, of which the label's counts, and "none" leaves it to a
    regularizer. Deviation: the paper's maxout and sigmoid layers are the rectifiers of later tutorials.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "batch norm takes its statistics over each piece of a batch",
        "samples-are-judged-alone": "D's batch norm mixes samples; for gradient penalties set discriminator_norm = none",
    }

    def __init__(
        self,
        *,
        generator_hidden: tuple[int, ...] = (256, 512, 1024),
        generator_norm: Literal["batch", "inner", "none"] = "batch",
        output: Literal["tanh", "linear"] = "tanh",
        discriminator_layers: Literal["convolutional", "linear"] = "convolutional",
        discriminator_hidden: tuple[int, ...] = (512, 256),
        discriminator_norm: Literal["batch", "none"] = "batch",
        discriminator_dropout: float = 0.0,
        generator_label: GeneratorLabelUse = "concatenation",
        discriminator_label: LabelUse = "concatenation",
        activation: Activation = "leaky-relu",
        embedding: int = 50,
    ) -> None:
        self.generator_hidden = tuple(generator_hidden)
        self.generator_norm = generator_norm
        self.output = output
        self.discriminator_layers = discriminator_layers
        self.discriminator_hidden = tuple(discriminator_hidden)
        self.discriminator_norm = discriminator_norm
        self.discriminator_dropout = discriminator_dropout
        self.generator_label: GeneratorLabelUse = generator_label
        self.discriminator_label: LabelUse = discriminator_label
        self.activation: Activation = activation
        self.embedding = embedding
        if embedding < 1:
            raise PluginError(f"architecture 'mlp' needs an embedding of at least 1 number per label, not {embedding}")
        for option in ("generator_hidden", "discriminator_hidden"):
            widths = getattr(self, option)
            if not widths or min(widths) < 1:
                raise PluginError(f"architecture 'mlp' needs one or more widths of at least 1 in {option!r}, not {widths}")
        if not 0 <= discriminator_dropout < 1:
            raise PluginError(f"architecture 'mlp' needs a 'discriminator_dropout' in [0, 1), not {discriminator_dropout}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the fully connected generator."""
        if self.discriminator_layers == "convolutional":
            image_format(spec, "mlp")  # nothing but linear layers takes any shape
        elif not spec.shape or spec.latent < 1:
            raise PluginError(
                f"architecture 'mlp' cannot make samples of shape {tuple(spec.shape)} from {spec.latent} latents; "
                "give both at least one number (data, latent.size)"
            )
        condition: LabelledLatent | FirstLayers
        if self.generator_label == "first-layer" and spec.classes:
            first, *rest = self.generator_hidden
            condition = FirstLayers(spec.latent, spec.classes, (first,), normed=self.generator_norm == "batch")
            norm: Literal["batch", "none"] = "none" if self.generator_norm == "none" else "batch"
            layers = [activated(self.activation), *stack(first, tuple(rest), self.activation, norm)]
        else:
            condition = LabelledLatent(spec.latent, spec.classes, self.embedding)
            layers = stack(condition.width, self.generator_hidden, self.activation, self.generator_norm)
        layers.append(nn.Linear(self.generator_hidden[-1], math.prod(spec.shape)))
        if self.output == "tanh":
            layers.append(nn.Tanh())
        return Generator(condition, layers, spec.shape)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the convolutional or the fully connected discriminator."""
        beside = spec.classes if self.discriminator_label == "concatenation" else 0
        condition: LabelledMap | LabelledLatent
        if self.discriminator_layers == "convolutional":
            channels, size = image_format(spec, "mlp")
            condition = LabelledMap(channels, size, beside)
            layers = convolutions(condition.channels, self.activation, normed=self.discriminator_norm == "batch")
            width = CHANNELS[-1] * (size // 2 ** len(CHANNELS)) ** 2
        else:
            condition = LabelledLatent(math.prod(spec.shape), beside, self.embedding)
            norm: Literal["inner", "none"] = "inner" if self.discriminator_norm == "batch" else "none"
            dropout = self.discriminator_dropout
            layers = stack(condition.width, self.discriminator_hidden, self.activation, norm, dropout)
            width = self.discriminator_hidden[-1]
        return Discriminator(condition, layers, LabelledLogit(width, spec.classes, self.discriminator_label), width)

    def classifier(self, spec: Spec) -> nn.Module:
        """Return a fully connected network from samples to the logits of the classes, of D's hidden widths."""
        hidden = self.discriminator_hidden
        layers = stack(math.prod(spec.shape), hidden, self.activation, "none")
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(hidden[-1], spec.classes))


class Generator(nn.Module):
    """Latents [N, latent] to samples [N, *shape]."""

    def __init__(self, condition: LabelledLatent | FirstLayers, layers: list[nn.Module], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.condition = condition
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the samples."""
        return self.layers(self.condition(z, label)).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Samples [N, *shape] to logits [N] and the flat output of the last hidden layer."""

    def __init__(
        self, condition: LabelledMap | LabelledLatent, layers: list[nn.Module], label: LabelledLogit, width: int
    ) -> None:
        super().__init__()
        self.feature_width = width
        self.condition = condition
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.logit = nn.Linear(width, label.outputs)
        self.labelled = label

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        x = x.flatten(1) if isinstance(self.condition, LabelledLatent) else x
        features = self.layers(self.condition(x, label if self.condition.classes else None))
        return DiscriminatorOutput(self.labelled(self.logit(features), features, label), features)


def stack(
    width: int,
    hidden: tuple[int, ...],
    activation: Activation,
    norm: Literal["batch", "inner", "none"],
    dropout: float = 0.0,
) -> list[nn.Module]:
    """Return the hidden linear layers; "inner" norm and dropout start at the second one."""
    layers: list[nn.Module] = []
    for index, out in enumerate(hidden):
        layers.append(nn.Linear(width, out))
        if norm == "batch" or (norm == "inner" and index > 0):
            layers.append(nn.BatchNorm1d(out))
        if dropout and index > 0:
            layers.append(nn.Dropout(dropout))
        layers.append(activated(activation))
        width = out
    return layers


def convolutions(width: int, activation: Activation, *, normed: bool) -> list[nn.Module]:
    """Return convolutions that halve the size, the norm from the second one on."""
    layers: list[nn.Module] = []
    for index, out in enumerate(CHANNELS):
        layers.append(nn.Conv2d(width, out, 5, stride=2, padding=2))
        if normed and index > 0:
            layers.append(nn.BatchNorm2d(out))
        layers.append(activated(activation))
        width = out
    return layers


def activated(name: Activation) -> nn.Module:
    """Return an activation by name."""
    return nn.LeakyReLU(0.2) if name == "leaky-relu" else nn.ReLU()
