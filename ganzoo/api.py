"""The contracts that plugins implement; a plugin needs nothing else of ganzoo but `ganzoo.game` and `ganzoo.layers`.

Any plugin class may also carry `api_version` (the newest contract that it needs) and `expected_failures`, a mapping from
a promise of `ganzoo.testing` that it cannot keep to the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .errors import DataError, PluginError, did_you_mean

if TYPE_CHECKING:  # the two modules describe each other; at run time the arrow points from game to api only
    from .game import Duel, Scene

__all__ = [
    "API_VERSION",
    "Architecture",
    "Batch",
    "Counted",
    "DataError",
    "Dataset",
    "DiscriminatorOutput",
    "Extractor",
    "Game",
    "Look",
    "Loss",
    "PluginError",
    "Progress",
    "Recognised",
    "Regularizer",
    "Side",
    "Spec",
    "Staged",
    "TensorDataset",
    "Truncatable",
    "did_you_mean",
    "fingerprint_of",
]

API_VERSION = 1  # a plugin that needs a newer one says so with a class attribute `api_version`

Side = Literal["discriminator", "generator"]
Look = Callable[[int], "Batch"]  # so many real samples as players meet them, the same ones whenever asked


@dataclass(frozen=True, slots=True)
class Spec:
    """What the data looks like: all that a network may know besides its own options."""

    shape: tuple[int, ...]  # (3, 64, 64) image, (3, 16, 64, 64) clip, (1, 16384) audio, (32,) tokens
    classes: int = 0  # 0: no labels are passed
    vocabulary: int = 0
    source: tuple[int, ...] | None = None  # shape of a conditioning sample: low-res image, sketch, masked scan
    latent: int = 128
    prior: Literal["normal", "uniform"] = "normal"  # what latents are drawn from: standard normal, or uniform in [-1, 1]


@dataclass(slots=True)
class Batch:
    """Real samples with what they are conditioned on, passed by keyword to the networks ("label", "source", ...)."""

    real: Tensor
    cond: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.real.shape[0])

    def part(self, start: int, stop: int) -> Batch:
        """Return samples `start` to `stop`, for gradient accumulation."""
        return Batch(self.real[start:stop], {key: value[start:stop] for key, value in self.cond.items()})


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands; all that changes with time is a function of this."""

    samples: int  # real samples seen
    total: int  # real samples of the whole run
    rounds: int  # rounds played
    stage: int  # index of the stage, 0 where the recipe has none
    stage_share: float  # how much of the stage is over, 0 to 1
    size: int | None  # the stage's image size in pixels; None: the data's own
    grew: bool = False  # was the stage before of another size?

    @property
    def share(self) -> float:
        """How much of the run is over, 0 to 1."""
        return min(self.samples / self.total, 1.0) if self.total else 1.0


@runtime_checkable
class Staged(Protocol):
    """A network, loss, regularizer or game that changes with time: told before every round where the training stands.

    What it derives from progress needs no checkpointing. Progressive growing switches its depth and fade here.
    """

    def on_progress(self, progress: Progress) -> None:
        """Adapt to where the training stands."""


@runtime_checkable
class Truncatable(Protocol):
    """A generator that can draw its samples nearer to their mean by itself, as StyleGAN does in the space of its styles.

    Sampling calls it before and, with 1, after it has drawn truncated samples; a training never does. Where a generator
    is none, normal latents are drawn again until each number lies within so many standard deviations, as BigGAN has it.
    """

    def truncate(self, psi: float) -> None:
        """Draw from now on at this distance from the mean: 1 as trained, 0 the mean itself."""


class DiscriminatorOutput(NamedTuple):
    """What a discriminator may return where it has more to say than logits."""

    logits: Tensor  # [N] or [N, K]: patch and multi-scale discriminators flatten
    features: Tensor | None = None  # penultimate layer, [N, F]
    class_logits: Tensor | None = None  # [N, classes]
    maps: tuple[Tensor, ...] | None = None  # what it was shown, then feature maps [N, C, H, W] as `map_shapes` has them


