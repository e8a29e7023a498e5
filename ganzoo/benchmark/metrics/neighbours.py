"""Nearest neighbours in feature space, and what they say of fidelity, diversity and memorisation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from .frechet import checked

BLOCK = 512  # queries at a time: distances are never held for all pairs
ENOUGH = 64  # candidates a query that are computed exactly; more than that lie within rounding only in degenerate data
SPARE = 8  # further candidates for the k-th neighbour
PIECE = 2**22  # numbers that are turned to float64 at a time


def _squares(queries: Tensor, keys: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, squared distances [B, M]) by matrix products in float32, inexact within `_rounding`."""
    norms = keys.square().sum(1)
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        yield start, torch.addmm(rows.square().sum(1)[:, None] + norms, rows, keys.T, alpha=-2).clamp_(min=0)


def _rounding(points: Tensor, squares: Tensor) -> Tensor:
    """Return at most how far `_squares` is off, for points [N, d] and others at known squared distances [N].

    The error is within 2 (d + 4) eps (|x|^2 + |y|^2), and |y|^2 within 2 |x|^2 + 2 |x - y|^2.
    """
    return 2.1 * (points.shape[1] + 4) * torch.finfo(points.dtype).eps * (3 * points.square().sum(1) + 2 * squares)


def _exact(first: Tensor, second: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return squared distances [P] in float64, from differences, of first[rows] to second[columns]: zero for a copy."""
    piece = max(PIECE // first.shape[1], 1)
    parts = [
        (first[row].double() - second[column].double()).square().sum(1)
        for row, column in zip(torch.split(rows, piece), torch.split(columns, piece), strict=True)
    ]
    return torch.cat(parts)


def nearest(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for queries [N, d], the distances [N] in float64 to their nearest keys [M, d] and those keys' positions [N].

    Matrix products leave the candidates that rounding cannot rule out, whose distances are then computed from differences:
    a copy is at exactly zero. Where more than 64 keys are left, the distance is right within float32's rounding.
    """
    return _nearest(*_same(queries, keys))


def _nearest(queries: Tensor, keys: Tensor, but: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return distances and positions of the nearest keys; `but` [N] has a position for each query that does not count."""
    centre = keys.mean(0)  # rounding is smallest around it
    distances, positions = [], []
    moved = queries - centre
    for start, squares in _squares(moved, keys - centre):
        every = torch.arange(len(squares))
        if but is not None:
            squares[every, but[start : start + len(squares)]] = torch.inf
        least = squares.amin(1)
        limit = least + 2 * _rounding(moved[start : start + len(squares)], least)  # its own error and the nearest one's
        rows, columns = (squares <= limit[:, None]).nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(squares))
        if int(counts.max()) > ENOUGH:
            columns = squares.topk(min(ENOUGH, len(keys) - (but is not None)), dim=1, largest=False).indices.flatten()
            counts = torch.full_like(counts, len(columns) // len(squares))
            rows = every.repeat_interleave(counts)
        exact = _exact(queries[start : start + len(squares)], keys, rows, columns)
        best = torch.full((len(squares),), torch.inf, dtype=torch.float64).scatter_reduce_(0, rows, exact, "amin")
        tied = torch.where(exact == best[rows], columns, len(keys))
        distances.append(best.sqrt())
        positions.append(torch.full_like(every, len(keys)).scatter_reduce_(0, rows, tied, "amin"))
    return torch.cat(distances), torch.cat(positions)


def _radii(features: Tensor, k: int) -> Tensor:
    """Return the squared distance [N], in float64, of each row of features [N, d] to its k-th nearest other row."""
    found, several = [], min(k + SPARE, len(features) - 1)
    for start, squares in _squares(features, features):
        every = torch.arange(len(squares))
        squares[every, start + every] = torch.inf
        candidates = squares.topk(several, dim=1, largest=False).indices
        exact = _exact(features, features, (start + every).repeat_interleave(several), candidates.flatten())
        found.append(exact.view(-1, several).kthvalue(k, dim=1).values)
    return torch.cat(found)


def density_coverage(fake: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Return density and coverage of features [N, d] and [M, d], M > k (Naeem et al. 2020, arXiv:2002.09797).

    Density, 0 upwards, counts the real samples' balls that a generated sample lies inside, over k: 1 for real samples.
    Coverage, 0 to 1, is the share of balls with a generated sample inside: about 1 - 2^-k for as many real samples. A ball
    ends at the k-th nearest other real sample, which is not inside.
    """
    fake, real = _same(fake, real)
    checked(fake, 2, "generated features")
    if k < 1 or len(real) <= k:
        raise DataError(f"density and coverage of {len(real)} real samples need 1 to {len(real) - 1} neighbours, not {k}")
    centre = real.mean(0)
    fake, real = fake - centre, real - centre
    reach = _radii(real, k)
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    error = _rounding(real, reach.float())
    surely, perhaps = reach.float() - error, reach.float() + error
    for start, squares in _squares(fake, real):
        within = squares < surely
        rows, columns = ((squares <= perhaps) ^ within).nonzero(as_tuple=True)
        if len(rows) <= ENOUGH * len(squares):
            within[rows, columns] = _exact(fake[start : start + len(squares)], real, rows, columns) < reach[columns]
        inside += int(within.sum())
        covered |= within.any(0)
    return inside / (k * len(fake)), float(covered.double().mean())


def authenticity(fake: Tensor, train: Tensor) -> float:
    """Return AuthPct, 0 to 100: the share of generated samples [N, d] that do not look copied from training data [M, d].

    A sample counts as a copy where its nearest training sample is not farther from it than from any other training sample
    (Alaa et al. 2022, arXiv:2102.08921, as in dgm-eval). Unseen real samples score 50 to 80, not 100: show both.
    """
    fake, train = _same(fake, train)
    checked(fake, 2, "generated features")
    checked(train, 2, "training features")
    away, position = _nearest(fake, train)
    own, back = (torch.from_numpy(part) for part in np.unique(position.numpy(), return_inverse=True))
    spacing = _nearest(train[own], train, but=own)[0][back]
    return float((away > spacing).double().mean()) * 100


def _same(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32; DataError where they cannot be compared."""
    checked(first, 1), checked(second, 1)
    if first.shape[1] != second.shape[1]:
        raise DataError(f"features of {first.shape[1]} and {second.shape[1]} numbers cannot be compared; use one extractor")
    first, second = checked(first.float(), 1), checked(second.float(), 1)
    largest = max(float(first.abs().max()), float(second.abs().max()))
    if largest**2 * first.shape[1] > torch.finfo(torch.float32).max / 16:
        raise DataError("features are so large that their squared distances overflow; scale them in the extractor")
    return first, second
