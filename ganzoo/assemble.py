"""A recipe and the registry become a ready trainer: the only file that knows all the parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import changing
from .api import Dataset, Game, Loss, Spec, with_latent
from .config import parse_number
from .data import Feed
from .device import Device
from .errors import DataError, PluginError, RecipeError, did_you_mean
from .game import TwoPlayer
from .optimizers import build
from .players import Change, Plan, Player, Rule, phases_of
from .recipe import Number, Part, Recipe, Schedule, value_at, values_at
from .registry import Record, Registry
from .seed import seed_of
from .sync_batch_norm import synchronise
from .trainer import Trainer


@dataclass(frozen=True)
class Cast:
    """The game, its networks and what regularizes them, untrained: all that sampling needs of a recipe."""

    game: Game
    nets: Mapping[str, nn.Module]
    spec: Spec  # of the data, and the recipe's latents
    rules: Sequence[Rule] = ()
    changes: Sequence[Change] = ()


def records(recipe: Recipe, registry: Registry) -> list[Record]:
    """Return the plugins that a recipe uses, without importing them."""
    used = [("architecture", recipe.architecture.name), ("loss", recipe.loss.name)]
    used += [("regularizer", part.name) for part in recipe.regularizers]
    used += [("game", recipe.game.name)] if recipe.game else []
    used += [("dataset", recipe.data.name)] if recipe.data.name else [("reader", reader_of(recipe.data.path))]
    return [registry.find(kind, name) for kind, name in used]


def reader_of(path: str) -> str:
    """Return the kind of reader that opens a path: `directory`, or a file's suffix without its dot."""
    place = Path(path).expanduser()
    if place.is_dir():
        return "directory"
    if not place.exists():
        raise DataError(
            f"data {path!r} does not exist; give the path of a folder or zip of images, or the name of a dataset"
        )
    return place.suffix.lstrip(".").lower() or "file"


def dataset(recipe: Recipe, registry: Registry, **options: Any) -> Dataset:
    """Open the recipe's data; options given here (such as split="test") win over the recipe's."""
    if recipe.data.name:
        kind, name, more = "dataset", recipe.data.name, {}
    else:
        kind, name, more = "reader", reader_of(recipe.data.path), {"path": recipe.data.path}
    data: Dataset = registry.build(kind, name, {**recipe.data.options, **more, **options})
    return data


def cast(recipe: Recipe, registry: Registry, spec: Spec) -> Cast:
    """Build the game, its networks and their regularizers for data of this spec, from the recipe's seed."""
    torch.manual_seed(seed_of(recipe.train.seed, "networks"))
    spec = with_latent(spec, recipe.latent.size, recipe.latent.prior)
    changes: list[Change] = []
    game: Game = TwoPlayer()
    if recipe.game:
        game, changes = changing.build(recipe.name, registry, "game", recipe.game)
    rules = _rules(recipe, registry, game, changes)
    nets = {}
    for network in sorted(game.roles):
        own = game.spec(spec)
        for rule in rules:
            own = rule.regularizer.shown(own) if rule.discriminator == network else own
        nets[network] = _network(recipe.architecture, registry, game, network, own)
    for rule in rules:
        _prepare(rule, game, nets)
    return Cast(game, nets, spec, rules, changes)


def _network(part: Part, registry: Registry, game: Game, network: str, spec: Spec) -> nn.Module:
    """Ask the architecture for one network, with the options that the recipe gives for it alone."""
    shared = {key: value for key, value in part.options.items() if not (key in game.roles and isinstance(value, Mapping))}
    own = part.options.get(network, {})
    architecture = registry.build("architecture", part.name, {**shared, **(own if isinstance(own, Mapping) else {})})
    role = game.roles[network]
    method = getattr(architecture, role, None)
    if method is None:
        raise PluginError(
            f"architecture {part.name!r} offers no {role!r}, which the game needs for network {network!r}; choose another"
        )
    net = method(spec)
    if not isinstance(net, nn.Module):
        raise PluginError(f"architecture {part.name!r}: {role!r} must return a network, not {type(net).__name__}")
    return net


def _rules(recipe: Recipe, registry: Registry, game: Game, changes: list[Change]) -> list[Rule]:
    """Build the regularizers, one instance for each discriminator; note what is to change of them."""
    rules = []
    for part in recipe.regularizers:
        for number, discriminator in enumerate(sorted(game.discriminators)):
            regularizer, its = changing.build(recipe.name, registry, "regularizer", part)
            changes += its
            rules.append(Rule(part.name, discriminator, regularizer, part.weight, part.every, leads=number == 0))
    return rules


def _prepare(rule: Rule, game: Game, nets: Mapping[str, nn.Module]) -> None:
    """Let a regularizer change the networks of its side."""
    if rule.concerns("discriminator"):
        rule.regularizer.prepare(nets[rule.discriminator])
    if rule.concerns("generator") and rule.leads:  # one instance leads: it changes generators
        for network in sorted(nets.keys() - game.discriminators):
            rule.regularizer.prepare(nets[network])


