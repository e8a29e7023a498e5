"""Ways of telling a network the label; where there are no classes, each is the unconditional layer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ganzoo.api import PluginError

__all__ = [
    "ClassTable",
    "ConditionalBatchNorm",
    "GeneratorLabelUse",
    "LabelUse",
    "LabelledLatent",
    "LabelledLogit",
    "LabelledMap",
    "ModulatedBatchNorm",
    "is_told",
    "require_label",
]

LabelUse = Literal["concatenation", "projection", "heads", "none"]  # how a discriminator is told the label
GeneratorLabelUse = Literal["concatenation", "first-layer"]  # and a generator: beside z, or by a first layer of its own


def require_label(label: Tensor | None, classes: int) -> Tensor | None:
    """Return the labels unchanged; PluginError where a conditional network gets none or an unconditional one gets some."""
    if (label is None) == (classes > 0):
        given = "no labels" if label is None else "labels"
        remedy = "pass label=..." if label is None else "build it from a spec with classes, or pass none"
        raise PluginError(f"a network built for {classes} classes was given {given}; {remedy}")
    return label


class LabelledLatent(nn.Module):
    """Latents z [N, latent] and an embedding of the label, [N, width] (Mirza & Osindero 2014, arXiv:1411.1784)."""

    def __init__(self, latent: int, classes: int, embedding: int) -> None:
        super().__init__()
        self.classes = classes
        self.width = latent + (embedding if classes else 0)
        self.embedding = nn.Embedding(classes, embedding) if classes else None

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Append the embedding, if there are classes."""
        label = require_label(label, self.classes)
        if self.embedding is None or label is None:
            return z
        return torch.cat([z, self.embedding(label).to(z.dtype)], 1)


class LabelledMap(nn.Module):
    """Images [N, channels, size, size] with one more channel that is looked up by label (arXiv:1411.1784)."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.size = size
        self.channels = channels + (1 if classes else 0)
        self.embedding = nn.Embedding(classes, size * size) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Append the channel, if there are classes."""
        label = require_label(label, self.classes)
        if self.embedding is None or label is None:
            return x
        return torch.cat([x, self.embedding(label).to(x.dtype).view(-1, 1, self.size, self.size)], 1)


class LabelledLogit(nn.Module):
    """The end of a discriminator: raw logits [N, outputs] and features [N, width] become the label's logit [N].

    "projection" adds the product of the features with an embedding of the label (Miyato & Koyama 2018, arXiv:1802.05637),
    "heads" picks the label's own of `outputs` = classes logits, so that the classes share all but the last layer,
    "concatenation" leaves the logit as it is, because the input holds the label, and "none" leaves the label unused.
    """

    def __init__(self, width: int, classes: int, use: LabelUse) -> None:
        super().__init__()
        self.classes = classes
        self.use = use
        self.outputs = classes if use == "heads" and classes else 1
        self.embedding = nn.Embedding(classes, width) if use == "projection" and classes else None
        if self.embedding is not None:
            nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, logits: Tensor, features: Tensor, label: Tensor | None = None) -> Tensor:
        """Return one logit a sample."""
        label = None if self.use == "none" else require_label(label, self.classes)
        if label is not None and self.outputs > 1:
            logits = logits.gather(1, label[:, None])
        logits = logits.squeeze(1)
        if self.embedding is None or label is None:
            return logits
        projected: Tensor = (self.embedding(label).to(features.dtype) * features).sum(1)
        return logits + projected


def is_told(net: nn.Module) -> bool:
    """Return whether a layer of this module tells a discriminator the label."""
    found = [part for part in net.modules() if isinstance(part, LabelledLatent | LabelledMap | LabelledLogit)]
    return any(part.embedding is not None or (isinstance(part, LabelledLogit) and part.outputs > 1) for part in found)


class ClassTable(nn.Embedding):
    """An embedding whose numbers mean what they are, such as scales and shifts of a norm.

    Spectral norm leaves it alone, as BigGAN found it must in G.
    """


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are looked up by label (Dumoulin et al. 2017, arXiv:1610.07629).

    One embedding holds both; without classes it is plain affine batch norm.
    """

    def __init__(self, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes)
        self.embedding = ClassTable(classes, 2 * channels) if classes else None
        if self.embedding is not None:
            nn.init.ones_(self.embedding.weight[:, :channels])
            nn.init.zeros_(self.embedding.weight[:, channels:])

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Normalise [N, channels, H, W] over the batch, then scale and shift each sample by its label."""
        normal: Tensor = self.norm(x)
        if self.embedding is None or label is None:
            return normal
        scale, shift = self.embedding(label)[:, :, None, None].chunk(2, 1)
        scaled: Tensor = normal * scale.to(normal.dtype) + shift.to(normal.dtype)
        return scaled


class ModulatedBatchNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a vector [N, width] (BigGAN, Brock et al. 2019, arXiv:1809.11096).

    norm(x) * (1 + gain(vector)) + bias(vector), without biases of their own; of width 0 it is plain affine batch norm.
    """

    def __init__(self, channels: int, width: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not width)
        self.gain = nn.Linear(width, channels, bias=False) if width else None
        self.bias = nn.Linear(width, channels, bias=False) if width else None

    def forward(self, x: Tensor, vector: Tensor | None = None) -> Tensor:
        """Normalise [N, channels, H, W] over the batch, then scale and shift each sample by its vector."""
        normal: Tensor = self.norm(x)
        if self.gain is None or self.bias is None:
            return normal
        scale, shift = (layer(vector)[:, :, None, None].to(normal.dtype) for layer in (self.gain, self.bias))
        scaled: Tensor = normal * (1 + scale) + shift
        return scaled
