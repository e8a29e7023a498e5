"""A gradient penalty around the data, without fakes."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel

from .gradient_penalty import gradient_norm, per_sample_uniform


class DRAGAN(Regularizer):
    """Keeps D's gradient near unit length around real samples (Kodali et al. 2017, arXiv:1705.07215).

    mean over samples of (|dD/dx| - target)^2 at x = real + alpha perturbation std(real) u, with alpha ~ U(0, 1) for each
    sample, u ~ U(0, 1) for each pixel and the standard deviation of the whole batch, as in the authors' code. They weigh it
    10.
    """

    def __init__(self, *, perturbation: float = 0.5, target: float = 1.0) -> None:
        super().__init__()
        self.perturbation = perturbation
        self.target = target

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared distance of the gradient's length to the target."""
        real = duel.real
        noise = self.perturbation * real.std() * torch.rand_like(real)
        gradient = duel.input_gradient_at(real + per_sample_uniform(real) * noise)
        return (gradient_norm(gradient) - self.target).square().mean()
