"""Fakes that D encodes alike push each other apart."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel


class PullingAway(Regularizer):
    """The pulling-away term on D's features of the fakes, which G pays (EBGAN: Zhao et al. 2016, arXiv:1609.03126).

    The mean over pairs of fakes i != j of the squared cosine between their features, the paper's equation 5, which
    weighs it 0.1; under accumulation pairs are made within each piece of a batch. With architecture `autoencoder`
    features are the codes. Deviation from a popular port (PyTorch-GAN): cosines are squared, so that opposite codes are
    no reward.
    """

    side: Literal["discriminator", "generator", "both"] = "generator"

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared cosine between the features of two fakes; 0 for a single one."""
        features = duel.output("fake").features
        if features is None:
            raise PluginError(
                f"regularizer 'pulling-away' needs features, and {type(duel.discriminator).__name__} gives logits only; "
                "choose another architecture"
            )
        directions = F.normalize(features.flatten(1).float(), dim=1)
        with torch.autocast(directions.device.type, enabled=False):  # cosines near 1 have too few digits in half precision
            squares = (directions @ directions.T).square()
        count = len(squares)
        return (squares.sum() - squares.diagonal().sum()) / max(count * (count - 1), 1)
