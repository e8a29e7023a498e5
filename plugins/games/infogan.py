"""Latents with a part that means something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ganzoo.api import Batch, PluginError, Spec
from ganzoo.game import Cond, Duel, Scene, TwoPlayer

from ._quantiles import quantile


@dataclass(frozen=True, slots=True)
class CodedSpec(Spec):
    """A spec whose latents begin with codes: one-hot ones of these sizes, then so many numbers in [-1, 1]."""

    categorical: tuple[int, ...] = ()
    continuous: int = 0


class InfoGAN(TwoPlayer):
    """One generator against one discriminator, with codes at the head of z (Chen et al. 2016, arXiv:1606.03657).

    `categorical` holds the sizes of codes that choose one of so many, `continuous` counts codes uniform in [-1, 1]. Each
    code is made of one of the first latents, so that sampling, interpolating and the grid of a run need not know of them: a
    latent's quantile u in [0, 1] chooses category floor(u * size), passed to G as a one-hot vector, or becomes 2u - 1. Who
    holds the latent fixed holds the code fixed. The rest of z is noise. G sees one-hot codes at their full size, so it is
    built for more latents than the recipe has.
    That codes come to mean something is the business of the regularizer `mutual-information`, which is told them.
    """

    def __init__(self, *, categorical: tuple[int, ...] = (10,), continuous: int = 2) -> None:
        super().__init__()
        self.categorical = tuple(categorical)
        self.continuous = continuous
        self._prior = "normal"
        if any(size < 2 for size in self.categorical) or continuous < 0 or len(self.categorical) + continuous < 1:
            raise PluginError(
                "game 'infogan' needs a code at least: sizes of 2 or more in 'categorical', or a positive number in "
                f"'continuous', not {self.categorical} and {continuous}"
            )

    def spec(self, spec: Spec) -> Spec:
        """Return a spec with the codes for the first latents."""
        count = len(self.categorical) + self.continuous
        if spec.latent < count:
            raise PluginError(
                f"game 'infogan' needs a latent for each of {count} codes, not {spec.latent}; set latent.size"
            )
        self._prior = spec.prior
        wider = replace(spec, latent=spec.latent + sum(self.categorical) - len(self.categorical))
        known = {field.name: getattr(wider, field.name) for field in fields(wider)}
        return CodedSpec(**known, categorical=self.categorical, continuous=self.continuous)

    def coded(self, z: Tensor) -> Tensor:
        """Return latents [N, latent] with codes in place of the first of them: one-hot vectors, then numbers in [-1, 1]."""
        count = len(self.categorical) + self.continuous
        share = quantile(z[:, :count].float(), self._prior)
        parts = []
        for index, size in enumerate(self.categorical):
            chosen = (share[:, index] * size).long().clamp(0, size - 1)
            parts.append((chosen[:, None] == torch.arange(size, device=z.device)).to(z.dtype))
        parts.append((2 * share[:, len(self.categorical) :] - 1).to(z.dtype))
        return torch.cat([*parts, z[:, count:]], 1)

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face the batch and what G makes of codes and noise; the duel's z holds the codes."""

        def generate(latents: Tensor, cond: Cond) -> Tensor:
            made: Tensor = nets["G"](latents, **cond)
            return made

        z = self.coded(z)
        fake = generate(z, batch.cond)
        return Scene([Duel(nets["D"], batch.real, fake, real_cond=batch.cond, generate=generate, z=z)])

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Return what G makes of latents whose first ones become codes."""
        made: Tensor = nets["G"](self.coded(z), **cond)
        return made
