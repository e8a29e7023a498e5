"""A game of three."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.api import Batch, Game, PluginError
from ganzoo.game import Duel, Scene


class Recovery(Game):
    """An encoder finds the latents of G's samples again, which keeps G from dropping modes (VEEGAN, arXiv:1705.07761).

    G and E both pay `latent` times the squared error of E(G(z)) against z; E pays `image` times the absolute error of
    G(E(x)) against real samples x too. Deviation: D judges samples alone, not pairs of samples and latents.
    """

    roles: Mapping[str, str] = {"G": "generator", "D": "discriminator", "E": "encoder"}
    teams: Mapping[str, tuple[str, ...]] = {"D": ("D",), "G": ("G",), "E": ("E",)}

    def __init__(self, *, latent: float = 1.0, image: float = 1.0) -> None:
        super().__init__()
        self.latent = latent
        self.image = image
        if latent <= 0 or image < 0:
            raise PluginError("game 'recovery' needs a positive 'latent' and an 'image' of at least 0")

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face what G makes of z, and E look for z; in E's own turn nobody is judged."""
        fake = nets["G"](z, **batch.cond)
        if acting == "D":
            return Scene([self.duel(nets, batch, fake, z)])
        errors = {"latent": self.latent * F.mse_loss(nets["E"](fake, **batch.cond).float(), z)}
        if acting == "G":
            return Scene([self.duel(nets, batch, fake, z)], errors)
        again = nets["G"](nets["E"](batch.real, **batch.cond), **batch.cond)
        return Scene([], errors | {"image": self.image * F.l1_loss(again.float(), batch.real)})

    def duel(self, nets: Mapping[str, nn.Module], batch: Batch, fake: Tensor, z: Tensor) -> Duel:
        """Return the duel of D."""
        return Duel(nets["D"], batch.real, fake, real_cond=batch.cond, z=z)