def trainer(
    recipe: Recipe,
    registry: Registry,
    device: Device,
    data: Dataset | None = None,
    begin: Callable[[Mapping[str, nn.Module]], None] | None = None,
) -> Trainer:
    """Return everything that a recipe describes, on its device, ready to play; `begin` may give the networks weights."""
    torch.manual_seed(seed_of(recipe.train.seed, "parts"))  # plugins may own parameters
    data = dataset(recipe, registry) if data is None else data
    parts = cast(recipe, registry, data.spec)
    if begin is not None:
        begin(parts.nets)
    losses: dict[str, Loss] = {}
    changes = [*parts.changes]
    for name in sorted(parts.game.discriminators):
        losses[name], its = changing.build(recipe.name, registry, "loss", recipe.loss)
        changes += its
    if recipe.train.sync_batch_norm and device.world.size > 1:
        parts = replace(parts, nets={name: synchronise(net, device.world) for name, net in parts.nets.items()})
    feed = Feed(data, device, recipe.train.seed, recipe.train.workers)
    parts.game.prepare(parts.nets, lambda count: feed.batch(0, count))
    for module in (*parts.nets.values(), *losses.values(), *(rule.regularizer for rule in parts.rules), parts.game):
        device.place(module)
    players = {name: _player(name, recipe, parts, device.records) for name in parts.game.teams}
    return Trainer(
        game=parts.game,
        nets=parts.nets,
        players=players,
        losses=losses,
        rules=parts.rules,
        feed=feed,
        device=device,
        plan=plan(recipe, parts.game, device.world.size),
        changes=changes,
    )


def plan(recipe: Recipe, game: Game, processes: int = 1) -> Plan:
    """Return the loop's numbers; RecipeError for a turn of nobody, or a batch that the processes cannot share equally."""
    turns = recipe.train.turns or game.turns()
    for name in (*turns, *(name for stage in recipe.stages for name in stage.turns or ())):
        if name not in game.teams:
            raise RecipeError(
                f"recipe {recipe.name!r}: {name!r} in turns is no player of the game{did_you_mean(name, game.teams)} "
                f"(players: {', '.join(sorted(game.teams))})"
            )
    train, total = recipe.train, recipe.train.samples
    for batch in (train.batch, *(stage.batch or train.batch for stage in recipe.stages)):
        if batch % (processes * train.accumulate):
            pieces = f" in {train.accumulate} pieces each" if train.accumulate > 1 else ""
            raise RecipeError(
                f"recipe {recipe.name!r}: {processes} processes cannot share a batch of {batch} equally{pieces}; "
                "launch another number of them, or set train.batch"
            )
    return Plan(
        samples=total,
        batch=train.batch,
        turns=turns,
        stages=recipe.stages,
        latent=recipe.latent.size,
        prior=recipe.latent.prior,
        ema=train.ema,
        accumulate=train.accumulate,
        micro_batches=_micro_batches(recipe),
        seed=train.seed,
        log=train.log or max(total // 100, 1),
        grid=train.grid or max(total // 10, 1),
        checkpoint=train.checkpoint or max(total // 20, 1),
    )


def _micro_batches(recipe: Recipe) -> tuple[int, ...]:
    """Return how many samples are computed at once in each stage, where the recipe has a number for it."""
    most = recipe.train.micro_batch
    return (most,) * max(len(recipe.stages), 1) if isinstance(most, int) and most else ()


def _player(name: str, recipe: Recipe, parts: Cast, recorded: bool) -> Player:
    """Build one player: its networks, the parameters of its regularizers, its optimizer and its phases."""
    game = parts.game
    owned = {network: parts.nets[network] for network in game.teams[name]}
    side = game.side(name)
    parameters = [parameter for net in owned.values() for parameter in net.parameters() if parameter.requires_grad]
    parameters += [p for rule in parts.rules if rule.discriminator in owned for p in rule.regularizer.parameters()]
    if not parameters:
        raise PluginError(f"player {name!r} has nothing to train; its networks have no parameters that require a gradient")
    options = {key: value for key, value in recipe.optimizer.options.items() if key not in game.teams}
    own = recipe.optimizer.options.get(name, {})
    if not isinstance(own, Mapping):
        raise RecipeError(f"recipe {recipe.name!r}: optimizer.{name} is {own!r} and no table; write [optimizer.{name}]")
    options |= own
    kind = str(options.pop("name", recipe.optimizer.name))
    lr = _rate(recipe, options.pop("lr", None), name)
    options = changing.settings(recipe.name, "optimizer", options)
    paces = changing.paces(options)
    if paces or isinstance(lr, Schedule):  # the last values must do too, and torch knows which do
        build(kind, values_at(options, 1.0), [nn.Parameter(torch.zeros(1))], value_at(lr, 1.0))
    return Player(
        name,
        side,
        owned,
        build(kind, values_at(options, 0.0), parameters, value_at(lr, 0.0), recorded=recorded),
        lr,
        phases_of(_heard(parts.rules, game, name), side),
        paces,
    )


def _heard(rule_list: Sequence[Rule], game: Game, name: str) -> list[Rule]:
    """Return the rules that a player may have to do with: a discriminator only with its own."""
    owned = game.teams[name]
    return [rule for rule in rule_list if game.side(name) == "generator" or rule.discriminator in owned]


def _rate(recipe: Recipe, value: Any, player: str) -> Number:
    if value is None:
        raise RecipeError(f"recipe {recipe.name!r}: [optimizer] gives player {player!r} no lr; write lr = ...")
    return parse_number(recipe.name, value, "optimizer.lr")
