"""The metrics that a protocol may ask for: each is made with its settings, takes both sides' features and gives scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, PluginError, RecipeError, did_you_mean
from ..fidelity import Features, inception_score, kernel_distance, path_lengths, precision_recall
from ..options import check_options
from .metrics import copying, frechet, neighbours

Pairs = Callable[[int, float], Iterator[tuple[Tensor, Tensor]]]  # number and distance -> uint8 [B, 3, H, W] each


@dataclass(frozen=True)
class Score:
    """A metric's value with its standard error; without a value, the note says why."""

    value: float | None
    se: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Sides:
    """What is compared, as one extractor sees it."""

    fake: Features
    real: Features  # the reference
    heldout: Features | None  # real samples that nobody trained on
    moments: frechet.Moments  # of the reference
    pairs: Pairs | None = None  # of samples whose latents are near each other, where a generator made the fake side


class Measure(Protocol):
    """A metric with its settings."""

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that it gives."""

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return the scores of the fake side."""


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """Fréchet distance (Heusel et al. 2017, arXiv:1706.08500) with the jackknife's error over `groups`; 0: no error."""

    groups: int = 20
    names: ClassVar[tuple[str, ...]] = ("FD",)

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return FD; not negative but for rounding, smaller is better."""
        values = sides.fake.values
        distance = frechet.distance(frechet.moments(values), sides.moments)
        error = frechet.jackknife(values, sides.moments, self.groups) if 0 < 2 * self.groups <= len(values) else None
        return {"FD": Score(distance, error)}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Kernel distance (Bińkowski et al. 2018, arXiv:1801.01401), unbiased: it may be negative; error of the mean."""

    subsets: int = 100
    size: int = 1000
    seed: int = 2020
    names: ClassVar[tuple[str, ...]] = ("KD",)

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return KD; smaller is better."""
        mean, spread = kernel_distance(sides.fake.values, sides.real.values, self.subsets, self.size, self.seed)
        return {"KD": Score(mean, spread / self.subsets**0.5)}


@dataclass(frozen=True, kw_only=True)
class InceptionScore:
    """Inception Score's form (Salimans et al. 2016, arXiv:1606.03498) on the extractor's own classes, if it has any."""

    splits: int = 10
    seed: int = 2020
    names: ClassVar[tuple[str, ...]] = ()

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return IS, 1 to the number of classes, where the extractor classifies; larger is better."""
        if sides.fake.logits is None:
            return {}
        mean, spread = inception_score(sides.fake.logits, self.splits, self.seed)
        return {"IS": Score(mean, spread / self.splits**0.5)}


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """Precision and recall by balls of nearest neighbours (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""

    samples: int = 5000
    neighbours: int = 3
    names: ClassVar[tuple[str, ...]] = ("Precision", "Recall")

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return both, 0 to 1; larger is better."""
        fake, real = _thin(sides.fake.values, self.samples), _thin(sides.real.values, self.samples)
        return dict(zip(self.names, map(Score, precision_recall(fake, real, self.neighbours)), strict=True))


@dataclass(frozen=True, kw_only=True)
class DensityCoverage:
    """Density, which an outlier does not fool, and coverage of the real samples (Naeem et al. 2020, arXiv:2002.09797)."""

    samples: int = 5000
    neighbours: int = 5
    names: ClassVar[tuple[str, ...]] = ("Density", "Coverage")

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return density, from 0 with 1 for real samples, and coverage, 0 to 1; larger is better."""
        fake, real = _thin(sides.fake.values, self.samples), _thin(sides.real.values, self.samples)
        found = neighbours.density_coverage(fake, real, self.neighbours)
        return dict(zip(self.names, map(Score, found), strict=True))


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """AuthPct (Alaa et al. 2022, arXiv:2102.08921) and C_T (Meehan et al. 2020, arXiv:2004.05675): copies of training data?

    Neither proves anything alone; both are read beside what held-out real samples score.
    """

    samples: int = 5000
    names: ClassVar[tuple[str, ...]] = ("AuthPct", "C_T")

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return AuthPct, 0 to 100 percent, and C_T: far below 0 for copies, far above for samples unlike the data."""
        fake = _thin(sides.fake.values, self.samples)
        authentic = Score(neighbours.authenticity(fake, sides.real.values))
        if sides.heldout is None:
            return {"AuthPct": authentic, "C_T": Score(None, note="the data has no held-out split")}
        test = _thin(sides.heldout.values, self.samples)
        return {"AuthPct": authentic, "C_T": Score(copying.copying(fake, test, sides.real.values))}


