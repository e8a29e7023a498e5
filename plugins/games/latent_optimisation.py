"""The game in which latents are improved before samples are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ganzoo.api import Batch, DiscriminatorOutput, PluginError, Spec
from ganzoo.game import Cond, Duel, Scene, TwoPlayer, input_gradient

Through = Literal["both", "discriminator", "generator", "none"]  # whose gradients run through the moves


class LatentOptimisation(TwoPlayer):
    """Improves latents by D's gradient before the players meet their samples: LOGAN (Wu et al. 2019, arXiv:1912.00953).

    In each of `steps` steps z becomes z + alpha g / (beta + |g|^2), g = dD(G(z))/dz: a natural gradient, its Fisher matrix
    that of one sample with damping beta. A step moves each sample with probability `share`, and uniform latents stay in
    [-1, 1]. Both players' gradients run through the moves, and both pay `cost` times the mean |z' - z|^2; `through` names
    one of them, or none: another takes the moved latents as given, pays nothing for the way, and has less to compute.
    Sampling takes `sampling_steps` steps, in which every sample moves. D is asked without regularizers' views.
    PyTorch-StudioGAN, whose numbers these are, has steps of 2 and sampling_steps of 10 in its settings, of which its loop
    takes only the first; here all are taken. It sums the squared lengths of steps, moved or not, where this takes the whole
    way.
    """

    shared = False  # D's gradient runs through its fakes, and spends their graph

    def __init__(
        self,
        *,
        alpha: float = 0.9,
        beta: float = 0.1,
        steps: int = 1,
        share: float = 0.8,
        cost: float = 0.1,
        sampling_steps: int = 0,
        through: Through = "both",
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.steps = steps
        self.share = share
        self.cost = cost
        self.sampling_steps = sampling_steps
        self.through: Through = through
        self.bounded = False
        if beta <= 0:
            raise PluginError(f"game 'latent-optimisation' needs a positive 'beta', not {beta}")
        if steps < 1 or sampling_steps < 0:
            raise PluginError(
                f"game 'latent-optimisation' needs 'steps' from 1 and 'sampling_steps' from 0 on, not {steps} and "
                f"{sampling_steps}; for latents as drawn play 'adversarial'"
            )
        if not 0 < share <= 1:
            raise PluginError(f"game 'latent-optimisation' needs a 'share' in (0, 1], not {share}")

    def spec(self, spec: Spec) -> Spec:
        """Note whether latents have bounds."""
        self.bounded = spec.prior == "uniform"
        return spec

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face the batch and what G makes of improved latents under the same conditions."""

        def generate(latents: Tensor, cond: Cond) -> Tensor:
            made: Tensor = nets["G"](latents, **cond)
            return made

        through = self.through in ("both", self.roles[acting])
        better = z
        for _ in range(self.steps):
            some = torch.rand(len(z), 1, device=z.device) < self.share
            better = self._step(nets, better, batch.cond, some, through=through)
        duel = Duel(
            nets["D"],
            batch.real,
            generate(better, batch.cond),
            real_cond=batch.cond,
            fake_cond=batch.cond,
            generate=generate,
            z=better,
            attached=through,
        )
        way = self.cost * (better - z).square().sum(1).mean()
        return Scene([duel], {"way": way} if through else {})

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Cond) -> Tensor:
        """Return what G makes of latents that `sampling_steps` steps have improved."""
        every = torch.ones(len(z), 1, dtype=torch.bool, device=z.device)
        for _ in range(self.sampling_steps):
            z = self._step(nets, z, cond, every, through=False)
        made: Tensor = nets["G"](z, **cond)
        return made

    def _step(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Cond, some: Tensor, *, through: bool) -> Tensor:
        """Return z [N, latent] after one step of some samples, bool [N, 1]; gradients run `through` it, or end here."""
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            output = nets["D"](nets["G"](z, **cond), **cond)
            logits = output.logits if isinstance(output, DiscriminatorOutput) else output
            gradient = input_gradient(logits.float(), z, create_graph=through)
            moved = z + some * self.alpha * gradient / (self.beta + gradient.square().sum(1, keepdim=True))
            moved = moved.clamp(-1, 1) if self.bounded else moved
        return moved if through else moved.detach()
