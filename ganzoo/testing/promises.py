"""What every kind of plugin promises: each function here checks one promise, and its docstring says which."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..api import Dataset, DiscriminatorOutput, Loss, Spec
from ..errors import PluginError
from ..game import Duel
from ..options import MISSING, options_of
from ..trainer import Trainer
from .tiny import Factory, Onlooker, TinyDiscriminator, tiny_data, tiny_trainer

GUIDE = "docs/writing-plugins.md"
COUNT = 4


class ContractError(AssertionError):
    """A broken promise: what was expected, what was found, and where to read more."""

    def __init__(self, expected: str, found: str, chapter: str) -> None:
        super().__init__(f"expected {expected}; found {found} (see {GUIDE}, {chapter})")


def require(holds: bool, expected: str, found: str, chapter: str) -> None:
    """Raise ContractError unless the promise holds."""
    if not holds:
        raise ContractError(expected, found, chapter)


# every kind -----------------------------------------------------------------------------------------------------------


def documented(plugin: Factory) -> None:
    """Its docstring says in one sentence what it is for, and names its source."""
    text = inspect.getdoc(plugin) or ""
    require(
        len(text.split("\n")[0]) > 10, "a docstring whose first line says what it is for", repr(text[:40]), "Documentation"
    )
    source = re.search(r"arXiv:\d{4}\.\d{4,5}|doi:|\(\D*\d{4}\b|https?://", text)
    require(
        source is not None, "a source in the docstring: arXiv id, doi, (Author YEAR) or address", "none", "Documentation"
    )


def options_are_typed(plugin: Factory) -> None:
    """Every option is keyword-only, annotated and kept under its own name."""
    options = options_of(plugin)
    for option in options.values():
        require(
            option.annotation is not inspect.Parameter.empty, f"an annotation of option {option.name!r}", "none", "Options"
        )
    if inspect.isclass(plugin) and all(option.default is not MISSING for option in options.values()):
        built = plugin()
        for option in options.values():
            require(
                hasattr(built, option.name), f"option {option.name!r} kept as an attribute", "no such attribute", "Options"
            )


# architectures --------------------------------------------------------------------------------------------------------


def specs(plugin: Factory) -> Iterator[Spec]:
    """Yield the specs of 16 to 64 pixels, grey and colour, with and without classes, that an architecture accepts."""
    for size in (16, 32, 64):
        for channels in (1, 3):
            for classes in (0, 3):
                spec = Spec(shape=(channels, size, size), classes=classes, latent=16)
                try:
                    plugin().discriminator(spec)
                except PluginError:
                    continue  # it says that it cannot: that is a claim not made
                yield spec


def _pair(plugin: Factory, spec: Spec) -> tuple[nn.Module, nn.Module, Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    cond = {"label": torch.arange(COUNT) % spec.classes} if spec.classes else {}
    return plugin().generator(spec), plugin().discriminator(spec), torch.randn(COUNT, spec.latent), cond


def _logits(output: Any) -> Tensor:
    logits = output.logits if isinstance(output, DiscriminatorOutput) else output
    require(isinstance(logits, Tensor), "logits as a tensor", type(logits).__name__, "An architecture")
    return logits


def builds_somewhere(plugin: Factory) -> None:
    """It builds for at least one size of 16, 32 or 64 pixels."""
    require(any(True for _ in specs(plugin)), "networks for 16, 32 or 64 pixels", "PluginError for all", "An architecture")


def samples_fit_the_spec(plugin: Factory) -> None:
    """The generator's samples have the spec's shape, are finite and lie in [-1, 1]."""
    for spec in specs(plugin):
        G, _, z, cond = _pair(plugin, spec)
        x = G(z, **cond)
        require(x.shape == (COUNT, *spec.shape), f"samples {(COUNT, *spec.shape)}", str(tuple(x.shape)), "An architecture")
        require(bool(x.abs().max() <= 1), "samples in [-1, 1]", f"{x.abs().max():.3g} at {spec}", "An architecture")


def logits_are_one_row_a_sample(plugin: Factory) -> None:
    """The discriminator gives finite logits [N] or [N, K]."""
    for spec in specs(plugin):
        _, D, _, cond = _pair(plugin, spec)
        logits = _logits(D(torch.rand(COUNT, *spec.shape) * 2 - 1, **cond))
        fits = logits.ndim in (1, 2) and len(logits) == COUNT and bool(torch.isfinite(logits).all())
        require(fits, f"finite logits [{COUNT}] or [{COUNT}, K]", str(tuple(logits.shape)), "An architecture")


def gradients_reach_everything(plugin: Factory) -> None:
    """A loss on the logits moves every parameter of both networks."""
    for spec in specs(plugin):
        G, D, z, cond = _pair(plugin, spec)
        _logits(D(G(z, **cond), **cond)).square().sum().backward()  # type: ignore[no-untyped-call]
        for network, net in (("generator", G), ("discriminator", D)):
            lost = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
            require(not lost, f"a gradient for every parameter of the {network}", f"none for {lost}", "An architecture")


def discriminator_is_differentiable_twice(plugin: Factory) -> None:
    """Gradient penalties work: the input gradient has finite gradients itself."""
    for spec in specs(plugin):
        _, D, _, cond = _pair(plugin, spec)
        duel = Duel(D, torch.rand(COUNT, *spec.shape), torch.rand(COUNT, *spec.shape), real_cond=cond)
        duel.input_gradient("real").square().sum().backward()  # type: ignore[no-untyped-call]
        found = [p.grad for p in D.parameters() if p.grad is not None]
        finite = bool(found) and all(bool(torch.isfinite(gradient).all()) for gradient in found)
        require(finite, "finite gradients of the input gradient", "none or not finite", "An architecture")


def one_sample_works(plugin: Factory) -> None:
    """In eval mode a single sample gives what it gives in a batch."""
    for spec in specs(plugin):
        G, _, z, cond = _pair(plugin, spec)
        G.eval()
        one = G(z[:1], **{key: value[:1] for key, value in cond.items()})
        close = torch.allclose(one, G(z, **cond)[:1], atol=1e-5)
        require(close, "sample 0 alone as in a batch of four", "another sample", "An architecture")


def state_round_trip(plugin: Factory) -> None:
    """Networks built anew and given the state_dict of others compute the same."""
    spec = next(specs(plugin))
    G, D, z, cond = _pair(plugin, spec)
    torch.manual_seed(1)
    again, other = plugin().generator(spec), plugin().discriminator(spec)
    again.load_state_dict(G.state_dict())
    other.load_state_dict(D.state_dict())
    x = G.eval()(z, **cond)
    require(torch.equal(x, again.eval()(z, **cond)), "the same samples after a round trip", "others", "An architecture")
    same = torch.equal(_logits(D.eval()(x, **cond)), _logits(other.eval()(x, **cond)))
    require(same, "the same logits after a round trip", "others", "An architecture")


def runs_in_bf16(plugin: Factory) -> None:
    """Under bf16 autocast both networks stay finite."""
    spec = next(specs(plugin))
    G, D, z, cond = _pair(plugin, spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = _logits(D(G(z, **cond), **cond))
    require(bool(torch.isfinite(logits).all()), "finite logits in bf16", "infinite or NaN", "An architecture")


# losses ---------------------------------------------------------------------------------------------------------------


def both_sides_are_scalars(plugin: Factory) -> None:
    """Both sides are finite scalars for logits [N] and [N, K], with gradients to the logits they may move."""
    loss: Loss = plugin()
    for shape in ((6,), (6, 3)):
        torch.manual_seed(0)
        real, fake = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
        wanted = {
            "discriminator": loss.discriminator(real, fake),
            "generator": loss.generator(fake, real if loss.relativistic else None),
        }
        for side, value in wanted.items():
            scalar = value.shape == () and bool(torch.isfinite(value))
            require(scalar, f"a finite scalar from '{side}'", f"{tuple(value.shape)} {value}", "A loss")
            (gradient,) = torch.autograd.grad(value, fake)
            require(bool(gradient.abs().sum() > 0), f"a gradient of '{side}' to the fake logits", "zero", "A loss")


# everything that can train --------------------------------------------------------------------------------------------

Build = Callable[[Mapping[str, Any]], Trainer]


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Return a copy of all of a trainer's tensors."""
    return {key: value.clone() for key, value in checkpoint.state_of(trainer)[0].items()}