class Loss(nn.Module):
    """What the two sides of a duel want, as functions of logits alone. State (BEGAN's k) lives in buffers.

    Both methods return a scalar to be minimised; logits are float32, [N] or [N, K].
    """

    relativistic: ClassVar[bool] = False  # does the generator's side need the real logits?

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the discriminator minimises."""
        raise PluginError(f"loss {type(self).__name__} does not define 'discriminator'; every loss has both sides")

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return what the generator minimises; `real` is given where the loss is relativistic, else None."""
        raise PluginError(f"loss {type(self).__name__} does not define 'generator'; every loss has both sides")

    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Update state from the logits of a finished discriminator turn (detached, whole batch)."""


class Regularizer(nn.Module):
    """Anything else a player pays, or any change to what a discriminator sees. Override only what you need.

    The engine makes one instance for each discriminator and owns `weight` and `every`. State lives in buffers;
    parameters join the optimizer of the discriminator's player.
    """

    side: Literal["discriminator", "generator", "both"] = "discriminator"  # whose turns it takes part in
    strength: ClassVar[str] = "weight"  # the option that a bare number means: --regularizer NAME=10

    def shown(self, spec: Spec) -> Spec:
        """Return what a discriminator is built for, told what it would be built for: of another shape where `view` packs.

        Asked once before the networks are built; who needs to know the number of classes notes it here.
        """
        return spec

    def prepare(self, net: nn.Module) -> None:
        """Change a network of this side once, before its optimizer exists: spectral norm, weight norm."""

    def view(self, x: Tensor) -> Tensor:
        """Return what a discriminator is shown instead of `x`, real or fake: augmentation, noise; differentiable."""
        return x

    def passed_off(self, duel: Duel) -> Tensor | None:
        """Return instead of which real samples [N] a discriminator is shown the fake of the same place, as real; or None.

        Asked in each phase of its turns, before anything is shown.
        """
        return None

    def penalty(self, duel: Duel) -> Tensor | None:
        """Return a scalar that the acting player pays, or None; `duel.acting` says whose turn it is."""
        return None

    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Update state from the logits of a finished discriminator turn (detached, whole batch)."""

    def after_step(self, nets: Sequence[nn.Module]) -> None:
        """Act on the networks after an optimizer step of this side: weight clipping, power iteration."""