@dataclass(frozen=True, kw_only=True)
class FrechetInfinity:
    """Fréchet distance at infinitely many samples, by a line in 1/N (Chong and Forsyth 2020, arXiv:1911.07023)."""

    least: int = 5000
    names: ClassVar[tuple[str, ...]] = ("FD-inf",)

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return FD-inf, which may be negative near zero; smaller is better."""
        return {"FD-inf": Score(frechet.infinity(sides.fake.values, sides.moments, self.least))}


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """Perceptual path length (Karras et al. 2019, arXiv:1812.04948) between latents `epsilon` apart, by LPIPS.

    The lowest and highest percent are left out, as published. It needs LPIPS's weights in torch-fidelity's cache.
    """

    samples: int = 10_000
    epsilon: float = 1e-4
    similarity: str = "lpips-vgg16"
    names: ClassVar[tuple[str, ...]] = ("PPL",)

    def __call__(self, sides: Sides) -> dict[str, Score]:
        """Return PPL; smaller is smoother."""
        if sides.pairs is None:
            return {"PPL": Score(None, note="only a generator has a path length")}
        try:
            lengths = path_lengths(sides.pairs(self.samples, self.epsilon), self.epsilon, self.similarity)
        except PluginError as error:
            return {"PPL": Score(None, note=str(error))}
        low, high = np.percentile(lengths, 1, method="lower"), np.percentile(lengths, 99, method="higher")
        kept = lengths[(lengths >= low) & (lengths <= high)].double()
        return {"PPL": Score(float(kept.mean()), float(kept.std() / len(kept) ** 0.5))}


MEASURES: Mapping[str, Callable[..., Measure]] = {
    "frechet": Frechet,
    "kernel": Kernel,
    "inception-score": InceptionScore,
    "precision-recall": PrecisionRecall,
    "density-coverage": DensityCoverage,
    "memorisation": Memorisation,
    "frechet-infinity": FrechetInfinity,
    "perceptual-path-length": PathLength,
}


def build(metrics: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> list[Measure]:
    """Return the metrics with their settings; RecipeError or PluginError for one, or for a setting, that there is not."""
    built = []
    for name in metrics:
        if name not in MEASURES:
            raise RecipeError(
                f"there is no metric {name!r}{did_you_mean(name, MEASURES)} (there are: {', '.join(MEASURES)})"
            )
        built.append(MEASURES[name](**check_options(f"metric {name!r}", MEASURES[name], options.get(name, {}))))
    return built


def measure(sides: Sides, measures: Iterable[Measure]) -> dict[str, Score]:
    """Return all scores of one side against the other; what too few samples cannot give carries the reason instead.

    DataError where features are not finite: then nothing is a score.
    """
    if not bool(torch.isfinite(sides.fake.values).all()):
        raise DataError("features are not finite, so no score can be had from them; look at the samples (NaN images?)")
    scores: dict[str, Score] = {}
    for one in measures:
        try:
            scores |= one(sides)
        except DataError as error:
            scores |= {name: Score(None, note=str(error)) for name in one.names}
    return scores


def heldout(sides: Sides, measures: Iterable[Measure]) -> dict[str, float | None]:
    """Return what real samples that nobody trained on score in memorisation: one half of them against the other."""
    if sides.heldout is None or len(sides.heldout.values) < 4:
        return {}
    values = sides.heldout.values
    halves = Sides(Features(values[::2]), sides.real, Features(values[1::2]), sides.moments)
    found = measure(halves, (one for one in measures if "C_T" in one.names))
    return {name: score.value for name, score in found.items()}


def _thin(features: Tensor, count: int) -> Tensor:
    """Return `count` rows at even distances, or all there are; evenly, because data may be sorted by class."""
    if len(features) <= count:
        return features
    return features[torch.arange(count) * len(features) // count]
