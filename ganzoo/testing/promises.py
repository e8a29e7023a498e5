"""What every kind of plugin promises: each function here checks one promise, and its docstring says which."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Dataset, DiscriminatorOutput, Loss, Regularizer, Side, Spec
from ..costs import Shown
from ..errors import PluginError
from ..game import Duel
from ..options import MISSING, check_options, options_of
from .contract import ContractError, require
from .tiny import Factory, TinyDiscriminator, TinyGenerator

COUNT = 4
SIDES: tuple[Side, ...] = ("discriminator", "generator")


# every kind -----------------------------------------------------------------------------------------------------------


def summarised(plugin: Factory) -> None:
    """Its docstring says in one sentence what it is for."""
    text = _text(plugin)
    require(
        len(text.split("\n")[0]) > 10, "a docstring whose first line says what it is for", repr(text[:40]), "Documentation"
    )


def documented(plugin: Factory) -> None:
    """Its docstring says in one sentence what it is for, and names its source."""
    summarised(plugin)
    text = _text(plugin)
    source = re.search(r"arXiv:\d{4}\.\d{4,5}|doi:|\(\D*\d{4}\b|https?://", text)
    require(
        source is not None, "a source in the docstring: arXiv id, doi, (Author YEAR) or address", "none", "Documentation"
    )


def _text(plugin: Factory) -> str:
    plugin = plugin.func if isinstance(plugin, functools.partial) else plugin
    return inspect.cleandoc(plugin.__doc__ or "")  # its own one: a base class speaks for itself


def options_are_keyword_only(plugin: Factory) -> None:
    """No option can be given by its position: the signature is the schema of a recipe's table."""
    try:
        options_of(plugin)
    except PluginError as error:
        raise ContractError("keyword-only options", str(error), "Options") from None


def options_are_typed(plugin: Factory) -> None:
    """Every option is annotated, has a default that fits its annotation, and is kept under its own name."""
    try:
        options = options_of(plugin)
    except PluginError:
        return  # the promise above tells that
    function: Any = plugin.__init__ if inspect.isclass(plugin) else plugin
    for parameter in inspect.signature(function).parameters.values():
        typed = parameter.name not in options or parameter.annotation is not inspect.Parameter.empty
        require(typed, f"an annotation of option {parameter.name!r}", "none", "Options")
    if any(option.default is MISSING for option in options.values()):
        return  # it cannot be built without a value of somebody's choice
    try:
        check_options("the plugin", plugin, {option.name: option.default for option in options.values()})
    except PluginError as error:
        raise ContractError("defaults that fit their annotations", str(error), "Options") from None
    if inspect.isclass(plugin):
        built = plugin()
        for option in options.values():
            require(
                hasattr(built, option.name), f"option {option.name!r} kept as an attribute", "no such attribute", "Options"
            )


# architectures --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)  # the largest networks take a second to build, and each promise asks
def specs(plugin: Factory) -> tuple[Spec, ...]:
    """Return the specs of 16 to 64 pixels, grey and colour, with and without classes, that an architecture accepts."""
    accepted = []
    for size in (16, 32, 64):
        for channels in (1, 3):
            for classes in (0, 3):
                spec = Spec(shape=(channels, size, size), classes=classes, latent=16)
                try:
                    plugin().discriminator(spec)
                except PluginError:
                    continue  # it says that it cannot: that is a claim not made
                accepted.append(spec)
    return tuple(accepted)


def smallest(plugin: Factory) -> Iterator[Spec]:
    """Yield the first accepted spec without classes and the first with some."""
    for labelled in (False, True):
        yield from [spec for spec in specs(plugin) if bool(spec.classes) == labelled][:1]


def pair(plugin: Factory, spec: Spec) -> tuple[nn.Module, nn.Module, Tensor, dict[str, Tensor]]:
    """Return both networks from the same seed, latents, and labels where there are classes."""
    torch.manual_seed(0)
    cond = {"label": torch.arange(COUNT) % spec.classes} if spec.classes else {}
    return plugin().generator(spec), plugin().discriminator(spec), torch.randn(COUNT, spec.latent), cond


def logits_of(output: Any) -> Tensor:
    """Return the logits of what a discriminator returned."""
    logits = output.logits if isinstance(output, DiscriminatorOutput) else output
    require(isinstance(logits, Tensor), "logits as a tensor", type(logits).__name__, "An architecture")
    return logits


