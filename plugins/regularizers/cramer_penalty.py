"""WGAN-GP's penalty for the critic of the Cramer GAN, which is a function of D's vectors and not their sum."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel, input_gradient

from ..losses.cramer import length, partners
from .gradient_penalty import gradient_norm, per_sample_uniform


class CramerPenalty(Regularizer):
    """Keeps the gradient of the Cramer GAN's critic near unit length (Bellemare et al. 2017, arXiv:1705.10743).

    mean over samples of (|df/dx| - target)^2 at x = real + alpha (fake - real), alpha ~ U(0, 1) for each sample, with
    f(x) = |h(x) - h(fake')| - |h(x)|, h the vectors [N, K] that D gives and fake' another fake of the batch. The paper
    weighs it 10. It goes with loss `cramer`. D must judge each sample on its own: no batch norm.
    """

    def __init__(self, *, target: float = 1.0) -> None:
        super().__init__()
        self.target = target

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared distance of the gradient's length to the target."""
        other = partners(duel.output("fake").logits)
        x = torch.lerp(duel.real, duel.fake.detach(), per_sample_uniform(duel.real)).detach().requires_grad_()
        h = duel.judge(x, duel.real_cond).logits
        gradient = input_gradient(length(h - other) - length(h), x)
        return (gradient_norm(gradient) - self.target).square().mean()
