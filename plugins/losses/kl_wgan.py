"""The critic's score, with fakes weighed by how real they look."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss


class KLWGAN(Loss):
    """Between f-GANs and Wasserstein GANs: fakes count by importance (Song & Ermon 2020, arXiv:1910.09779).

    With w = N softmax(fake) over the N logits of the batch, or of the piece of it under accumulation, D minimises mean
    max(0, 1 - real) + mean max(0, 1 + w fake) and G minimises -mean w fake. Gradients pass through w, as in the
    authors' code.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean violations of both margins."""
        return F.relu(1 - real).mean() + F.relu(1 + _weighed(fake)).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the negated score of the weighed fakes."""
        return -_weighed(fake).mean()


def _weighed(fake: Tensor) -> Tensor:
    """Return the logits [N] or [N, K], flat, times weights whose mean is 1."""
    fake = fake.flatten()
    return len(fake) * fake.softmax(0) * fake
