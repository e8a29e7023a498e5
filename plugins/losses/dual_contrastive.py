"""Each sample contrasted with all samples of the other side at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss, PluginError


class DualContrastive(Loss):
    """One real against all fakes and one fake against all reals, as classifications (Yu et al. 2021, arXiv:2103.16748).

    D minimises mean log(1 + sum_j exp(fake_j - real_i)) over reals i, plus mean log(1 + sum_i exp(fake_j - real_i))
    over fakes j; all logits of a batch take part. Deviation: the paper writes a zero-sum game; G minimises the same
    with real and fake exchanged, whose gradient does not vanish where D wins.
    """

    relativistic: ClassVar[bool] = True
    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "a piece of a batch has fewer samples of the other side to contrast with"
    }

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropies of finding the real among fakes and the fake among reals."""
        real, fake = real.flatten(), fake.flatten()
        return F.softplus(fake.logsumexp(0) - real).mean() + F.softplus(fake + (-real).logsumexp(0)).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the same with the sides exchanged."""
        if real is None:
            raise PluginError(
                "loss 'dual-contrastive' needs the real logits in the generator's turn; the engine must pass them"
            )
        return self.discriminator(fake, real)
