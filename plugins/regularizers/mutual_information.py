"""Codes that can be read off what they make."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import PluginError, Regularizer, Spec
from ganzoo.game import Duel
from ganzoo.layers.features import feature_width

from ..games.infogan import CodedSpec


class MutualInformation(Regularizer):
    """Raises the information that samples hold about the codes they were made of (Chen et al. 2016, arXiv:1606.03657).

    A head Q on D's features guesses the codes c of the fakes, and both players pay E[-log Q(c | G(z))]: H(c) less a lower
    bound of I(c; G(z)). That is the cross-entropy of each one-hot code, and for numbers a Gaussian around Q's guess, whose
    deviation is 1 ("fixed": half the squared error) or learned; constants are left out. The codes are those of the game
    `infogan`; in any other game all latents are taken for continuous codes. Q has one hidden layer of `hidden` units with
    LeakyReLU(0.1), or none for 0. It learns in D's turns with D's optimizer, as in the authors' code; in G's turn it stands
    still. Deviation: their batch norm inside Q is left out.
    """

    side = "both"

    def __init__(self, *, hidden: int = 128, deviation: Literal["fixed", "learned"] = "fixed") -> None:
        super().__init__()
        self.hidden = hidden
        self.deviation = deviation
        self.head: nn.Module | None = None
        self._categorical: tuple[int, ...] = ()
        self._continuous = 0
        if hidden < 0:
            raise PluginError(f"regularizer 'mutual-information' needs 'hidden' of 0 (a linear Q) or more, not {hidden}")

    def shown(self, spec: Spec) -> Spec:
        """Note which codes the latents begin with."""
        coded = isinstance(spec, CodedSpec)
        self._categorical = spec.categorical if coded else ()
        self._continuous = spec.continuous if coded else spec.latent
        return spec

    def prepare(self, net: nn.Module) -> None:
        """Build Q on D, which comes first; G stays as it is."""
        if self.head is not None:
            return
        width = feature_width(net, "regularizer 'mutual-information'")
        out = sum(self._categorical) + self._continuous * (2 if self.deviation == "learned" else 1)
        hidden = [nn.Linear(width, self.hidden), nn.LeakyReLU(0.1)] if self.hidden else []
        self.head = nn.Sequential(*hidden, nn.Linear(self.hidden or width, out))

    def penalty(self, duel: Duel) -> Tensor:
        """Return how badly Q guesses the codes of the fakes."""
        features = duel.output("fake").features
        if self.head is None or features is None or duel.z is None:
            raise PluginError("regularizer 'mutual-information' needs D's features and the latents of the fakes; remove it")
        guess = self.head(features).float()
        return self.surprise(guess, duel.z.float()).mean()

    def surprise(self, guess: Tensor, z: Tensor) -> Tensor:
        """Return -log Q(c | x) of each sample [N], constants left out, for Q's output and latents that begin with c."""
        total = guess.new_zeros(len(guess))
        start = 0
        for size in self._categorical:
            codes, logits = z[:, start : start + size], guess[:, start : start + size]
            total = total + F.cross_entropy(logits, codes.argmax(1), reduction="none")
            start += size
        codes = z[:, start : start + self._continuous]
        mean, *rest = guess[:, start:].split(max(self._continuous, 1), 1)
        squared = (codes - mean).square() / 2
        if not rest:
            return total + squared.sum(1)
        (log_deviation,) = rest
        return total + (squared * torch.exp(-2 * log_deviation) + log_deviation).sum(1)
