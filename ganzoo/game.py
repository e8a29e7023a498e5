"""What a game is made of: duels, scenes, input gradients, and the base of every game of two players."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from .api import Batch, DiscriminatorOutput, Game, Side
from .convolutions import cheap_double_backward, gradients_of_inputs_only

__all__ = ["Duel", "Scene", "TwoPlayer", "input_gradient"]

View = Callable[[Tensor], Tensor]
Cond = Mapping[str, Tensor]
Generate = Callable[[Tensor, Cond], Tensor]


def input_gradient(logits: Tensor, x: Tensor, *, create_graph: bool = True) -> Tensor:
    """Return the gradient of each sample's summed logits with respect to that sample, [N, features].

    One backward serves the whole batch, which is right where the discriminator does not mix samples. The gradient is
    differentiable, unless it is needed as a number alone: `create_graph` is autograd's.
    """
    with gradients_of_inputs_only():
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=create_graph)
    return gradient.flatten(1)


class Duel:
    """One discriminator facing one batch of real and fake; outputs and input gradients are computed once, on first use.

    `generate` and `z` are there for penalties that need other fakes than the ones shown (path length, consistency).
    `attached`: the fakes depend on the discriminator (its gradient chose their latents), so in its own turn its gradient
    runs through them too; a game of such duels cannot be `shared`.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        real: Tensor,
        fake: Tensor,
        *,
        real_cond: Cond | None = None,
        fake_cond: Cond | None = None,
        generate: Generate | None = None,
        z: Tensor | None = None,
        acting: Side = "discriminator",
        views: Sequence[View] = (),
        attached: bool = False,
    ) -> None:
        self.discriminator = discriminator
        self.real = real
        self.fake = fake.to(real.dtype)  # under autocast a generator ends in half precision: cast at the border, once
        self.real_cond: Cond = real_cond or {}
        self.fake_cond: Cond = self.real_cond if fake_cond is None else fake_cond
        self.generate = generate
        self.z = z
        self.acting: Side = acting
        self.views = tuple(views)
        self.attached = attached
        self._outputs: dict[str, DiscriminatorOutput] = {}
        self._gradients: dict[str, Tensor] = {}

    def judge(self, x: Tensor, cond: Cond) -> DiscriminatorOutput:
        """Show samples to the discriminator; the views are applied here and nowhere else. Logits come as float32."""
        for view in self.views:
            x = view(x)
        output = self.discriminator(x, **cond)
        if not isinstance(output, DiscriminatorOutput):
            output = DiscriminatorOutput(output)
        return output._replace(logits=output.logits.float())

    def output(self, side: Literal["real", "fake"]) -> DiscriminatorOutput:
        """Return the discriminator's output on the real or the fake samples."""
        if side not in self._outputs:
            self._outputs[side] = self.judge(*self._shown(side))
        return self._outputs[side]

    def input_gradient(self, side: Literal["real", "fake"]) -> Tensor:
        """Return d logits / d sample at the real or fake samples, [N, features]; its forward pass serves the loss too."""
        if side not in self._gradients:
            x, cond = self._shown(side)
            self._gradients[side], self._outputs[side] = self._differentiated(x, cond)
        return self._gradients[side]

    def input_gradient_at(self, x: Tensor) -> Tensor:
        """Return d logits / d sample at any other points x [N, *shape] under the real samples' conditions."""
        return self._differentiated(x.detach(), self.real_cond)[0]

    def _differentiated(self, x: Tensor, cond: Cond) -> tuple[Tensor, DiscriminatorOutput]:
        """Return d logits / d sample [N, features], and the output of the forward pass that it took."""
        if torch.compiler.is_compiling():  # a compiled network has no double backward, its gradient as a function has one
            gradient, fields = torch.func.grad(lambda x: self._summed(x, cond), has_aux=True)(x)
            return gradient.flatten(1), DiscriminatorOutput(**fields)
        x = x if x.requires_grad else x.detach().requires_grad_()
        with cheap_double_backward():
            output = self.judge(x, cond)
        return input_gradient(output.logits, x), output

    def _summed(self, x: Tensor, cond: Cond) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.judge(x, cond)
        return output.logits.sum(), {key: value for key, value in output._asdict().items() if value is not None}

    def _shown(self, side: Literal["real", "fake"]) -> tuple[Tensor, Cond]:
        return (self.real, self.real_cond) if side == "real" else (self.fake, self.fake_cond)


@dataclass(slots=True)
class Scene:
    """What one turn is about: the duels, and whatever else the acting player pays, already weighted by the game.

    A discriminator pays an extra loss where the scene was played for its own turn, and the term leads to its parameters.
    """

    duels: list[Duel] = field(default_factory=list)
    extra_losses: dict[str, Tensor] = field(default_factory=dict)  # cycle, identity, L1, mutual information, ...


class TwoPlayer(Game):
    """One generator against one discriminator, conditional through whatever the data carries in `cond`."""

    roles: Mapping[str, str] = {"G": "generator", "D": "discriminator"}
    teams: Mapping[str, tuple[str, ...]] = {"D": ("D",), "G": ("G",)}
    shared = True

    def fakes(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Cond) -> Tensor:
        """Return what D is shown of latents: by default the samples themselves."""
        return self.sample(nets, z, cond)

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face the batch and what G makes of z under the same conditions."""

        def generate(latents: Tensor, cond: Cond) -> Tensor:
            return self.fakes(nets, latents, cond)

        duel = Duel(
            nets["D"],
            batch.real,
            generate(z, batch.cond),
            real_cond=batch.cond,
            fake_cond=batch.cond,
            generate=generate,
            z=z,
        )
        return Scene([duel])
