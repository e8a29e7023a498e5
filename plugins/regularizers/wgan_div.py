"""The penalty that makes a critic's gap a Wasserstein divergence, without any Lipschitz constraint."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, lerp

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel

from .gradient_penalty import gradient_norm, per_sample_uniform


class WGANDiv(Regularizer):
    """A high power of D's gradient between real and fake (WGAN-div: Wu et al. 2018, arXiv:1712.01026).

    k times the mean over samples of |dD/dx|^p at x = real + alpha (fake - real), alpha ~ U(0, 1) for each sample; k = 2 and
    p = 6 are the paper's. It goes with loss `wasserstein`. D must judge each sample on its own: no batch norm.
    """

    strength: ClassVar[str] = "k"

    def __init__(self, *, k: float = 2.0, p: float = 6.0) -> None:
        super().__init__()
        self.k = k
        self.p = p
        if p <= 1:
            raise PluginError(f"regularizer 'wgan-div' needs a power p above 1, not {p}; the paper has 6")

    def penalty(self, duel: Duel) -> Tensor:
        """Return k times the mean power of the gradient's length."""
        x = lerp(duel.real, duel.fake.detach(), per_sample_uniform(duel.real))
        return self.k * (gradient_norm(duel.input_gradient_at(x)) ** self.p).mean()
