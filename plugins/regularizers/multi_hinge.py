"""One margin between a sample's class and every other class, of which being fake may be one."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.game import Duel

from ._heads import Head, orthogonal


class MultiHinge(Head):
    """Wants a sample's class to win by a margin (MHingeGAN, Kavalerov et al. 2021, arXiv:1912.04216).

    Crammer and Singer's max(0, 1 + the best wrong score - the right one), over K scores that are linear on D's features.
    With `fake_class`, as in the authors' code, D's own negated logit is one more score, which says "fake": D pays for real
    samples as their class and for fakes as fake, G pays `generator` times for fakes as their class (0.05, beside feature
    matching), and the recipe's loss is `zero-loss`. Without, as in the paper's last version, it goes with another loss: D
    pays for real samples and G for fakes, among the K classes. `spectral_norm` norms the layer.
    """

    name = "multi-hinge"

    def __init__(self, *, fake_class: bool = True, generator: float = 1.0, spectral_norm: bool = False) -> None:
        super().__init__(generator=generator, spectral_norm=spectral_norm)
        self.fake_class = fake_class

    def build(self, width: int) -> nn.Module:
        """Return a score for each class."""
        return orthogonal(nn.Linear(width, self.classes))

    def penalty(self, duel: Duel) -> Tensor:
        """Return the acting side's mean violation."""
        if duel.acting == "generator":
            return self.generator * crammer_singer(*self.scored(duel, "fake"))
        real = crammer_singer(*self.scored(duel, "real"))
        if not self.fake_class:
            return real
        scores, label = self.scored(duel, "fake")
        return real + crammer_singer(scores, torch.full_like(label, self.classes))

    def scored(self, duel: Duel, side: Literal["real", "fake"]) -> tuple[Tensor, Tensor]:
        """Return the scores [N, K] or [N, K + 1] and the labels of the real or the fake samples."""
        features, label = self.met(duel, side)
        scores = self.layers(features).float()
        if self.fake_class:
            scores = torch.cat([scores, -duel.output(side).logits.view(len(label), -1).mean(1, keepdim=True)], 1)
        return scores, label


def crammer_singer(scores: Tensor, label: Tensor) -> Tensor:
    """Return the mean of how far the best wrong score [N, classes] comes within 1 of the right one."""
    right = scores.gather(1, label[:, None])
    wrong = scores.scatter(1, label[:, None], -torch.inf).amax(1, keepdim=True)
    return F.relu(1 + wrong - right).mean()