def builds_somewhere(plugin: Factory) -> None:
    """It builds for at least one size of 16, 32 or 64 pixels."""
    require(bool(specs(plugin)), "networks for 16, 32 or 64 pixels", "PluginError for all", "An architecture")


def samples_fit_the_spec(plugin: Factory) -> None:
    """The generator's samples have the spec's shape, are finite and lie in [-1, 1]."""
    for spec in specs(plugin):
        G, _, z, cond = pair(plugin, spec)
        x = G(z, **cond)
        require(x.shape == (COUNT, *spec.shape), f"samples {(COUNT, *spec.shape)}", str(tuple(x.shape)), "An architecture")
        require(x.is_floating_point() and bool(torch.isfinite(x).all()), "finite floats", f"{x.dtype}", "An architecture")
        require(bool(x.abs().max() <= 1), "samples in [-1, 1]", f"{x.abs().max():.3g} at {spec}", "An architecture")


def logits_are_one_row_a_sample(plugin: Factory) -> None:
    """The discriminator gives finite logits [N] or [N, K]."""
    for spec in specs(plugin):
        _, D, _, cond = pair(plugin, spec)
        logits = logits_of(D(torch.rand(COUNT, *spec.shape) * 2 - 1, **cond))
        fits = logits.ndim in (1, 2) and len(logits) == COUNT and bool(torch.isfinite(logits).all())
        require(fits, f"finite logits [{COUNT}] or [{COUNT}, K]", str(tuple(logits.shape)), "An architecture")


def gradients_reach_everything(plugin: Factory) -> None:
    """A loss on the logits moves every parameter of both networks."""
    for spec in specs(plugin):
        G, D, z, cond = pair(plugin, spec)
        logits_of(D(G(z, **cond), **cond)).square().sum().backward()  # type: ignore[no-untyped-call]
        for network, net in (("generator", G), ("discriminator", D)):
            lost = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
            require(not lost, f"a gradient for every parameter of the {network}", f"none for {lost}", "An architecture")


def discriminator_is_differentiable_twice(plugin: Factory) -> None:
    """Gradient penalties work: the input gradient has finite gradients itself."""
    for spec in specs(plugin):
        _, D, _, cond = pair(plugin, spec)
        duel = Duel(D, torch.rand(COUNT, *spec.shape), torch.rand(COUNT, *spec.shape), real_cond=cond)
        duel.input_gradient("real").square().sum().backward()  # type: ignore[no-untyped-call]
        found = [p.grad for p in D.parameters() if p.grad is not None]
        finite = bool(found) and all(bool(torch.isfinite(gradient).all()) for gradient in found)
        require(finite, "finite gradients of the input gradient", "none or not finite", "An architecture")


def mixes_samples(net: nn.Module, x: Tensor, cond: Mapping[str, Tensor]) -> bool:
    """In training mode, do a discriminator's logits for the first sample change with the other samples of the batch?"""
    training = net.training
    net.train()
    first = []
    with torch.no_grad():
        for batch in (x, torch.cat([x[:1], torch.rand_like(x[1:]) * 2 - 1])):
            torch.manual_seed(0)  # dropout and noise inside D are the same for both
            first.append(logits_of(net(batch, **cond)).float()[0])
    net.train(training)
    return bool((first[0] - first[1]).abs().max() > 1e-6 + 1e-4 * first[0].abs().max())


def samples_are_judged_alone(plugin: Factory) -> None:
    """In training mode D's logits for a sample do not change with the rest of its batch, as gradient penalties need it."""
    for spec in smallest(plugin):
        _, D, _, cond = pair(plugin, spec)
        mixed = mixes_samples(D, torch.rand(COUNT, *spec.shape) * 2 - 1, cond)
        require(not mixed, "logits that follow from one sample each", "a discriminator that mixes samples", "A regularizer")


def one_sample_works(plugin: Factory) -> None:
    """In eval mode a single sample gives what it gives in a batch."""
    for spec in specs(plugin):
        G, _, z, cond = pair(plugin, spec)
        G.eval()
        one = G(z[:1], **{key: value[:1] for key, value in cond.items()})
        same = G(z, **cond)[:1].detach()
        close = torch.allclose(one, same, atol=1e-5 * max(float(same.abs().max()), 1))
        require(close, "sample 0 alone as in a batch of four", "another sample", "An architecture")


