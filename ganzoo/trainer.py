"""The loop: rounds of turns, turns of phases, one backward and one step each. It knows players and duels, and no task.

`Trainer.fit` and `Trainer.round` are the whole of it, from top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from .api import Batch, Game, Loss, Progress, Regularizer, Side, Staged
from .data import Feed
from .device import Device
from .ema import Average
from .errors import PluginError, RunFailed
from .game import Duel, Scene
from .recipe import Number, Stage, value_at
from .seed import latents, seed_of


@dataclass(frozen=True)
class Rule:
    """A regularizer as one discriminator meets it, with what the engine owns: how much it weighs, and when it acts."""

    name: str
    discriminator: str
    regularizer: Regularizer
    weight: Number = 1.0
    every: int = 1
    leads: bool = True  # of its name's instances, is this the one that changes generators?

    def concerns(self, side: Side) -> bool:
        """Does it act in turns of this side?"""
        return self.regularizer.side in (side, "both")


@dataclass(frozen=True)
class Phase:
    """One backward and one step inside a turn: the main phase, or that of one lazy regularizer."""

    rules: tuple[Rule, ...]
    main: bool = True
    every: int = 1


@dataclass
class Player:
    """The networks that one optimizer trains."""

    name: str
    side: Side
    nets: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    lr: Number
    phases: tuple[Phase, ...]
    turns: int = 0  # taken so far: lazy phases count them
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [entry for group in self.optimizer.param_groups for entry in group["params"]]


def phases_of(rules: Sequence[Rule], side: Side) -> tuple[Phase, ...]:
    """Return a turn's phases: the main one with all regularizers of every turn, then one for each lazy regularizer."""
    mine = [rule for rule in rules if rule.concerns(side)]
    lazy = {rule.name: rule.every for rule in mine if rule.every > 1}
    main = Phase(tuple(rule for rule in mine if rule.every == 1))
    return (main, *(Phase(tuple(r for r in mine if r.name == name), False, every) for name, every in lazy.items()))


@dataclass(frozen=True)
class Plan:
    """The numbers of a recipe that the loop itself needs."""

    samples: int
    batch: int
    turns: tuple[str, ...]
    stages: tuple[Stage, ...] = ()
    latent: int = 128
    prior: str = "normal"
    ema: Number = 0.999
    accumulate: int = 1
    seed: int = 0
    log: int = 1000
    grid: int = 10_000
    checkpoint: int = 10_000

    @property
    def total(self) -> int:
        """Real samples of the whole run."""
        return sum(stage.samples for stage in self.stages) or self.samples

    def at(self, samples: int, rounds: int) -> tuple[Progress, int, tuple[str, ...]]:
        """Return progress, batch and turns of the round that starts after so many samples."""
        start = 0
        for number, stage in enumerate(self.stages):
            if samples < start + stage.samples or number == len(self.stages) - 1:
                share = min((samples - start) / stage.samples, 1.0)
                progress = Progress(samples, self.total, rounds, number, share, stage.size)
                return progress, stage.batch or self.batch, stage.turns or self.turns
            start += stage.samples
        share = min(samples / self.samples, 1.0)
        return Progress(samples, self.total, rounds, 0, share, None), self.batch, self.turns


@dataclass(frozen=True)
class Report:
    """What a stretch of rounds looked like: the mean of every term."""

    progress: Progress
    terms: Mapping[str, float]


class Watcher(Protocol):
    """Who the trainer tells what happens; a run writes it down, a test may ignore it."""

    def report(self, report: Report) -> None:
        """Take the means of a stretch of rounds."""

    def grid(self, trainer: Trainer) -> None:
        """Draw samples."""

    def checkpoint(self, trainer: Trainer) -> None:
        """Save the state, which is finite as far as the losses tell."""

    def stop(self) -> bool:
        """Should the training end after this round?"""
        return False