def only_the_acting_player_moves(build: Build) -> None:
    """In a player's turn exactly its own networks' parameters change, all of them together with no one else's."""
    for player in build({}).players:
        trainer = build({"train": {"turns": [player]}})
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in trainer.nets.items()}
        trainer.round()
        for name, net in trainer.nets.items():
            changed = [not torch.equal(old, new) for old, new in zip(before[name], net.parameters(), strict=True)]
            if name in trainer.players[player].nets:
                require(any(changed), f"a turn of {player!r} to move network {name!r}", "no change", "A game")
            else:
                require(not any(changed), f"a turn of {player!r} to leave {name!r} alone", "a change", "A game")


def resume_is_bit_exact(build: Build) -> None:
    """Two rounds, a checkpoint, two more rounds give the bits of four rounds."""
    whole, first, second = build({}), build({}), build({})
    for _ in range(4):
        whole.round()
    for _ in range(2):
        first.round()
    checkpoint.restore(second, *checkpoint.state_of(first))
    for _ in range(2):
        second.round()
    one, two = state(whole), state(second)
    differing = [key for key, value in one.items() if not torch.equal(value, two[key])]
    require(not differing, "the same bits after a resume", f"others in {differing[:3]}", "State")


def accumulation_equals_the_batch(build: Build) -> None:
    """Cutting the batch into pieces gives the same step up to rounding."""
    results = []
    for pieces in (1, 2):
        trainer = build({"train": {"accumulate": pieces}, "optimizer": {"name": "sgd", "lr": 0.01}})
        trainer.round()
        results.append({key: value for key, value in state(trainer).items() if key.startswith("net/")})
    for key, value in results[0].items():
        error = (value.float() - results[1][key].float()).abs().max().item()
        require(
            error <= 1e-5 * (1 + value.abs().max().item()), "the whole batch's step", f"{key} off by {error:.2g}", "State"
        )


