"""The game of one generator against one discriminator."""

from __future__ import annotations

from ganzoo.game import TwoPlayer


class Adversarial(TwoPlayer):
    """One generator against one discriminator, the game of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661).

    Each turn is a single duel: D faces a batch of real samples and what G makes of as many latents, under the same labels
    where the data has some. One D turn and one G turn make a round unless the recipe says otherwise.
    """
