"""C_T: are generated samples closer to the training data than unseen real samples are?"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError
from .frechet import checked
from .neighbours import nearest

ROUNDS = 50  # of k-means at most
LEAST = 20  # samples of either kind in a cell; a smaller one says nothing


def copying(fake: Tensor, test: Tensor, train: Tensor, cells: int = 1, seed: int = 0) -> float:
    """Return C_T of features (Meehan et al. 2020, arXiv:2004.05675): far below 0 for copies, far above 0 for underfitting.

    In each k-means cell of the training data [T, d], Mann and Whitney's U compares the distances to the nearest training
    sample of generated [N, d] and of held-out [M, d] samples, as a z-score; cells weigh as much as they hold of the
    held-out samples. `cells` = 1 compares all at once. Cells with fewer than 20 samples of either kind are left out.
    """
    for part, what in ((fake, "generated features"), (test, "held-out features"), (train, "training features")):
        checked(part, 2, what)
    if not 1 <= cells <= len(train):
        raise DataError(f"{len(train)} training samples cannot be cut into {cells} cells; ask for 1 to {len(train)}")
    of_fake, of_test = nearest(fake, train)[0], nearest(test, train)[0]
    if cells == 1:
        return _z(of_fake, of_test)
    centres = _centres(train.float(), cells, seed)
    home_fake, home_test = (nearest(part, centres)[1] for part in (fake, test))
    weighted, weight = 0.0, 0
    for cell in range(len(centres)):
        here, there = of_fake[home_fake == cell], of_test[home_test == cell]
        if min(len(here), len(there)) >= LEAST:
            weighted += len(there) * _z(here, there)
            weight += len(there)
    if not weight:
        raise DataError(f"no cell holds {LEAST} samples of either kind; ask for fewer cells or more samples")
    return weighted / weight


def _z(first: Tensor, second: Tensor) -> float:
    """Return the z-score of Mann and Whitney's U, tied values sharing their mean rank: below 0 where `first` is smaller."""
    n, m = len(first), len(second)
    _, back, counts = np.unique(torch.cat([first, second]).numpy(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[back]
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    # without the correction for ties, as published: with it, copies at distance zero would score beyond the saturation
    return (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


def _centres(train: Tensor, cells: int, seed: int) -> Tensor:
    """Return the centres of k-means, started by k-means++ (Arthur and Vassilvitskii 2007) from a stream of its own."""
    source = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    centres = train[[int(source.integers(len(train)))]]
    closest = _squares(train, centres[0])
    while len(centres) < cells and closest.any():  # fewer distinct samples than cells end it earlier
        centres = torch.cat([centres, train[[int(source.choice(len(train), p=closest / closest.sum()))]]])
        closest = np.minimum(closest, _squares(train, centres[-1]))
    for _ in range(ROUNDS):
        home = torch.cdist(train, centres).argmin(1)
        counts = torch.bincount(home, minlength=len(centres))
        sums = torch.zeros_like(centres, dtype=torch.float64).index_add_(0, home, train.double())
        moved = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centres.double()).float()
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _squares(features: Tensor, centre: Tensor) -> NDArray[np.float64]:
    return np.asarray((features - centre).square().sum(1).double().numpy())
