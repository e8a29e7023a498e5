"""A trained generator, rebuilt from its checkpoint alone: samples, classes, interpolations."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from . import assemble, drawing
from .api import Game, Progress, Spec, Staged
from .checkpoint import load_module, read
from .config import Draft
from .device import Device
from .errors import CheckpointError, PluginError, RecipeError
from .recipe import Recipe
from .registry import PACKAGE, VERSION, Record, Registry, registry
from .runs import RunFolder
from .seed import latents, truncated

BATCH = 64  # samples made at a time
RECORDED = ("kind", "name", "distribution", "version", "sha256")  # what a checkpoint says of each plugin, at least


class Model:
    """What a run has learned: the averaged networks of a checkpoint, ready to sample."""

    def __init__(
        self, recipe: Recipe, game: Game, nets: Mapping[str, nn.Module], spec: Spec, device: Device, path: Path
    ) -> None:
        self.recipe, self.game, self.nets, self.spec, self.device, self.path = recipe, game, nets, spec, device, path
        self.notes: list[str] = []

    def latents(self, count: int, seed: int = 0, bound: float = math.inf) -> Tensor:
        """Return z [count, latent]; number i depends on the seed and i alone. Normal ones lie within the bound."""
        return self._latents(count, bound, seed, "sample")

    def _latents(self, count: int, bound: float, *parts: int | str) -> Tensor:
        size, prior = self.recipe.latent.size, self.recipe.latent.prior
        drawn = (latents(1, size, prior, *parts, number) for number in range(count))
        if bound < math.inf:
            drawn = (truncated(z, bound, *parts, number) for number, z in enumerate(drawn))
        return torch.cat([*drawn])

    def labels(self, count: int, label: int | None = None) -> dict[str, Tensor]:
        """Return the labels to pass: one class for all, every class in turn, or nothing where there are none.

        Classes that a game found or made up by itself are passed only where one is named.
        """
        known = self.game.spec(self.spec).classes
        if label is not None and not known:
            raise RecipeError(f"{self.recipe.name!r} was trained without classes; leave the class out")
        if label is not None and not 0 <= label < known:
            raise RecipeError(f"class {label} does not exist; {self.recipe.name!r} has classes 0 to {known - 1}")
        if label is not None:
            return {"label": torch.full((count,), label)}
        return {"label": torch.arange(count) % known} if self.spec.classes else {}

    @torch.no_grad()
    def decode(self, z: Tensor, cond: Mapping[str, Tensor], batch: int = BATCH) -> Tensor:
        """Return what the generator makes of z [N, latent], `batch` at a time; float32 in [-1, 1] on the CPU."""
        pieces = []
        for start in range(0, len(z), batch):
            part = {key: value[start : start + batch].to(self.device.device) for key, value in cond.items()}
            with self.device.autocast():
                made = self.game.sample(self.nets, z[start : start + batch].to(self.device.device), part)
            pieces.append(made.float().cpu())
        return torch.cat(pieces)

    def sample(
        self,
        count: int = 64,
        seed: int = 0,
        label: int | None = None,
        *,
        truncation: float | None = None,
        standing: int = 0,
    ) -> Tensor:
        """Return samples [count, *shape] in [-1, 1]; the same seed gives the same samples, whatever the count.

        `truncation` draws them nearer to the mean; `standing` is the number of batches that batch norm's statistics are
        taken from, in place of the running ones of the training.
        """
        with self._drawing(truncation, standing) as bound:
            return self.decode(self.latents(count, seed, bound), self.labels(count, label))

    @torch.no_grad()
    def clusters(self, x: Tensor, batch: int = BATCH) -> Tensor:
        """Return how far each cluster that the game found accounts for samples x [N, *shape]: [N, clusters], on the CPU."""
        pieces = []
        for part in torch.split(x, batch):
            with self.device.autocast():
                pieces.append(self.game.clusters(self.nets, part.to(self.device.device)).float().cpu())
        return torch.cat(pieces)

    def interpolate(
        self,
        rows: int = 8,
        steps: int = 10,
        seed: int = 0,
        label: int | None = None,
        *,
        truncation: float | None = None,
        standing: int = 0,
    ) -> Tensor:
        """Return `rows` walks from one latent to another in `steps` samples each, [rows * steps, *shape]."""
        share = torch.linspace(0, 1, steps)
        cond = {key: value.repeat_interleave(steps) for key, value in self.labels(rows, label).items()}
        with self._drawing(truncation, standing) as bound:
            ends = self.latents(2 * rows, seed, bound)
            walks = [_walk(ends[2 * row], ends[2 * row + 1], share, self.recipe.latent.prior) for row in range(rows)]
            return self.decode(torch.cat(walks), cond)

    @contextmanager
    def _drawing(self, truncation: float | None, standing: int) -> Iterator[float]:
        """Truncate and normalise as asked for; yield the bound of latents."""
        with ExitStack() as stack:
            bound = stack.enter_context(self.truncated(truncation))
            if standing:
                found = drawing.norms(self._drawers())
                if not found:
                    raise RecipeError(
                        f"{self.recipe.name!r} draws without batch norm, so it has no statistics; leave standing out"
                    )
                count = standing * BATCH
                stack.enter_context(
                    drawing.standing(
                        found, lambda: self.decode(self._latents(count, bound, "standing"), self.labels(count))
                    )
                )
            yield bound

    @contextmanager
    def truncated(self, truncation: float | None) -> Iterator[float]:
        """Draw nearer to the mean in this block; yield the standard deviations that latents must lie within.

        They may lie anywhere without truncation (None), and where generators are `Truncatable`. RecipeError where it means
        nothing.
        """
        if truncation is None:
            yield math.inf
            return
        own = drawing.truncatable(self._drawers())
        bound = self._bound(truncation, bool(own))
        with drawing.truncated(own, truncation):
            yield bound

    def _drawers(self) -> list[nn.Module]:
        return [net for name, net in self.nets.items() if name not in self.game.discriminators]

    def _bound(self, truncation: float, own: bool) -> float:
        """Return the standard deviations that latents lie within; RecipeError where truncation means nothing."""
        if not math.isfinite(truncation) or truncation < 0 or (truncation == 0 and not own):
            least = "from 0 on" if own else "above 0"
            raise RecipeError(f"truncation must be a number {least}, not {truncation}")
        if own:
            return math.inf
        why = ""
        if self.spec.prior != "normal":
            why = f"draws from {self.spec.prior} latents, which have no tails to leave out"
        elif self.game.spec(self.spec).latent != self.spec.latent:
            why = "chooses by its latents what it draws, some of which would be left out"
        if why:
            raise RecipeError(f"{self.recipe.name!r} {why}; leave truncation out")
        return truncation


def _walk(start: Tensor, end: Tensor, share: Tensor, prior: str) -> Tensor:
    """Walk along the great circle for normal latents, whose norm hardly varies, and straight for uniform ones."""
    share = share[:, None]
    if prior == "uniform":
        return start * (1 - share) + end * share
    angle = torch.arccos(torch.cosine_similarity(start, end, dim=0).clamp(-0.9999, 0.9999))
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


def find_checkpoint(place: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the newest of a run folder."""
    if place.is_file():
        return place
    found = RunFolder(place).checkpoints()
    if not found:
        raise CheckpointError(f"{place} holds no checkpoint; give a run folder or a .safetensors file (see: ganzoo train)")
    return found[0]