def trains_in_bf16(build: Build) -> None:
    """Four rounds in bf16 leave every weight and every term finite."""
    trainer = build({"train": {"precision": "bf16"}})
    trainer.fit(Onlooker(rounds=4))
    broken = [key for key, value in state(trainer).items() if value.is_floating_point() and not torch.isfinite(value).all()]
    require(not broken, "finite weights in bf16", f"others in {broken[:3]}", "State")


def as_loss(plugin: Factory) -> Build:
    """Return how to train with this loss."""
    return lambda raw: tiny_trainer(loss=plugin, raw=raw)


def as_regularizer(plugin: Factory) -> Build:
    """Return how to train with this regularizer."""
    return lambda raw: tiny_trainer(regularizers={"it": plugin}, raw=raw)


def as_game(plugin: Factory) -> Build:
    """Return how to train with this game."""
    return lambda raw: tiny_trainer(game=plugin, raw=raw)


def as_architecture(plugin: Factory) -> Build:
    """Return how to train with this architecture, at the first size that it accepts."""
    spec = next(specs(plugin))
    data = tiny_data(size=spec.shape[-1], channels=spec.shape[0], classes=spec.classes)
    return lambda raw: tiny_trainer(architecture=plugin, data=data, raw=raw)


# regularizers ---------------------------------------------------------------------------------------------------------


