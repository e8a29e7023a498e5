"""Several samples at a time before D, so that a lack of variety shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from ganzoo.api import PluginError, Regularizer, Spec


class PacGAN(Regularizer):
    """Lets D judge packs of samples, whose sameness gives fakes away (Lin et al. 2018, arXiv:1712.04086).

    `samples` neighbours in the batch are joined along their first dimension, channels of images or coordinates of points,
    so D is built for that many times more of them and gives one logit a pack. What else changes a view (augmentation) is
    named before it. A penalty on input gradients takes the gradient of a pack's logit for each of its samples.
    Deviation: a batch of N makes N / samples packs; the authors' code draws N packs.
    """

    strength: ClassVar[str] = "samples"
    expected_failures: ClassVar[Mapping[str, str]] = {"views-keep-the-shape": "a view joins the samples of a pack"}

    def __init__(self, *, samples: int = 2) -> None:
        super().__init__()
        self.samples = samples
        if samples < 2:
            raise PluginError(f"regularizer 'pacgan' packs at least 2 'samples', not {samples}; remove it to pack none")

    def shown(self, spec: Spec) -> Spec:
        """Return a first dimension that is as many times larger."""
        if spec.classes:
            raise PluginError(
                "regularizer 'pacgan' has no label for a pack of samples from several classes; set data.labels to false"
            )
        first, *rest = spec.shape
        return replace(spec, shape=(first * self.samples, *rest))

    def view(self, x: Tensor) -> Tensor:
        """Return packs [N / samples, samples * first, ...] of x [N, first, ...]."""
        if len(x) % self.samples:
            raise PluginError(
                f"regularizer 'pacgan' cannot make packs of {self.samples} of {len(x)} samples; set train.batch to a "
                "multiple for every process and piece"
            )
        return x.unflatten(0, (-1, self.samples)).flatten(1, 2)
