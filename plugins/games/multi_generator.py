"""MGAN: several generators share most of their weights, and between them the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ganzoo.api import Batch, Look, PluginError, Spec
from ganzoo.game import Cond, Duel, Scene, TwoPlayer
from ganzoo.layers.conditional import is_told

from ._quantiles import quantile


class MultiGenerator(TwoPlayer):
    """Several generators against one D, which a sample is drawn from at random (MGAN, Hoang et al. 2018, arXiv:1708.02556).

    The generators are one conditional network: the label is which of them makes a sample. With the architecture's
    `generator_label = "first-layer"` they share all but their first layers, as in the paper. D must not know the label
    (`discriminator_label = "none"`): only together have the generators to match the data. What drives them apart is a
    classifier that guesses from D's features which of them made a fake: the regularizer `auxiliary-classifier` with
    `real = false` and `fakes = true`; its option `generator` is the paper's beta.
    With `same_noise` each latent goes through the generators one after the other, so a batch has as many of each as it can,
    and what it leaves over falls to random ones; without, each latent chooses at random. When drawn from, each latent
    chooses by its first entry, which no generator sees. The data's own classes are not used.
    Deviation: a turn has as many fakes as real samples, where the authors' code has 120 for 64.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "the generators take turns within each piece of a batch; it must be a multiple of "
        "their number"
    }

    def __init__(self, *, generators: int = 10, same_noise: bool = True) -> None:
        super().__init__()
        self.generators = generators
        self.same_noise = same_noise
        self._prior = "normal"
        if generators < 1:
            raise PluginError(f"game 'multi-generator' needs one of 'generators' at least, not {generators}")

    def spec(self, spec: Spec) -> Spec:
        """Return a spec with the generators for classes; one latent is kept to choose among them."""
        if spec.classes:
            raise PluginError(
                "game 'multi-generator' takes labels for generators; take the data without its own (data.labels = false)"
            )
        if spec.latent < 2:
            raise PluginError(
                f"game 'multi-generator' needs 2 latents or more, one of them for the generator, not {spec.latent}"
            )
        self._prior = spec.prior
        return replace(spec, classes=self.generators, latent=spec.latent - 1)

    def prepare(self, nets: Mapping[str, nn.Module], look: Look | None) -> None:
        """Refuse a discriminator that is told which generator made a fake."""
        if is_told(nets["D"]):
            raise PluginError(
                "game 'multi-generator' needs a discriminator that is told no label; "
                'set architecture.discriminator_label = "none"'
            )

    def chosen(self, z: Tensor) -> Tensor:
        """Return which generator each latent [N, latent] chooses by its first entry, all of them equally often."""
        return (quantile(z[:, 0].float(), self._prior) * self.generators).long().clamp(0, self.generators - 1)

    def dealt(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents [N, latent] and generators [N] of a turn's fakes."""
        if not self.same_noise:
            return z, self.chosen(z)
        place = torch.arange(len(z), device=z.device)
        z = z[place - place % self.generators]
        return z, (self.chosen(z) + place) % self.generators

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face the batch and what the generators make; real samples carry labels too, which mean nothing."""

        def generate(latents: Tensor, cond: Cond) -> Tensor:
            made: Tensor = nets["G"](latents[:, 1:], **cond)
            return made

        z, generator = self.dealt(z)
        cond = {"label": generator}
        return Scene([Duel(nets["D"], batch.real, generate(z, cond), real_cond=cond, generate=generate, z=z)])

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Return samples of all generators, or of those that `label` names."""
        made: Tensor = nets["G"](z[:, 1:], label=cond.get("label", self.chosen(z)))
        return made
