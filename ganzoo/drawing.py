"""What makes single samples better when a trained model is drawn from: truncation, and standing statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .api import Truncatable

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def truncatable(nets: Iterable[nn.Module]) -> list[Truncatable]:
    """Return the networks that have a way of their own to draw nearer to the mean."""
    return [net for net in nets if isinstance(net, Truncatable)]


@contextmanager
def truncated(nets: Iterable[Truncatable], psi: float) -> Iterator[None]:
    """Let networks draw nearer to the mean in this block."""
    nets = list(nets)
    try:
        for net in nets:
            net.truncate(psi)
        yield
    finally:
        for net in nets:
            net.truncate(1.0)


def norms(nets: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Return what normalises by running statistics."""
    return [part for net in nets for part in net.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]


@contextmanager
def standing(found: Iterable[_BatchNorm], draw: Callable[[], object]) -> Iterator[None]:
    """Normalise, in this block, by the mean statistics of the batches that `draw` makes.

    What sees none of these batches keeps its statistics.
    """
    found = list(found)
    kept = [[cast("Tensor", getattr(norm, name)).clone() for name in STATISTICS] for norm in found]
    try:
        _gather(found, draw)
        for norm, values in zip(found, kept, strict=True):
            if not cast("Tensor", norm.num_batches_tracked):
                _put(norm, values)
        yield
    finally:
        for norm, values in zip(found, kept, strict=True):
            _put(norm, values)


def _gather(found: list[_BatchNorm], draw: Callable[[], object]) -> None:
    momenta = [norm.momentum for norm in found]
    try:
        for norm in found:
            norm.reset_running_stats()
            norm.train().momentum = None  # every batch counts the same
        draw()
    finally:
        for norm, momentum in zip(found, momenta, strict=True):
            norm.eval().momentum = momentum


def _put(norm: _BatchNorm, values: list[Tensor]) -> None:
    for name, value in zip(STATISTICS, values, strict=True):
        cast("Tensor", getattr(norm, name)).copy_(value)
