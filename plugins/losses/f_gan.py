"""Any f-divergence, estimated by its variational bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss

Function = Callable[[Tensor], Tensor]

# with T = g(logit), g the output activation and f* the conjugate of the paper's tables: -T of a real and f*(T) of a fake
DIVERGENCES: Mapping[str, tuple[Function, Function]] = {
    "kl": (lambda v: -v, lambda v: (v - 1).exp()),
    "reverse-kl": (lambda v: (-v).exp(), lambda v: v - 1),
    "pearson": (lambda v: -v, lambda v: v.square() / 4 + v),
    "neyman": (lambda v: (-v).exp() - 1, lambda v: 2 - 2 * (-v / 2).exp()),
    "squared-hellinger": (lambda v: (-v).exp() - 1, lambda v: v.exp() - 1),
    "jensen-shannon": (lambda v: F.softplus(-v) - LOG_2, lambda v: F.softplus(v) - LOG_2),
}
LOG_2 = 0.6931471805599453


class FGAN(Loss):
    """Variational divergence minimisation (f-GAN: Nowozin et al. 2016, arXiv:1606.00709).

    D minimises mean f*(T(fake)) - mean T(real), with T = g(logit); g is -exp(-v) for "reverse-kl", 1 - exp(-v) for
    "neyman" and "squared-hellinger", log 2 - softplus(-v) for "jensen-shannon" and v itself for "kl" and "pearson", and
    f* the convex conjugate of the divergence's f. G minimises -mean T(fake), the paper's practical choice (section
    3.2). Except for "pearson" and "jensen-shannon" one of them grows exponentially: keep D's logits small
    (spectral-norm).
    """

    def __init__(
        self,
        *,
        divergence: Literal["kl", "reverse-kl", "pearson", "neyman", "squared-hellinger", "jensen-shannon"] = "pearson",
    ) -> None:
        super().__init__()
        self.divergence = divergence

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negated lower bound of the divergence."""
        reward, conjugate = DIVERGENCES[self.divergence]
        return reward(real).mean() + conjugate(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return what a real would cost with the logits of the fakes."""
        reward, _ = DIVERGENCES[self.divergence]
        return reward(fake).mean()
