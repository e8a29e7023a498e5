"""WGAN-GP's penalty on straight lines between real and fake."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel

TINY = 1e-12  # keeps the second derivative of the norm finite where a gradient is exactly zero


def gradient_norm(gradient: Tensor) -> Tensor:
    """Return the Euclidean norm of each row of [N, features]."""
    return (gradient.square().sum(1) + TINY).sqrt()


def between(duel: Duel) -> Tensor:
    """Return one point for each sample on the straight line from a real to a fake one."""
    return torch.lerp(duel.real, duel.fake.detach(), per_sample_uniform(duel.real))


def per_sample_uniform(x: Tensor) -> Tensor:
    """Return one number in [0, 1) for each sample, shaped to multiply x."""
    return torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype)


class GradientPenalty(Regularizer):
    """Keeps D's gradient near unit length between real and fake (Gulrajani et al. 2017, arXiv:1704.00028).

    mean over samples of (|dD/dx| - target)^2 at x = real + alpha (fake - real), alpha ~ U(0, 1) for each sample. The paper
    weighs it 10. D must judge each sample on its own: no batch norm. With `one_sided` only what exceeds the target counts,
    max(0, |dD/dx| - target)^2, which that paper mentions too.
    """

    def __init__(self, *, target: float = 1.0, one_sided: bool = False) -> None:
        super().__init__()
        self.target = target
        self.one_sided = one_sided

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared distance of the gradient's length to the target."""
        excess = gradient_norm(duel.input_gradient_at(between(duel))) - self.target
        return (excess.relu() if self.one_sided else excess).square().mean()
