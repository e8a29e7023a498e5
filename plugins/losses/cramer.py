"""Distances between vectors of D's numbers, instead of one number a sample."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ganzoo.api import Loss, PluginError

TINY = 1e-12  # keeps the derivative of the distance finite where two vectors are the same


def length(h: Tensor) -> Tensor:
    """Return the Euclidean norm of each row of [N, K], or the magnitude of each number of [N]."""
    return (h.reshape(len(h), -1).square().sum(1) + TINY).sqrt()


def partners(h: Tensor) -> Tensor:
    """Return the vector of another sample of the batch for each: neighbours 0-1, 2-3 ... change places.

    Pieces of even size have the pairs of the whole batch. In an odd batch the last sample meets the first.
    """
    count = len(h)
    if count < 2:
        raise PluginError(
            f"loss 'cramer' compares samples with one another; a batch of {count} is too small, use 2 or more"
        )
    return h[(torch.arange(count, device=h.device) ^ 1) % count]


class Cramer(Loss):
    """The energy distance between D's vectors h of reals and fakes (Bellemare et al. 2017, arXiv:1705.10743).

    With r = h(real), g = h(fake), a prime for the partner in the batch (`partners`) and means over the batch, G
    minimises |r - g| + |r - g'| - |g - g'|. D maximises, as `critic` says, the paper's "surrogate", in which 0 stands
    for other reals, (|r - g| + |r - g'|) / 2 - |r| - |g - g'| + |g|, or the "energy" distance itself, which is the
    distance |r - g| + |r - g'| - |r - r'| - |g - g'|.
    Logits are h [N, K], with K = 256 in the paper (option `outputs` of architecture `dcgan`); [N] is K = 1. D must be
    smooth: add regularizer `cramer-penalty`. Deviation: the paper draws second fakes; here other fakes of the batch serve,
    which are as independent.
    """

    relativistic: ClassVar[bool] = True

    def __init__(self, *, critic: Literal["surrogate", "energy"] = "surrogate") -> None:
        super().__init__()
        self.critic = critic

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negated distance that the critic sees."""
        apart = _between(real, fake) - length(fake - partners(fake)).mean()
        if self.critic == "energy":
            return length(real - partners(real)).mean() - apart
        return _between(real, fake) / 2 + (length(real) - length(fake)).mean() - apart

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the energy distance but for the term in which G has no part."""
        if real is None:
            raise PluginError("loss 'cramer' needs the real logits in the generator's turn; the engine must pass them")
        return _between(real, fake) - length(fake - partners(fake)).mean()


def _between(real: Tensor, fake: Tensor) -> Tensor:
    return (length(real - fake) + length(real - partners(fake))).mean()
