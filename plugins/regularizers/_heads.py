"""What regularizers with layers of their own on D's features share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import PluginError, Regularizer, Spec
from ganzoo.game import Duel
from ganzoo.layers.features import feature_width

from .spectral_norm import SpectralNorm


class Head(Regularizer):
    """Layers on D's features that D trains; both sides pay for what they say, the generator `generator` times as much.

    The layers belong to the regularizer, so the regularizer `spectral-norm` does not see them; the option `spectral_norm`
    norms them in the same way.
    """

    name: ClassVar[str]  # in errors
    side = "both"
    classes: int = 0

    def __init__(self, *, generator: float, spectral_norm: bool) -> None:
        super().__init__()
        if generator < 0:
            raise PluginError(f"regularizer {self.name!r} needs a 'generator' of at least 0, not {generator}")
        self.generator = generator
        self.spectral_norm = spectral_norm
        self.layers: nn.Module | None = None
        self.norm = SpectralNorm() if spectral_norm else None

    def shown(self, spec: Spec) -> Spec:
        """Note the number of classes; PluginError where there are none."""
        if not spec.classes:
            raise PluginError(f"regularizer {self.name!r} needs data with classes; set data.labels = true, or remove it")
        self.classes = spec.classes
        return spec

    def build(self, width: int) -> nn.Module:
        """Return the layers on features [N, width]."""
        raise NotImplementedError

    def prepare(self, net: nn.Module) -> None:
        """Build the layers on the discriminator, which comes first; nothing is done to generators."""
        if self.layers is None:
            self.layers = self.build(feature_width(net, f"regularizer {self.name!r}"))
            if self.norm is not None:
                self.norm.prepare(self.layers)

    def after_step(self, nets: Sequence[nn.Module]) -> None:
        """Let the norm follow the layers' weights."""
        if self.norm is not None and self.layers is not None:
            self.norm.after_step([self.layers])

    def met(self, duel: Duel, side: Literal["real", "fake"]) -> tuple[Tensor, Tensor]:
        """Return D's features [N, F] of the real or the fake samples, and these samples' labels [N]."""
        features = duel.output(side).features
        label = (duel.real_cond if side == "real" else duel.fake_cond).get("label")
        if features is None or label is None:
            lacks = "label" if features is not None else "features"
            raise PluginError(f"regularizer {self.name!r} met samples without {lacks}; choose another game or architecture")
        return features, label


class Contrast(Head):
    """A head that places samples and classes on the unit sphere and compares each sample with the others of its batch."""

    def __init__(self, *, embedding: int, temperature: float, generator: float, spectral_norm: bool) -> None:
        super().__init__(generator=generator, spectral_norm=spectral_norm)
        self.embedding = embedding
        self.temperature = temperature
        for option, value in (("embedding", embedding), ("temperature", temperature)):
            if value <= 0:
                raise PluginError(f"regularizer {self.name!r} needs a {option!r} above 0, not {value}")

    def build(self, width: int) -> nn.Module:
        """Return the embedding."""
        return Embedding(width, self.classes, self.embedding)

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean over the acting side's own samples."""
        acting = duel.acting == "generator"
        features, label = self.met(duel, "fake" if acting else "real")
        assert self.layers is not None
        with torch.autocast(features.device.type, enabled=False):  # half precision has too few digits for cosines near one
            points, proxies = self.layers(features.float(), label)
            contrast = self.contrast(points @ points.T, (points * proxies).sum(1), label)
        return self.generator * contrast if acting else contrast

    def contrast(self, others: Tensor, own: Tensor, label: Tensor) -> Tensor:
        """Return the loss, given cosines between samples [N, N], and with the own class [N]."""
        raise NotImplementedError


class Embedding(nn.Module):
    """Features to points on the unit sphere, and a point there for each class."""

    def __init__(self, width: int, classes: int, embedding: int) -> None:
        super().__init__()
        self.linear = orthogonal(nn.Linear(width, embedding))
        self.proxies = orthogonal(nn.Embedding(classes, embedding))

    def forward(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples' points and those of their classes, both [N, embedding]."""
        return F.normalize(self.linear(features), dim=1), F.normalize(self.proxies(label), dim=1)


def cross_entropy(layer: nn.Module | None, features: Tensor, label: Tensor) -> Tensor:
    """Return the mean surprise at the labels [N] of a softmax over the layer's outputs."""
    assert layer is not None
    return F.cross_entropy(layer(features).float(), label)


def orthogonal(layer: nn.Linear | nn.Embedding) -> nn.Module:
    """Start a layer's weight orthogonal and its bias at zero."""
    nn.init.orthogonal_(layer.weight)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
