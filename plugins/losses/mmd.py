"""Two samples compared as a whole, by a kernel on D's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ganzoo.api import Loss, PluginError

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)  # of the rational quadratic kernels (arXiv:1801.01401)
SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)  # of the Gaussian kernels (arXiv:1705.08584)


def rational_quadratic(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of (1 + |x - y|^2 / (2 alpha))^-alpha over `ALPHAS`, and the scalar product, [N, N]."""
    squares = _squares(x, y)
    return torch.stack([(1 + squares / (2 * alpha)) ** -alpha for alpha in ALPHAS]).sum(0) + _products(x, y)


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of exp(-|x - y|^2 / (2 sigma^2)) over `SIGMAS`, [N, N]."""
    squares = _squares(x, y)
    return torch.stack([(-squares / (2 * sigma**2)).exp() for sigma in SIGMAS]).sum(0)


KERNELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rational-quadratic": rational_quadratic,
    "gaussian": gaussian,
}


class MMD(Loss):
    """The squared maximum mean discrepancy of D's vectors (MMD GAN: Li et al. 2017, arXiv:1705.08584).

    D maximises and G minimises the unbiased estimate mean k(r, r') + mean k(g, g') - 2 mean k(r, g) over the vectors
    [N, K] of real r != r' and fake g != g'; [N] is K = 1. `kernel` is "rational-quadratic" with a scalar product
    (Binkowski et al. 2018, arXiv:1801.01401; they have K = 16) or "gaussian". D must be smooth: add spectral-norm
    (arXiv:1812.09916) or gradient-penalty. Deviation: no auto-encoder in D, and no penalty on the witness function.
    """

    relativistic: ClassVar[bool] = True
    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "pairs are made within each piece of a batch"
    }

    def __init__(self, *, kernel: Literal["rational-quadratic", "gaussian"] = "rational-quadratic") -> None:
        super().__init__()
        self.kernel = kernel

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negated discrepancy."""
        return -self._discrepancy(real, fake)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the discrepancy."""
        if real is None:
            raise PluginError("loss 'mmd' needs the real logits in the generator's turn; the engine must pass them")
        return self._discrepancy(real, fake)

    def _discrepancy(self, real: Tensor, fake: Tensor) -> Tensor:
        if len(real) < 2:
            raise PluginError(f"loss 'mmd' compares samples in pairs; a batch of {len(real)} is too small, use 2 or more")
        kernel = KERNELS[self.kernel]
        r, g = (h.reshape(len(h), -1) for h in (real, fake))
        return _pairs(kernel(r, r)) + _pairs(kernel(g, g)) - 2 * kernel(r, g).mean()


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of each row to each, without the square root whose gradient at 0 has no end."""
    return (x[:, None] - y[None]).square().sum(2)


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return the scalar product of each row with each; not as a matrix product, which autocast would do in bf16."""
    return (x[:, None] * y[None]).sum(2)


def _pairs(values: Tensor) -> Tensor:
    """Return the mean of [N, N] beside its diagonal."""
    count = len(values)
    return (values.sum() - values.diagonal().sum()) / (count * (count - 1))