def penalties_are_scalars(plugin: Factory) -> None:
    """On its own side the penalty is None or a finite scalar, also where the discriminator is flat."""
    regularizer = plugin()
    for side in ("discriminator", "generator"):
        if regularizer.side not in (side, "both"):
            continue
        for flat in (False, True):
            torch.manual_seed(0)
            D = TinyDiscriminator(Spec(shape=(1, 16, 16)))
            if flat:
                nn.init.zeros_(D.head.weight)
            real, fake = torch.rand(COUNT, 1, 16, 16), torch.rand(COUNT, 1, 16, 16, requires_grad=True)
            penalty = regularizer.penalty(Duel(D, real, fake).turn(side, [regularizer.view]))
            if penalty is None:
                continue
            scalar = penalty.shape == () and bool(torch.isfinite(penalty))
            require(scalar, "a finite scalar penalty, or None", f"{tuple(penalty.shape)} {penalty}", "A regularizer")
            if penalty.requires_grad:
                found = torch.autograd.grad(penalty, list(D.parameters()), allow_unused=True)
                finite = all(bool(torch.isfinite(g).all()) for g in found if g is not None)
                where = "of a flat discriminator" if flat else "of the penalty"
                require(finite, f"finite gradients {where}", "NaN or infinite ones", "A regularizer")


def views_keep_the_shape(plugin: Factory) -> None:
    """A view keeps shape and type, for grey and colour, and lets gradients through."""
    for channels in (1, 3):
        x = (torch.rand(COUNT, channels, 16, 16) * 2 - 1).requires_grad_()
        seen = plugin().view(x)
        require(
            seen.shape == x.shape and seen.dtype == x.dtype, f"{x.dtype} {tuple(x.shape)}", str(seen.shape), "A regularizer"
        )
        (gradient,) = torch.autograd.grad(seen.sum(), x)
        require(bool(torch.isfinite(gradient).all()), "finite gradients through the view", "others", "A regularizer")


# games ----------------------------------------------------------------------------------------------------------------


def teams_own_the_networks(plugin: Factory) -> None:
    """Every network has a role and an owner, and every discriminator is a network."""
    game = plugin()
    owned = {network for team in game.teams.values() for network in team}
    require(owned == set(game.roles), f"teams that own {sorted(game.roles)}", str(sorted(owned)), "A game")
    require(game.discriminators <= owned, "discriminators among the networks", str(sorted(game.discriminators)), "A game")


# datasets -------------------------------------------------------------------------------------------------------------


def batches_fit_the_spec(data: Dataset) -> None:
    """Samples have the spec's shape, as bytes or in [-1, 1]; labels come exactly where there are classes."""
    index = torch.tensor([0, len(data) - 1])
    batch = data.batch(index)
    require(
        batch.real.shape == (2, *data.spec.shape), f"samples {(2, *data.spec.shape)}", str(batch.real.shape), "A dataset"
    )
    fits = batch.real.dtype == torch.uint8 or (batch.real.is_floating_point() and bool(batch.real.abs().max() <= 1))
    require(fits, "uint8, or float in [-1, 1]", str(batch.real.dtype), "A dataset")
    require(
        ("label" in batch.cond) == (data.spec.classes > 0), "labels exactly where there are classes", "not so", "A dataset"
    )
    if "label" in batch.cond:
        labels = data.batch(torch.arange(len(data))).cond["label"]
        whole = labels.dtype == torch.int64 and int(labels.min()) >= 0 and int(labels.max()) < data.spec.classes
        require(whole, f"int64 labels from 0 to {data.spec.classes - 1}", f"{labels.dtype}, {labels.max()}", "A dataset")


def samples_stand_at_their_index(data: Dataset) -> None:
    """A sample is the same in every batch, and the dataset has a fingerprint."""
    alone, together = data.batch(torch.tensor([1])).real[0], data.batch(torch.tensor([0, 1])).real[1]
    require(torch.equal(alone, together), "sample 1 to be the same in every batch", "another one", "A dataset")
    require(len(data.fingerprint) >= 16, "a fingerprint of the content", repr(data.fingerprint), "A dataset")
