"""How far clusters agree with classes: the shares and numbers by which clusterings are compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """Three measures of agreement; 1 is a perfect match in all of them."""

    accuracy: float  # share of samples in the class that their cluster stands for, each cluster for another class at most
    nmi: float  # mutual information over the arithmetic mean of both entropies, 0 to 1
    ari: float  # adjusted Rand index (Hubert & Arabie 1985, doi:10.1007/BF01908075): 0 on average by chance


def agreement(clusters: Tensor, classes: Tensor) -> Agreement:
    """Compare clusters [N] with classes [N], both numbered from 0."""
    from scipy.optimize import linear_sum_assignment  # imported here: half a second, and only this command needs it

    table = torch.zeros(int(clusters.max()) + 1, int(classes.max()) + 1, dtype=torch.float64)
    table.index_put_((clusters, classes), torch.ones(len(clusters), dtype=torch.float64), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return Agreement(float(table[rows, columns].sum()) / len(clusters), _nmi(table), _ari(table))


def _nmi(table: Tensor) -> float:
    share = table / table.sum()
    row, column = share.sum(1), share.sum(0)
    entropies = [-float(torch.special.xlogy(p, p).sum()) for p in (row, column)]
    shared = float(torch.special.xlogy(share, share / (row[:, None] * column).clamp(min=1e-300)).sum())
    mean = sum(entropies) / 2
    return shared / mean if mean > 0 else 1.0


def _ari(table: Tensor) -> float:
    def pairs(count: Tensor) -> float:
        return float((count * (count - 1) / 2).sum())

    both, row, column, whole = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), pairs(table.sum())
    by_chance = row * column / whole if whole else 0.0
    most = (row + column) / 2
    return (both - by_chance) / (most - by_chance) if most != by_chance else 1.0
