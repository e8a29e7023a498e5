"""Weights whose filters stand at right angles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganzoo.api import Regularizer
from ganzoo.game import Duel

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)  # output channels are dimension 1
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


class Orthogonal(Regularizer):
    """Pulls each layer's filters towards an orthonormal set (Brock et al. 2017, arXiv:1609.07093).

    Sum over convolutions and linear layers of |W W^T - I|^2 (Frobenius), a row of W being all that leads to one output.
    With `diagonal` false the lengths of filters are left alone, only their angles count: |W W^T o (1 - I)|^2, as BigGAN has
    it (Brock et al. 2019, arXiv:1809.11096), weighed 1e-4 there. `of` says whose layers; embeddings are left out, as
    BigGAN's author does with G's. Where another regularizer divides a weight, W is what is trained: the weight before that.
    Deviations: the first paper sums absolute values; and the code of BigGAN's author adds half of this gradient, so that
    its 1e-4 is 5e-5 here.
    """

    def __init__(self, *, of: Literal["discriminator", "generator", "both"] = "both", diagonal: bool = True) -> None:
        super().__init__()
        self.of = of
        self.side = of
        self.diagonal = diagonal
        self._nets: list[ref[nn.Module]] = []  # weakly: they are their players', and their parameters not its own

    def prepare(self, net: nn.Module) -> None:
        """Remember a network."""
        self._nets.append(ref(net))

    def penalty(self, duel: Duel) -> Tensor | None:
        """Return the sum over the acting player's layers, or None where it has none."""
        found = []
        for net in (it() for it in self._nets):
            if net is not None and (net is duel.discriminator) == (duel.acting == "discriminator"):
                # of several generators, those who do not act require no gradient
                found += [matrix for matrix in matrices(net) if matrix.requires_grad]
        if not found:
            return None
        return torch.stack([squared_products(matrix, diagonal=self.diagonal) for matrix in found]).sum()


def squared_products(matrix: Tensor, *, diagonal: bool) -> Tensor:
    """Return the sum of squared products of different rows and, with `diagonal`, of squared lengths minus one."""
    with torch.autocast(matrix.device.type, enabled=False):
        products = matrix @ matrix.T
        one = torch.eye(len(products), dtype=products.dtype, device=products.device)
        return (products - one if diagonal else products * (1 - one)).square().sum()


def matrices(net: nn.Module) -> Iterator[Tensor]:
    """Yield each layer's trained weight with one row for each output."""
    for layer in net.modules():
        if isinstance(layer, LAYERS):
            divided = parametrize.is_parametrized(layer, "weight")
            weight: Tensor = layer.parametrizations["weight"].original if divided else layer.weight  # type: ignore[index, assignment]
            yield weight.movedim(1 if isinstance(layer, TRANSPOSED) else 0, 0).flatten(1)
