"""What this machine can do at most, measured: the arithmetic of large matrix products and of usual convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import Device
from .rounds import clock

SIDES = (512, 1024, 2048, 4096)
BATCH = 64
# channels in and out, pixels, kernel, stride
CONVOLUTIONS = ((64, 64, 32, 3, 1), (128, 128, 16, 3, 1), (256, 256, 8, 3, 1), (64, 128, 32, 4, 2), (128, 256, 16, 4, 2))
RUNS = 3  # at least, for a median


@dataclass(frozen=True)
class Work:
    """A function of two tensors that can be timed, with what it costs."""

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    run: Callable[[Tensor, Tensor], Tensor]
    flops: int


@dataclass(frozen=True)
class Rate:
    """The arithmetic that some work reaches."""

    name: str
    flops_per_second: float


Peak = Mapping[str, Rate]  # kind of work -> the best of it


def product(side: int) -> Work:
    """Return the product of two square matrices."""
    return Work(f"{side}x{side}", ((side, side), (side, side)), torch.matmul, 2 * side**3)


def convolution(wide: int, made: int, pixels: int, kernel: int, stride: int, batch: int = BATCH) -> Work:
    """Return a convolution as networks of the zoo have them, forward."""

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, stride=stride, padding=1)

    side = (pixels + 2 - kernel) // stride + 1
    return Work(
        f"{kernel}x{kernel}, stride {stride}, {wide} to {made} channels, {pixels}x{pixels} pixels",
        ((batch, wide, pixels, pixels), (made, wide, kernel, kernel)),
        run,
        2 * batch * made * side**2 * wide * kernel**2,
    )


KINDS: Mapping[str, Sequence[Work]] = {
    "matrix product": [product(side) for side in SIDES],
    "convolution": [convolution(*shape) for shape in CONVOLUTIONS],
}


def fastest(works: Sequence[Work], device: Device, seconds: float) -> Rate:
    """Return the best median rate; works have equal shares of the seconds, and what is too large for one is left out."""
    best, share = Rate("", 0.0), seconds / len(works)
    for work in works:
        if work.flops * RUNS <= share * best.flops_per_second or not best.name:
            rate = work.flops / median(_times(work, device, share))
            best = max(best, Rate(work.name, rate), key=_rate)
    return best


def _times(work: Work, device: Device, seconds: float) -> list[float]:
    """Time a work, in the layout and precision that networks run in, for so many seconds; the first run is not counted."""
    one, other = (_draw(device, shape) for shape in work.shapes)
    read = clock(device)
    times: list[float] = []
    while len(times) <= RUNS or sum(times) < seconds:
        start = read()
        work.run(one, other)
        times.append(read() - start)
    return times[1:]


def _draw(device: Device, shape: Sequence[int]) -> Tensor:
    x = torch.randn(shape, device=device.device, dtype=torch.bfloat16 if device.bf16 else torch.float32)
    return x.to(memory_format=torch.channels_last) if device.channels_last and x.ndim == 4 else x


def _rate(rate: Rate) -> float:
    return rate.flops_per_second


def measure(device: Device, seconds: float, kinds: Mapping[str, Sequence[Work]] = KINDS) -> Peak:
    """Return the best of each kind of work, found in about so many seconds."""
    with torch.no_grad(), device.numerics():  # else cuDNN rounds what float32 convolutions multiply
        return {kind: fastest(works, device, seconds / len(kinds)) for kind, works in kinds.items()}


def better(one: Peak, other: Peak) -> Peak:
    """Return the better rate of each kind."""
    return {kind: max(one[kind], other[kind], key=_rate) for kind in one}


def larger(peak: Peak) -> str:
    """Return the kind of work that is the faster one."""
    return max(peak, key=lambda kind: peak[kind].flops_per_second)