def state_round_trip(plugin: Factory) -> None:
    """Networks built anew and given the state_dict of others compute the same."""
    spec = specs(plugin)[0]
    G, D, z, cond = pair(plugin, spec)
    torch.manual_seed(1)
    again, other = plugin().generator(spec), plugin().discriminator(spec)
    again.load_state_dict(G.state_dict())
    other.load_state_dict(D.state_dict())
    x = G.eval()(z, **cond)
    require(torch.equal(x, again.eval()(z, **cond)), "the same samples after a round trip", "others", "An architecture")
    same = torch.equal(logits_of(D.eval()(x, **cond)), logits_of(other.eval()(x, **cond)))
    require(same, "the same logits after a round trip", "others", "An architecture")


def runs_in_bf16(plugin: Factory) -> None:
    """Under bf16 autocast both networks stay finite."""
    spec = specs(plugin)[0]
    G, D, z, cond = pair(plugin, spec)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = logits_of(D(G(z, **cond), **cond))
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
            require(scalar, f"a finite scalar from '{side}'", f"{tuple(value.shape)} {value.tolist()}", "A loss")
            (gradient,) = torch.autograd.grad(value, fake)
            require(bool(gradient.abs().sum() > 0), f"a gradient of '{side}' to the fake logits", "zero", "A loss")


# regularizers ---------------------------------------------------------------------------------------------------------


def welcome(regularizer: Regularizer) -> tuple[Spec, Spec]:
    """Return the first spec, without classes or with three, that a regularizer accepts, and what D is built for then."""
    plain = Spec(shape=(1, 16, 16), latent=8)
    try:
        return plain, regularizer.shown(plain)
    except PluginError:  # it needs classes, and says so
        labelled = replace(plain, classes=3)
        return labelled, regularizer.shown(labelled)


def meeting(regularizer: Regularizer, side: Side, *, flat: bool = False) -> tuple[nn.Module, Duel]:
    """Return a small discriminator that the regularizer has prepared, perhaps with no slope at all, and its duel."""
    torch.manual_seed(0)
    spec, shown = welcome(regularizer)
    G, D = TinyGenerator(spec), TinyDiscriminator(shown)
    for net, its in ((D, "discriminator"), (G, "generator")):
        if regularizer.side in (its, "both"):
            regularizer.prepare(net)
    if flat:
        with torch.no_grad():
            for parameter in D.head.parameters():
                parameter.zero_()
    real, z = torch.rand(COUNT, *spec.shape), torch.randn(COUNT, spec.latent)
    cond = {"label": torch.arange(COUNT) % spec.classes} if spec.classes else {}
    duel = Duel(D, real, G(z, **cond), real_cond=cond, generate=lambda latents, cond: G(latents, **cond), z=z)
    return D, Shown.of("D", duel, side, [regularizer]).duel()


def penalties_are_scalars(plugin: Factory) -> None:
    """On its own side the penalty is None or a finite scalar, also where the discriminator is flat."""
    regularizer = plugin()
    for side in SIDES:
        if regularizer.side not in (side, "both"):
            continue
        for flat in (False, True):
            D, duel = meeting(regularizer, side, flat=flat)
            penalty = regularizer.penalty(duel)
            if penalty is None:
                continue
            scalar = penalty.shape == () and bool(torch.isfinite(penalty))
            shown = f"{tuple(penalty.shape)} {penalty.detach().flatten()[:1].tolist()}"
            require(scalar, "a finite scalar penalty, or None", shown, "A regularizer")
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
    """Samples have the spec's shape, as bytes or in [-1, 1], vectors in any range; labels come where there are classes."""
    index = torch.tensor([0, len(data) - 1])
    batch = data.batch(index)
    require(
        batch.real.shape == (2, *data.spec.shape), f"samples {(2, *data.spec.shape)}", str(batch.real.shape), "A dataset"
    )
    within = len(data.spec.shape) == 1 or bool(batch.real.abs().max() <= 1)
    fits = batch.real.dtype == torch.uint8 or (batch.real.is_floating_point() and within)
    reach = f"{batch.real.dtype} from {batch.real.min():.3g} to {batch.real.max():.3g}"
    require(fits, "uint8, or float in [-1, 1]", reach, "A dataset")
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