class Trainer:
    """Players, what they want, and the loop that lets them play."""

    def __init__(
        self,
        *,
        game: Game,
        nets: Mapping[str, nn.Module],
        players: Mapping[str, Player],
        losses: Mapping[str, Loss],
        rules: Sequence[Rule],
        feed: Feed,
        device: Device,
        plan: Plan,
    ) -> None:
        self.game, self.nets, self.players, self.losses, self.rules = game, nets, players, losses, tuple(rules)
        self.feed, self.device, self.plan = feed, device, plan
        self.averages = {name: Average(net) for name, net in nets.items() if name not in game.discriminators}
        self.samples = 0
        self._share = 0.0  # of the run, at the start of the round: what schedules follow
        self.rounds = 0
        self._names = {id(net): name for name, net in nets.items()}
        self._terms: list[tuple[str, Tensor]] = []
        modules = [module for root in self.modules().values() for module in root.modules()]
        self._staged = [module for module in modules if isinstance(module, Staged)]
        self._buffers = [b for net in nets.values() for b in net.buffers() if b.is_floating_point()]
        self.span: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()  # who wants to time the parts

    def modules(self) -> dict[str, nn.Module]:
        """Return everything that has state besides the optimizers, under the names that checkpoints use."""
        return {
            **{f"net/{name}": net for name, net in self.nets.items()},
            **{f"ema/{name}": average.net for name, average in self.averages.items()},
            **{f"loss/{name}": loss for name, loss in self.losses.items()},
            **{f"regularizer/{rule.name}/{rule.discriminator}": rule.regularizer for rule in self.rules},
            "game": self.game,
        }

    @property
    def progress(self) -> Progress:
        """Where the training stands."""
        return self.plan.at(self.samples, self.rounds)[0]

    def announce(self) -> Progress:
        """Tell everything that changes with time where the training stands."""
        progress = self.progress
        for module in self._staged:
            module.on_progress(progress)
        return progress

    def fit(self, watcher: Watcher) -> None:
        """Play until all samples are seen or the watcher says stop; RunFailed at the first term that is not finite."""
        plan, first = self.plan, True
        with torch.random.fork_rng(devices=None if self.device.device.type == "cuda" else []):
            while self.samples < plan.total and not watcher.stop():
                before = self.samples
                self.round()
                over = self.samples >= plan.total
                saving = over or _due(plan.checkpoint, before, self.samples)
                if first or saving or _due(plan.log, before, self.samples):
                    watcher.report(self.report())
                if over or _due(plan.grid, before, self.samples):
                    watcher.grid(self)
                if saving:
                    watcher.checkpoint(self)
                first = False

    def round(self) -> None:
        """Let every turn of one round be played; all of its randomness follows from the seed and the round's number."""
        world = self.device.world
        torch.manual_seed(seed_of(self.plan.seed, "round", self.rounds, *([] if world.leads else [world.rank])))
        progress, size, turns = self.plan.at(self.samples, self.rounds)
        self._share = progress.share
        self.announce()
        kept: list[Scene] = []
        batch, z = Batch(torch.empty(0)), torch.empty(0)
        for number, name in enumerate(turns):
            player = self.players[name]
            answers = number > 0 and player.side == "generator" and self.players[turns[number - 1]].side == "discriminator"
            if not answers:  # a generator's turn after a discriminator's is about the same samples and latents
                with self.span("data"):
                    own = size // world.size
                    batch = self.feed.batch(self.samples + world.rank * own, own, progress.size)
                    z = self._latents(size, number)
                self.samples += size
            answered = number + 1 < len(turns) and self.players[turns[number + 1]].side == "generator"
            keep = self.game.shared and answered and player.side == "discriminator" and self.plan.accumulate == 1
            kept = self._turn(player, batch, z, kept if answers else [], self.players[turns[number + 1]] if keep else None)
        self.rounds += 1
        progress = self.progress
        with self.span("after"):
            world.average(self._buffers)
            self.game.after_round(self.nets, progress)
            decay = value_at(self.plan.ema, progress.share)
            for average in self.averages.values():
                average.update(decay, self.rounds)

    def _turn(self, player: Player, batch: Batch, z: Tensor, kept: list[Scene], following: Player | None) -> list[Scene]:
        """Play a player's phases; return the scenes that the following player may answer, with their graphs."""
        for group in player.optimizer.param_groups:
            group["lr"] = value_at(player.lr, self._share)
        scenes = kept
        for phase in player.phases:
            if player.turns % phase.every:
                continue
            if player.side == "generator" and not phase.main:
                scenes = []  # the graph is spent and the networks have moved
            with self.span(player.name if phase.main else f"{player.name}/{phase.rules[0].name}"):
                scenes = self._phase(player, phase, batch, z, scenes, following)
        player.turns += 1
        return scenes if following is not None else []

    def _phase(
        self, player: Player, phase: Phase, batch: Batch, z: Tensor, scenes: list[Scene], following: Player | None
    ) -> list[Scene]:
        """Accumulate the gradients of one phase over the batch's pieces, and step."""
        player.optimizer.zero_grad(set_to_none=True)
        pieces, played, logits = self.plan.accumulate, [], []
        for number, (part, part_z) in enumerate(_pieces(batch, z, pieces)):
            with self.device.training():
                if number < len(scenes):
                    scene = scenes[number]
                else:
                    self._unfreeze(player, following)
                    scene = self.game.play(self.nets, part, part_z, (following or player).name)
                self._unfreeze(player)
                duels = self._duels(player, scene)
                cost = self._cost(player, phase, scene, duels)
            if cost is not None:
                torch.autograd.backward(cost / pieces)
            elif phase.main:
                raise PluginError(f"the game gives player {player.name!r} nothing to pay in its turn; give it a duel")
            if player.side == "discriminator":
                played.append(scene)
                if phase.main:
                    logits.append(
                        [(duel.output("real").logits.detach(), duel.output("fake").logits.detach()) for duel in duels]
                    )
        self._agree(player)
        player.optimizer.step()
        self._after_step(player)
        if phase.main and player.side == "discriminator":
            self._observe(player, played[0], logits)
        return played

    def _agree(self, player: Player) -> None:
        """Average the gradients over the processes of a launch; one that is not finite moves nobody, and a term tells."""
        mean = self.device.world.average([entry.grad for entry in player.parameters if entry.grad is not None])
        if mean is not None:
            self._log(f"{player.name}/gradient", mean.norm())

    def _duels(self, player: Player, scene: Scene) -> list[Duel]:
        """Return the scene's duels as the acting player meets them: a discriminator only its own, and fakes detached."""
        mine = [duel for duel in scene.duels if player.side == "generator" or self.name(duel) in player.nets]
        views = {name: [r.regularizer.view for r in self.rules if r.discriminator == name] for name in self.losses}
        return [duel.turn(player.side, views[self.name(duel)]) for duel in mine]

    def name(self, duel: Duel) -> str:
        """Return which network a duel's discriminator is."""
        return self._names[id(duel.discriminator)]

    def _cost(self, player: Player, phase: Phase, scene: Scene, duels: Sequence[Duel]) -> Tensor | None:
        """Return what the acting player pays in this phase; penalties come first, so that the loss reuses their forward."""
        paid: list[Tensor] = []
        for duel in duels:
            name = self.name(duel)
            for rule in phase.rules:
                penalty = rule.regularizer.penalty(duel) if rule.discriminator == name else None
                if penalty is not None:
                    self._log(f"{player.name}/{rule.name}", penalty)
                    paid.append(value_at(rule.weight, self._share) * phase.every * penalty)
            if phase.main:
                paid.append(self._want(player, self.losses[name], duel))
        if phase.main and player.side == "generator":
            for term, extra in scene.extra_losses.items():
                self._log(f"{player.name}/{term}", extra)
                paid.append(extra)
        paid = [term for term in paid if term.requires_grad]
        return torch.stack([term.float() for term in paid]).sum() if paid else None

    def _want(self, player: Player, loss: Loss, duel: Duel) -> Tensor:
        """Return the acting side's loss on a duel's logits."""
        if player.side == "discriminator":
            wanted = loss.discriminator(duel.output("real").logits, duel.output("fake").logits)
        else:
            real = duel.output("real").logits if loss.relativistic else None
            wanted = loss.generator(duel.output("fake").logits, real)
        self._log(f"{player.name}/loss", wanted)
        return wanted

    def _observe(self, player: Player, scene: Scene, logits: list[list[tuple[Tensor, Tensor]]]) -> None:
        """Show the whole batch's logits to what keeps statistics of them."""
        names = [self.name(duel) for duel in scene.duels if self.name(duel) in player.nets]
        for position, name in enumerate(names):
            real, fake = (
                self.device.world.gather(torch.cat([piece[position][side] for piece in logits])) for side in (0, 1)
            )
            self._log(f"{player.name}/real", real.mean())
            self._log(f"{player.name}/fake", fake.mean())
            self.losses[name].observe(real, fake)
            for rule in self.rules:
                if rule.discriminator == name:
                    rule.regularizer.observe(real, fake)

    def _after_step(self, player: Player) -> None:
        for rule in self.rules:
            if rule.concerns(player.side):
                owned = [rule.discriminator] if player.side == "discriminator" else list(player.nets) * rule.leads
                nets = [player.nets[name] for name in owned if name in player.nets]
                if nets:
                    rule.regularizer.after_step(nets)

    def _unfreeze(self, *players: Player | None) -> None:
        """Only the acting player's parameters require grad, and while a scene is played also the following player's."""
        acting = {id(parameter) for player in players if player is not None for parameter in player.parameters}
        for player in self.players.values():
            for parameter in player.parameters:
                parameter.requires_grad_(id(parameter) in acting)

    def _latents(self, count: int, turn: int) -> Tensor:
        z = latents(count, self.plan.latent, self.plan.prior, self.plan.seed, "z", self.rounds, turn)
        return self.device.world.share(z).to(self.device.device)

    def _log(self, term: str, value: Tensor) -> None:
        self._terms.append((term, value.detach()))

    def _read(self, terms: Sequence[Tensor]) -> list[float]:
        """Wait for the terms; each is the mean over the processes of a launch."""
        if not terms:
            return []
        world = self.device.world
        read: list[float] = (world.sum(torch.stack([term.float() for term in terms])) / world.size).tolist()
        return read

    def report(self) -> Report:
        """Return the means since the last report; RunFailed names the first term that was not finite."""
        terms, self._terms = self._terms, []
        values = self._read([value for _, value in terms])
        sums: dict[str, list[float]] = {}
        for (term, _), value in zip(terms, values, strict=True):
            if not math.isfinite(value):
                raise RunFailed(
                    f"term {term!r} became {value} at about {self.samples:,} samples, before any other; "
                    "lower the learning rate, raise the penalty or use --set train.precision=fp32"
                )
            sums.setdefault(term, []).append(value)
        return Report(self.progress, {term: sum(entries) / len(entries) for term, entries in sums.items()})


def _due(every: int, before: int, now: int) -> bool:
    return before // every != now // every


def _pieces(batch: Batch, z: Tensor, count: int) -> Iterator[tuple[Batch, Tensor]]:
    size = len(batch) // count
    for start in range(0, size * count, size):
        yield batch.part(start, start + size), z[start : start + size]
