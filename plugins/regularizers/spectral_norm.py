"""Divides every weight by its largest singular value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganzoo.api import PluginError, Regularizer
from ganzoo.layers.conditional import ClassTable

WARM_UP = 15  # power iterations before the first step
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)  # output channels are dimension 1
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear, nn.Embedding)


class SpectralNorm(Regularizer):
    """Keeps each layer 1-Lipschitz through its weight / sigma (Miyato et al. 2018, arXiv:1802.05957).

    sigma = u^T W v estimates the largest singular value of the weight as an [output, rest] matrix; u and v come from power
    iteration and are constants to the gradient. Deviation: Miyato iterates once in every training forward, so each forward
    of a turn sees another D; here `iterations` run after each optimizer step, and 15 to warm up. All forwards between
    two steps (real, fake, penalties, parts of an accumulated batch) then see one function, and evaluation changes nothing.
    `of` says whose layers: D's as published, G's, or both as SAGAN has it (arXiv:1805.08318). Tables of numbers by class
    (`ClassTable`), such as the scales of a conditional batch norm, stay as they are.
    """

    def __init__(self, *, of: Literal["discriminator", "generator", "both"] = "discriminator", iterations: int = 1) -> None:
        super().__init__()
        self.of = of
        self.side = of
        self.iterations = iterations
        if iterations < 1:
            raise PluginError(f"regularizer 'spectral-norm' needs 'iterations' of at least 1 per step, not {iterations}")

    def prepare(self, net: nn.Module) -> None:
        """Parametrize the weight of every convolution, linear layer and embedding."""
        layers = [layer for layer in net.modules() if isinstance(layer, LAYERS) and not isinstance(layer, ClassTable)]
        if not layers:
            raise PluginError(f"regularizer 'spectral-norm' finds no layer to normalise in {type(net).__name__}; remove it")
        normalised = {id(layer) for layer, _ in _normalised(net)}
        for layer in layers:
            if id(layer) not in normalised:
                if not layer.weight.is_meta and not layer.weight.any():
                    raise PluginError(
                        f"regularizer 'spectral-norm' cannot divide a {type(layer).__name__} of {type(net).__name__} whose "
                        "weight starts at zero, since it has no largest singular value; remove it, or take other networks"
                    )
                rows = 1 if isinstance(layer, TRANSPOSED) else 0
                parametrize.register_parametrization(layer, "weight", Normalise(layer.weight, rows))

    @torch.no_grad()
    def after_step(self, nets: Sequence[nn.Module]) -> None:
        """Let u and v follow the weights."""
        for net in nets:
            for layer, normalise in _normalised(net):
                normalise.iterate(layer.parametrizations["weight"].original, self.iterations)


class Normalise(nn.Module):
    """The map from a weight to weight / sigma; u and v are buffers and change in `iterate` alone."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, rows: int) -> None:
        super().__init__()
        self.rows = rows  # the dimension of the weight that counts outputs
        with torch.no_grad():
            matrix = self._matrix(weight)
            self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0))
            self.register_buffer("v", torch.zeros_like(matrix[0]))
            self.iterate(weight, WARM_UP)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with a largest singular value of about one."""
        with torch.autocast(weight.device.type, enabled=False):
            sigma = torch.dot(self.u, torch.mv(self._matrix(weight), self.v))
            return weight / sigma.to(weight.dtype)

    @torch.no_grad()
    def iterate(self, weight: Tensor, count: int) -> None:
        """Take `count` steps of power iteration."""
        matrix = self._matrix(weight)
        for _ in range(count):
            self.v.copy_(F.normalize(torch.mv(matrix.T, self.u), dim=0, eps=1e-12))
            self.u.copy_(F.normalize(torch.mv(matrix, self.v), dim=0, eps=1e-12))

    def _matrix(self, weight: Tensor) -> Tensor:
        matrix = weight.movedim(self.rows, 0).flatten(1)
        return matrix.to(torch.promote_types(matrix.dtype, torch.float32))  # half precision has too few digits for sigma


def _normalised(net: nn.Module) -> Iterator[tuple[nn.Module, Normalise]]:
    for layer in net.modules():
        if parametrize.is_parametrized(layer, "weight"):
            for entry in layer.parametrizations["weight"]:
                if isinstance(entry, Normalise):
                    yield layer, entry
