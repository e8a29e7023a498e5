"""Latents and labels by position: sample i depends on the seed and i alone, whatever the batch, the device or a resume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WORD = 2.0**-53  # one step of a 53-bit uniform number
TRIES = 64  # of a truncated latent's numbers; beyond 64 misses in a row it is cut off


def latents(start: int, stop: int, size: int, prior: str, seed: int, bound: float = math.inf) -> Tensor:
    """Return z [stop - start, size] float32, standard normal or uniform in [-1, 1]: the rule `philox/1`.

    Row i is made of the words of Philox-4x64 (Salmon et al. 2011) with the seed as its key and i in its counter, as 53-bit
    uniform numbers; normal ones by Box and Muller's transform in float64. Of these, numbers beyond `bound` are drawn
    again from the same stream.
    """
    rows = [_row(number, size, prior, seed, bound) for number in range(start, stop)]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, size)


def _row(number: int, size: int, prior: str, seed: int, bound: float) -> np.ndarray:
    source = np.random.Philox(key=seed, counter=[0, number, 0, 0])
    if prior == "uniform":
        return (2 * _uniform(source, size) - 1).astype(np.float32)
    values = _normal(source, size)
    for _ in range(TRIES):
        outside = np.abs(values) > bound
        if not outside.any():
            break
        values[outside] = _normal(source, int(outside.sum()))
    return np.asarray(np.clip(values, -bound, bound), dtype=np.float32)


def _uniform(source: np.random.Philox, count: int) -> np.ndarray:
    """Return numbers in (0, 1), never 0 nor 1."""
    words = np.atleast_1d(source.random_raw(count))
    return (words >> np.uint64(11)) * WORD + WORD / 2


def _normal(source: np.random.Philox, count: int) -> np.ndarray:
    pairs = (count + 1) // 2
    uniform = _uniform(source, 2 * pairs)
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def stratified(count: int, classes: Sequence[int]) -> Tensor:
    """Return labels [count] in the proportions of `classes` (samples of each class), spread evenly over the positions.

    Each class gets its share rounded by largest remainders; a prefix of the labels is as balanced as it can be.
    """
    total = sum(classes)
    shares = [count * size / total for size in classes]
    counts = [int(share) for share in shares]
    order = sorted(range(len(classes)), key=lambda label: (counts[label] - shares[label], label))
    for label in order[: count - sum(counts)]:
        counts[label] += 1
    places = [((place + 0.5) / size, label) for label, size in enumerate(counts) for place in range(size)]
    return torch.tensor([label for _, label in sorted(places)], dtype=torch.int64)
