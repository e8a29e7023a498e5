"""D overlooks, and G shows, a small change of the latents."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.api import PluginError, Regularizer, Spec
from ganzoo.game import Duel

from ._latents import draw_like, fakes, latents


class LatentConsistency(Regularizer):
    """Keeps nearby latents apart in G and alike to D: zCR (Zhao et al. 2021, arXiv:2002.04724).

    D pays `discriminator` times mean (D(G(z)) - D(G(z + dz)))^2, G minus `generator` times the mean of (G(z) - G(z + dz))^2
    over samples and pixels. dz is `radius` times a draw from the latents' prior. The defaults are PyTorch-StudioGAN's for
    BigGAN on CIFAR-10.
    """

    side = "both"

    def __init__(self, *, discriminator: float = 20.0, generator: float = 0.5, radius: float = 0.05) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.radius = radius
        self.prior = "normal"
        if radius <= 0:
            raise PluginError(f"regularizer 'latent-consistency' needs a positive 'radius', not {radius}")

    def shown(self, spec: Spec) -> Spec:
        """Note how latents are drawn."""
        self.prior = spec.prior
        return spec

    def penalty(self, duel: Duel) -> Tensor:
        """Return what the acting side pays; G runs once more for it."""
        z = latents(duel, "latent-consistency")
        nearby = z + self.radius * draw_like(z, self.prior)
        if duel.acting == "generator":
            return -self.generator * (fakes(duel, nearby) - duel.fake).square().mean()
        with torch.no_grad():
            x = fakes(duel, nearby)
        logits = duel.judge(x, duel.fake_cond).logits
        return self.discriminator * (logits - duel.output("fake").logits).square().mean()
