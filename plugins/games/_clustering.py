"""k-means on features, as a mixture's E-steps need it: the same bits on every run, and labels that keep their meaning."""

from __future__ import annotations

import torch
from torch import Tensor

SWEEPS = 100  # of Lloyd's algorithm at most; it ends by itself where no point moves any more
POWER = 4  # iterations of the randomised decomposition: enough for features whose spectrum falls slowly


def principal(features: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Return the mean [F] and directions of largest variance [F, dimensions] of features [N, F]; zeros fill the rest."""
    mean = features.mean(0)
    count = min(dimensions, *features.shape)
    basis = torch.zeros(features.shape[1], dimensions, device=features.device)
    basis[:, :count] = torch.pca_lowrank(features - mean, q=count, center=False, niter=POWER)[2]
    return mean, basis


def spread_points(points: Tensor, count: int) -> Tensor:
    """Return `count` of the points [N, F], each drawn in proportion to its squared distance from those before it.

    k-means++ (Arthur & Vassilvitskii 2007, doi:10.5555/1283383.1283494).
    """
    chosen = [points[torch.randint(len(points), (1,))[0]]]
    distance = (points - chosen[0]).square().sum(1)
    for _ in range(count - 1):
        ahead = distance.double().cumsum(0)
        at = torch.searchsorted(ahead, torch.rand(1, dtype=torch.float64).to(ahead.device) * ahead[-1])
        chosen.append(points[at.clamp(max=len(points) - 1)[0]])
        distance = torch.minimum(distance, (points - chosen[-1]).square().sum(1))
    return torch.stack(chosen)


def means_of(points: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean [count, F] of the points of each label, and how many each has; an empty one has mean zero."""
    member = torch.nn.functional.one_hot(labels, count).to(points.dtype)
    sizes = member.sum(0)
    return member.T @ points / sizes.clamp(min=1)[:, None], sizes


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return each point's nearest centre and the squared distance to it."""
    squared, index = squared_distances(points, centres).min(1)
    return index, squared


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distances [N, K] of points [N, F] to centres [K, F]."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


def k_means(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres [K, F] and labels [N] of Lloyd's algorithm from these; a starved one gets the farthest point."""
    labels = torch.full((len(points),), -1, device=points.device)
    for _ in range(SWEEPS):
        moved, squared = nearest(points, centres)
        if torch.equal(moved, labels):
            break
        labels = moved
        centres, sizes = means_of(points, labels, len(centres))
        starved = (sizes == 0).nonzero()[:, 0]
        if len(starved):
            farthest = squared.topk(len(starved)).indices
            centres[starved], labels[farthest] = points[farthest], starved
    return centres, labels


def relabelled(labels: Tensor, before: Tensor, count: int) -> Tensor:
    """Return the order [count] of the new labels under which most points keep the label that they had before.

    Entry k is the new label that takes the name k (Hungarian matching of the table of both).
    """
    from scipy.optimize import linear_sum_assignment  # imported here: it takes a third of a second, once in many rounds

    table = torch.bincount(before * count + labels, minlength=count * count).view(count, count)
    _, columns = linear_sum_assignment(table.cpu().numpy(), maximize=True)
    return torch.as_tensor(columns, device=labels.device)
