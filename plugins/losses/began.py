"""Energies in equilibrium: how much the fakes weigh follows from how well they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from ganzoo.api import Loss, PluginError


class BEGAN(Loss):
    """Boundary equilibrium: keeps the fakes' energy at `gamma` times the reals' (Berthelot et al. 2017, arXiv:1703.10717).

    D minimises real - k fake, G minimises fake, and after each turn of D k += lambda_k (gamma mean real - mean fake),
    held in [0, 1] and 0 at first. D's logits are energies, and lower means more real: the L1 errors of architecture
    `autoencoder`. The buffer `measure` is the paper's sign of convergence, mean real + |gamma mean real - mean fake| at
    the last turn of D; the same follows from the logged D/real and D/fake. Deviation: k follows the fakes of D's turn,
    not those of G's.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "both-sides-are-scalars": "k starts at 0, so D takes no notice of the fakes before its first step"
    }
    k: Tensor
    measure: Tensor

    def __init__(self, *, gamma: float = 0.5, lambda_k: float = 0.001) -> None:
        super().__init__()
        self.gamma = gamma
        self.lambda_k = lambda_k
        if gamma <= 0:
            raise PluginError(f"loss 'began' needs a gamma above 0, the share of energies fake / real, not {gamma}")
        if lambda_k <= 0:
            raise PluginError(f"loss 'began' needs a lambda_k above 0, by which k is moved, not {lambda_k}")
        self.register_buffer("k", torch.zeros(()))
        self.register_buffer("measure", torch.zeros(()))

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the energy of the reals less k times that of the fakes."""
        return real.mean() - self.k * fake.mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the energy of the fakes."""
        return fake.mean()

    @torch.no_grad()
    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Move k towards the equilibrium."""
        energy = real.mean()
        balance = self.gamma * energy - fake.mean()
        self.k.add_(self.lambda_k * balance).clamp_(0, 1)
        self.measure.copy_(energy + balance.abs())
