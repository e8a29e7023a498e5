"""Least squares that do not chase outliers."""

from torch import Tensor
from torch.nn import functional as F

from ganzoo.api import Loss, PluginError


class Huber(Loss):
    """Pulls logits to one and zero as least squares do, with bounded force (Huber 1964; after arXiv:1611.04076).

    With h the Huber function of this `delta`: D minimises h(real - 1) + h(fake), G minimises h(fake - 1).
    """

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta
        if delta <= 0:
            raise PluginError(f"loss 'huber' needs a positive 'delta', not {delta}")

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return how far real logits are from one and fake ones from zero."""
        return self.distance(real, 1.0) + self.distance(fake, 0.0)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return how far fake logits are from one."""
        return self.distance(fake, 1.0)

    def distance(self, logits: Tensor, target: float) -> Tensor:
        """Return the mean Huber function of the distance to a target."""
        return F.huber_loss(logits, logits.new_full(logits.shape, target), delta=self.delta)
