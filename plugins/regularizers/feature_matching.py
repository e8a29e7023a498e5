"""G's samples have the mean features of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel


class FeatureMatching(Regularizer):
    """Draws the mean of D's features over fakes to that over reals (Salimans et al. 2016, arXiv:1606.03498).

    G pays the squared length of the difference of the two means. With `distance` "absolute" it is the mean absolute
    difference, as MHGAN has it (Kavalerov et al. 2021, arXiv:1912.04216), weighed 1 there.
    """

    side = "generator"
    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "the means are those of each piece of a batch"
    }

    def __init__(self, *, distance: Literal["squared", "absolute"] = "squared") -> None:
        super().__init__()
        self.distance = distance

    def penalty(self, duel: Duel) -> Tensor:
        """Return the distance of the means; D runs on the reals for it, where the loss does not ask for that anyway."""
        real, fake = duel.output("real").features, duel.output("fake").features
        if real is None or fake is None:
            raise PluginError(
                "regularizer 'feature-matching' needs a discriminator with features, and "
                f"{type(duel.discriminator).__name__} gives none; choose another architecture"
            )
        difference = real.detach().float().mean(0) - fake.float().mean(0)
        return difference.square().sum() if self.distance == "squared" else difference.abs().mean()
