"""The Fréchet distance between Gaussians fitted to features, its error, and what a perfect generator would score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError

Array = NDArray[np.float64]
BLOCK = 4096  # rows that are turned to float64 at a time
SIZES = 15  # points of the line that is followed to infinitely many samples
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Moments:
    """Mean [d] and unbiased covariance [d, d], as `np.cov` has it, of `count` features, in float64."""

    count: int
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class _Sums:
    """Count, sum [d] and sum of outer products [d, d] of features around a fixed centre: these can be taken away again."""

    count: int
    total: Array
    outer: Array

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.count - other.count, self.total - other.total, self.outer - other.outer)

    def moments(self, centre: Array) -> Moments:
        """Return mean and covariance of what was summed."""
        mean = self.total / self.count
        covariance = (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Moments(self.count, mean + centre, covariance)


def checked(features: Tensor, least: int = 2, what: str = "features") -> Tensor:
    """Return features [N, d] that can be scored; DataError for too few or for numbers that are not finite."""
    if features.ndim != 2 or not features.shape[1]:
        raise DataError(f"{what} of shape {tuple(features.shape)} cannot be scored; give [samples, numbers]")
    if len(features) < least:
        raise DataError(f"{what} of {len(features):,} samples cannot be scored; ask for at least {least:,} samples")
    if not bool(torch.isfinite(features).all()):
        raise DataError(f"{what} are not finite, so no score can be had from them; look at the samples (NaN images?)")
    return features


def moments(features: Tensor) -> Moments:
    """Return mean and covariance of features [N, d], N >= 2, summed in float64 by blocks of rows.

    float32 sums would be wrong in the fourth digit of a small distance; torch-fidelity's mean of float32 features is.
    """
    centre = _centre(checked(features))
    return _sums(features, centre).moments(centre)


def _centre(features: Tensor) -> Array:
    """Return a point among the features: sums around it lose no digits where the mean is large beside the spread."""
    return np.asarray(features[:BLOCK].double().mean(0).numpy())


def _sums(features: Tensor, centre: Array) -> _Sums:
    size = features.shape[1]
    total, outer = np.zeros(size), np.zeros((size, size))
    for block in torch.split(features, BLOCK):
        rows = block.double().numpy() - centre
        total += rows.sum(0)
        outer += rows.T @ rows
    return _Sums(len(features), total, outer)


def distance(first: Moments, second: Moments) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2) (Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500).

    Nothing is added to the diagonals. Rounding may make the distance of equal sets slightly negative.
    """
    if first.mean.shape != second.mean.shape:
        raise DataError(
            f"features of {len(first.mean)} and {len(second.mean)} numbers cannot be compared; use one extractor"
        )
    for side in (first, second):
        if side.count < 2 or not (np.isfinite(side.mean).all() and np.isfinite(side.covariance).all()):
            raise DataError("mean or covariance is not finite, so there is no distance; look at the features (too large?)")
    difference = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(difference @ difference + traces - 2 * _root_trace(first.covariance, second.covariance))


def _root_trace(first: Array, second: Array) -> float:
    """Return tr (S1 S2)^1/2 from symmetric matrices only, which is faster than the eigenvalues of S1 S2.

    With S1 = L L^T it is the sum of the roots of the eigenvalues of L^T S2 L. A root turns an eigenvalue that is zero but
    for rounding (1e-16) into 1e-8, so singular covariances go through singular values, where no root is taken.
    """
    one, other = torch.from_numpy(first), torch.from_numpy(second)
    left, right = _cholesky(one), _cholesky(other)
    if left is not None and right is not None:
        return float(torch.linalg.eigvalsh(left.T @ other @ left).clamp_(min=0).sqrt().sum())
    left, right = (_factor(part) if known is None else known for part, known in ((one, left), (other, right)))
    return float(torch.linalg.svdvals(right.T @ left).sum())