def load(place: str | Path, device: str = "auto", *, precision: str = "", average: bool = True) -> Model:
    """Return the model of a run folder or checkpoint file.

    `precision` is the recipe's own unless given; without `average`, the weights as trained, not their running average.
    Raises CheckpointError for a damaged or foreign file and PluginError, saying what to install, for a missing plugin.
    """
    path = find_checkpoint(Path(place))
    tensors, counters, provenance = read(path)
    known = registry()
    try:
        known = _recorded(provenance["plugins"], known)
        raw = tomllib.loads(provenance["recipe"])
        recipe = Draft(str(raw.get("name", path.stem)), raw, f"checkpoint {path.name}").finish()
        spec = Spec(shape=tuple(provenance["spec"]["shape"]), classes=int(provenance["spec"]["classes"]))
        samples, rounds = int(counters["samples"]), int(counters["rounds"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {path} has an incomplete header ({error}); it was not written by ganzoo"
        ) from None
    chosen = Device.choose(device, precision or recipe.train.precision)
    parts = assemble.cast(recipe, known, spec)
    parts.game.prepare(parts.nets, None)
    for name, net in parts.nets.items():
        averaged = average and name not in parts.game.discriminators
        load_module(net, f"ema/{name}" if averaged else f"net/{name}", tensors)
        chosen.place(net.eval().requires_grad_(False))
    load_module(parts.game, "game", tensors)
    chosen.place(parts.game)
    _announce(parts, assemble.plan(recipe, parts.game).at(samples, rounds)[0])
    model = Model(recipe, parts.game, parts.nets, parts.spec, chosen, path)
    model.notes = list(_changes(provenance["plugins"], known))
    return model


def _announce(parts: assemble.Cast, progress: Progress) -> None:
    """Let what changes with time know where its training stood."""
    for change in parts.changes:
        change.follow(progress.share)
    for root in (*parts.nets.values(), parts.game):
        for module in root.modules():
            if isinstance(module, Staged):
                module.on_progress(progress)


def _recorded(used: list[dict[str, str]], known: Registry) -> Registry:
    """Return the registry in which each plugin's name means the package on record, whatever else offers it by now.

    PluginError says what to install for a missing one; a name is only ever looked up.
    """
    meant: dict[tuple[str, str], set[str]] = {}
    for plugin in used:
        kind, name, distribution, version, _ = (str(plugin[key]) for key in RECORDED)
        if kind in ("dataset", "reader"):
            continue  # samples need no data
        if not PACKAGE.fullmatch(distribution) or not VERSION.fullmatch(version):
            raise ValueError(f"{distribution!r} {version!r} is no package")  # nobody should copy it into a shell
        if _find(plugin, known) is None:
            remedy = f"pip install '{distribution}=={version}'"
            raise PluginError(f"this checkpoint needs {kind} {name!r} of {distribution} {version}; run: {remedy}")
        meant.setdefault((kind, name), set()).add(distribution)
    kept = [r for r in known.records if r.distribution in meant.get((r.kind, r.name), {r.distribution})]
    return Registry(kept, known.problems)


def _find(plugin: Mapping[str, str], known: Registry) -> Record | None:
    found = [r for r in known.of(plugin["kind"]) if (r.name, r.distribution) == (plugin["name"], plugin["distribution"])]
    return found[0] if found else None


def _changes(used: Iterable[Mapping[str, str]], known: Registry) -> Iterator[str]:
    """Compare the plugins on record with those that are here; of what samples do not need, the version only."""
    for plugin in used:
        record = _find(plugin, known)
        if record is not None and plugin["kind"] not in ("dataset", "reader"):
            now = known.provenance(record)
            loaded = record.module in sys.modules  # else its source cannot be told where one module passes on another's
            yield from changed_plugins([plugin], [now if loaded else {**now, "sha256": plugin["sha256"]}])


def changed_plugins(then: Iterable[Mapping[str, str]], now: Iterable[Mapping[str, str]]) -> list[str]:
    """Say which plugins, by kind, name and package, have another version or another source than they had."""
    before = {(plugin["kind"], plugin["name"], plugin["distribution"]): plugin for plugin in then}
    return [note for plugin in now if (note := _change(before, plugin))]


def _change(before: Mapping[tuple[str, str, str], Mapping[str, str]], plugin: Mapping[str, str]) -> str:
    kind, name, distribution, version, sha256 = (plugin[key] for key in RECORDED)
    old = before.get((kind, name, distribution))
    if old is None:
        return f"{kind} {name!r} of {distribution} {version} was not used before"
    if old["version"] != version:
        return f"{kind} {name!r}: trained with {distribution} {old['version']}, now {version}"
    changed = old["sha256"] != sha256
    return f"{kind} {name!r}: the source in {distribution} {version} changed since it was trained with" if changed else ""