class Architecture:
    """A family of networks that fit together: one method for each role a game may ask for.

    Other roles (encoder, translator, classifier, ...) are further methods of the same form.
    """

    def generator(self, spec: Spec) -> nn.Module:
        """Return a network: forward(z [N, latent], **cond) -> samples [N, *shape] in [-1, 1]."""
        raise PluginError(f"architecture {type(self).__name__} offers no 'generator'; choose another one")

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return a network: forward(x [N, *shape], **cond) -> logits [N] or [N, K], or a DiscriminatorOutput."""
        raise PluginError(f"architecture {type(self).__name__} offers no 'discriminator'; choose another one")


class Game(nn.Module):
    """Who plays, which networks each player owns, and what one round looks like. State lives in buffers."""

    roles: Mapping[str, str]  # network -> role asked of the architecture
    teams: Mapping[str, tuple[str, ...]]  # player -> networks that it owns
    discriminators: frozenset[str] = frozenset({"D"})
    shared: bool = False  # do the duels of one scene serve the discriminator's turn and the generator's turn after it?

    def spec(self, spec: Spec) -> Spec:
        """Return what the networks are built for, told what the data looks like: classes or latents of the game's own."""
        return spec

    def prepare(self, nets: Mapping[str, nn.Module], look: Look | None) -> None:
        """Take what the game needs besides the players' networks, once, when these are built; None looks where none train.

        Modules and buffers that it registers here belong to its state.
        """

    def side(self, player: str) -> Side:
        """A player who owns only discriminators is on their side, everybody else on the generators'."""
        return "discriminator" if self.discriminators.issuperset(self.teams[player]) else "generator"

    def turns(self) -> tuple[str, ...]:
        """Return the round that is played where the recipe does not say: each player once, discriminators first."""
        return tuple(sorted(self.teams, key=lambda player: self.side(player) != "discriminator"))

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let the networks meet a batch and latents z [N, latent] in a turn of player `acting`."""
        raise PluginError(f"game {type(self).__name__} does not define 'play'")

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Return what the trained networks make of latents: by default the first network in the role of a generator."""
        for network, role in self.roles.items():
            if role == "generator":
                return _tensor(nets[network](z, **cond))
        raise PluginError(f"game {type(self).__name__} has no network in the role 'generator'; it must define 'sample'")

    def clusters(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Return how far each cluster that it finds accounts for samples x [N, *shape]: [N, clusters], rows sum to 1."""
        raise PluginError(f"game {type(self).__name__} finds no clusters; train a recipe whose game does")

    def after_round(self, nets: Mapping[str, nn.Module], progress: Progress) -> None:
        """Act between rounds: E-steps, refits, image pools."""


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise PluginError(f"a generator must return a tensor of samples, not {type(value).__name__}")
    return value


class Dataset(Protocol):
    """Samples by index, so that order is the feed's business alone; a sample follows from its index and nothing else.

    A dataset may also carry `stored`: how many bytes of samples it reads from files whenever it is asked for them. Where
    memory cannot hold these, other processes read ahead (`train.workers`), so such a dataset must bear pickling and open
    its files again where it is unpickled.
    """

    spec: Spec
    fingerprint: str  # hash of content and preparation: in every checkpoint and score

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """Return the samples at int64 positions [N]: uint8, or float in [-1, 1]; the feed moves and normalises.

        Vectors [N, F] of float may have any range.
        """


class Recognised(NamedTuple):
    """What is known of samples where the modes of their distribution are."""

    mode: Tensor  # int64 [N]
    good: Tensor  # bool [N]: of high quality, or surely of that mode


@runtime_checkable
class Counted(Protocol):
    """A dataset whose modes are known: what a diversity suite measures on."""

    shares: Tensor  # [modes], the probability of each

    def recognise(self, samples: Tensor) -> Recognised:
        """Return which mode samples [N, *shape], floats as a generator makes them, are nearest to, and which are good."""


class TensorDataset:
    """A dataset held in memory: samples as uint8 [N, *shape] (or float in [-1, 1]), labels as int64 [N] or none."""

    stored: int = 0  # bytes of samples that lie in a file

    def __init__(self, samples: Tensor, labels: Tensor | None = None, *, classes: int = 0, fingerprint: str = "") -> None:
        if len(samples) == 0:
            raise DataError("the dataset has no samples; give a folder, zip or set with at least one")
        self.samples = samples
        self.labels = labels if classes else None
        self.spec = Spec(shape=tuple(samples.shape[1:]), classes=classes if self.labels is not None else 0)
        self.fingerprint = fingerprint or fingerprint_of(samples, self.labels)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, index: Tensor) -> Batch:
        """Return the samples at these positions."""
        index = index.to(self.samples.device)
        cond = {} if self.labels is None else {"label": self.labels[index]}
        return Batch(self.samples[index], cond)

    def to(self, device: torch.device) -> TensorDataset:
        """Return the same data held on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return TensorDataset(self.samples.to(device), labels, classes=self.spec.classes, fingerprint=self.fingerprint)


class Extractor(nn.Module):
    """Images uint8 [N, C, H, W] to features [N, F] for the benchmark; `id` is NAME@HASH8 with a hash of its weights.

    It is built in eval mode and draws nothing: an image's features follow from that image alone. One that takes a file of
    weights has an option `weights` (a path, empty for its own default) and checks its SHA-256 before it opens it.
    """

    id: str
    datasets: ClassVar[frozenset[str] | None] = None  # names of the datasets that it was made for; None: any images

    def fit(self, images: Tensor) -> None:
        """Adapt to the reference images uint8 [N, C, H, W] once, before any features are taken; `id` says so afterwards."""

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return features [N, F], or (features, logits [N, K]) where it classifies."""
        raise PluginError(f"extractor {type(self).__name__} does not define 'forward'")


def fingerprint_of(*tensors: Tensor | None) -> str:
    """Return a SHA-256 over shapes, types and bytes of tensors: the identity of a dataset's content."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def with_latent(spec: Spec, size: int, prior: Literal["normal", "uniform"]) -> Spec:
    """Return the spec with other latents: the recipe's business, not the data's."""
    return replace(spec, latent=size, prior=prior)
