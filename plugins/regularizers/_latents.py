"""Other latents than the ones that a turn is about, and what G makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.api import PluginError
from ganzoo.game import Duel


def draw_like(z: Tensor, prior: str) -> Tensor:
    """Return latents of the same shape from the run's prior."""
    return torch.rand_like(z) * 2 - 1 if prior == "uniform" else torch.randn_like(z)


def latents(duel: Duel, who: str) -> Tensor:
    """Return the latents of a duel's fakes; PluginError names who asks where the game makes fakes of something else."""
    if duel.z is None or duel.generate is None:
        raise PluginError(f"regularizer {who!r} needs a game whose fakes come from latents; remove it")
    return duel.z


def fakes(duel: Duel, z: Tensor) -> Tensor:
    """Return what G makes of latents under the conditions of the duel's fakes, in the data's type."""
    assert duel.generate is not None  # whoever has latents has asked
    return duel.generate(z, duel.fake_cond).to(duel.real.dtype)