def _cholesky(covariance: Tensor) -> Tensor | None:
    """Return the lower triangular L with L L^T = covariance, or None where that is singular but for rounding."""
    lower, failed = torch.linalg.cholesky_ex(covariance)
    least = len(covariance) * EPSILON * covariance.diagonal().max()
    return lower if not failed and lower.diagonal().min() ** 2 > least else None


def _factor(covariance: Tensor) -> Tensor:
    """Return L [d, rank] with L L^T = covariance: fewer samples than numbers, or features that are dead or the same."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * EPSILON * values[-1].clamp(min=0)
    factor: Tensor = vectors[:, kept] * values[kept].sqrt()
    return factor


def jackknife(features: Tensor, reference: Moments, groups: int = 20) -> float:
    """Return the standard error of the distance of features [N, d], N >= 2 groups: all but one of the groups, in turn.

    Delete-a-group jackknife (Kott 2001) with every `groups`-th sample in a group. A bootstrap draws samples twice, and that
    alone makes the distance larger.
    """
    if groups < 2:
        raise DataError(f"a jackknife over {groups} groups has no spread; ask for at least 2")
    centre = _centre(checked(features, 2 * groups))
    whole = _sums(features, centre)
    parts = (_sums(features[number::groups], centre) for number in range(groups))
    without = np.array([distance((whole - part).moments(centre), reference) for part in parts])
    return float(np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum()))


def floor(covariance: Array, fakes: int, reals: int) -> float:
    """Return the distance that a perfect generator is expected to have with so many samples: a Gaussian approximation.

    (1/n + 1/m) [sum l_i + 1/2 (sum_ij l_i l_j / (l_i + l_j) + 1/2 sum l_i)] with the covariance's eigenvalues l: the mean's
    own error and the second-order expansion of the Bures metric. It holds where both counts are well above d.
    """
    if min(fakes, reals) < 2:
        raise DataError(f"a distance of {fakes} to {reals} samples has no floor; ask for at least 2 of each")
    if not np.isfinite(covariance).all():
        raise DataError("the covariance is not finite, so there is no floor; look at the features (too large?)")
    values = np.clip(np.linalg.eigvalsh(covariance), 0.0, None)
    values = values[values > len(values) * EPSILON * values.max(initial=0.0)]
    pairs = (values[:, None] * values / (values[:, None] + values)).sum()
    return float((1 / fakes + 1 / reals) * (values.sum() + 0.5 * (pairs + 0.5 * values.sum())))


def measured_floor(features: Tensor, fakes: int, reals: int, seed: int = 0) -> float:
    """Return the distance between two random halves of real features [N, d], N >= 4, scaled to these counts of samples."""
    if min(fakes, reals) < 2:
        raise DataError(f"a distance of {fakes} to {reals} samples has no floor; ask for at least 2 of each")
    order = _shuffled(len(checked(features, 4)), seed)
    half = len(features) // 2
    first, second = features[order[:half]], features[order[half:]]
    scale = (1 / fakes + 1 / reals) / (1 / len(first) + 1 / len(second))
    return distance(moments(first), moments(second)) * scale


def infinity(features: Tensor, reference: Moments, least: int = 5000, seed: int = 0) -> float:
    """Return the distance at infinitely many samples: a line in 1/N through 15 sizes, `least` to N, of features [N, d].

    Chong and Forsyth 2020 (arXiv:1911.07023), with random subsets from a stream of their own instead of Sobol points. It
    may be negative near zero.
    """
    if least < 2:
        raise DataError(f"a line cannot begin at {least} samples; ask for at least 2")
    count = len(checked(features, least + SIZES))
    sizes = np.linspace(least, count, SIZES).astype(int)
    found = [
        distance(moments(features[_shuffled(count, seed, number)[:size]]), reference) for number, size in enumerate(sizes)
    ]
    return float(np.polyfit(1 / sizes, found, 1)[1])


def _shuffled(count: int, *seed: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).permutation(count))
