"""Noise on everything that D sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ganzoo.api import PluginError, Regularizer


class InstanceNoise(Regularizer):
    """Shows D reals and fakes under Gaussian noise, so that the two overlap (Sønderby et al. 2017, arXiv:1610.04490).

    x + sigma e with e ~ N(0, 1) for each pixel. The paper lets the noise fade: `sigma = { from = 0.1, to = 0.0, shape =
    "linear" }`.
    """

    strength: ClassVar[str] = "sigma"
    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "each piece of a batch draws noise of its own"
    }

    def __init__(self, *, sigma: float = 0.1) -> None:
        super().__init__()
        self.sigma = sigma
        if sigma < 0:
            raise PluginError(f"regularizer 'instance-noise' needs a 'sigma' of 0 or more, not {sigma}")

    def view(self, x: Tensor) -> Tensor:
        """Return samples under noise."""
        return x + self.sigma * torch.randn_like(x)
