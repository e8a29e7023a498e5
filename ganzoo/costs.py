"""What the acting player pays for a phase's duels, as one function from samples to a scalar: also what is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .api import Loss, Regularizer, Side
from .game import Cond, Duel, Generate, View
from .players import Phase, Player

Terms = list[tuple[str, Tensor]]


class Shown(NamedTuple):
    """A duel as plain data: what a phase's cost is a function of."""

    name: str  # the discriminator's
    discriminator: nn.Module
    real: Tensor
    fake: Tensor
    real_cond: Cond
    fake_cond: Cond
    generate: Generate | None
    z: Tensor | None
    acting: Side
    views: tuple[View, ...]

    @classmethod
    def of(cls, name: str, duel: Duel, acting: Side, regularizers: Sequence[Regularizer]) -> Shown:
        """Take a duel as the acting side meets it: a discriminator with detached fakes, some of them passed off as real."""
        real, real_cond, fake = duel.real, duel.real_cond, duel.fake
        if acting == "discriminator":
            fake = fake if duel.attached else fake.detach()
            for regularizer in regularizers:
                if (chosen := regularizer.passed_off(duel)) is not None:
                    real = _either(chosen, fake.detach(), real)
                    real_cond = {key: _either(chosen, duel.fake_cond[key], value) for key, value in real_cond.items()}
        return cls(
            name, duel.discriminator, real, fake, real_cond, duel.fake_cond, duel.generate, duel.z, acting,
            tuple(regularizer.view for regularizer in regularizers),
        )  # fmt: skip

    def duel(self) -> Duel:
        """Return the duel with nothing computed yet."""
        return Duel(
            self.discriminator,
            self.real,
            self.fake,
            real_cond=self.real_cond,
            fake_cond=self.fake_cond,
            generate=self.generate,
            z=self.z,
            acting=self.acting,
            views=self.views,
        )


class Bill(NamedTuple):
    """What a phase costs the acting player: the sum of what leads to its parameters, the terms of it, and D's logits."""

    paid: list[Tensor]  # weighted scalars
    terms: Terms  # as they are logged
    logits: list[tuple[Tensor, Tensor]]  # of each duel, real and fake; in a discriminator's main phase


def bill(
    player: Player, phase: Phase, losses: Mapping[str, Loss], weights: Sequence[float | Tensor], shown: Sequence[Shown]
) -> Bill:
    """Let losses and penalties see the duels; penalties come first, so that the loss reuses their forward pass.

    `weights` are those of the phase's rules, its gain included.
    """
    made = Bill([], [], [])
    for one in shown:
        duel = one.duel()
        for rule, weight in zip(phase.rules, weights, strict=True):
            penalty = rule.regularizer.penalty(duel) if rule.discriminator == one.name else None
            if penalty is not None:
                made.terms.append((f"{player.name}/{rule.name}", penalty.detach()))
                made.paid.append(weight * penalty)
        if phase.main:
            wanted = _want(player.side, losses[one.name], duel)
            made.terms.append((f"{player.name}/loss", wanted.detach()))
            made.paid.append(wanted)
            if player.side == "discriminator":
                made.logits.append((duel.output("real").logits.detach(), duel.output("fake").logits.detach()))
    return made


def _either(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return the chosen [N] rows of one and the rest of another."""
    return torch.where(chosen.view(-1, *[1] * (other.dim() - 1)), one, other)


def _want(side: Side, loss: Loss, duel: Duel) -> Tensor:
    """Return the acting side's loss on a duel's logits."""
    if side == "discriminator":
        return loss.discriminator(duel.output("real").logits, duel.output("fake").logits)
    return loss.generator(duel.output("fake").logits, duel.output("real").logits if loss.relativistic else None)


def total(paid: Sequence[Tensor]) -> Tensor | None:
    """Return the sum of what leads to a parameter, or None where nothing does."""
    leading = [term.float() for term in paid if term.requires_grad]
    return torch.stack(leading).sum() if leading else None
