"""Augmentations of images [N, channels, H, W], each done to a share p of the samples; every sample has its own draws.

All of them are linear in the image, so gradients of any order run through them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 1 / 8  # of the size: the largest translation by whole pixels, and the standard deviation of one by fractions
# the wavelet sym6 (Daubechies 1992, Ten Lectures on Wavelets): low-pass, orthonormal to its even shifts, nearly symmetric
LOW_PASS = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
REACH = len(LOW_PASS) // 2  # of the filter, in pixels of the doubled image


def chosen(x: Tensor, p: Tensor) -> Tensor:
    """Return a share p of the samples, as bool [N]."""
    return torch.rand(len(x), device=x.device) < p


def blit(x: Tensor, p: Tensor) -> Tensor:
    """Flip left to right, turn by a multiple of 90 degrees and move by whole pixels; what moves in is the mirror image."""
    size = x.shape[-1]
    flip = (torch.rand(len(x), device=x.device) < 0.5) & chosen(x, p)
    turns = torch.randint(0, 4, (len(x),), device=x.device) * chosen(x, p)
    shift = (torch.rand(2, len(x), device=x.device) * 2 - 1) * SHIFT
    down, right = (shift * size).round().long() * chosen(x, p)
    place = torch.arange(size, device=x.device)
    row = _mirrored(place - down[:, None], size)[:, :, None]  # [N, size, 1]: which row and column each pixel comes from
    column = _mirrored(place - right[:, None], size)[:, None, :]
    row, column = row.expand(-1, -1, size), column.expand(-1, size, -1)
    last = size - 1
    odd, far = (turns % 2 == 1)[:, None, None], (turns >= 2)[:, None, None]
    row, column = torch.where(odd, column, row), torch.where(odd, last - row, column)
    row, column = torch.where(far, last - row, row), torch.where(far, last - column, column)
    column = torch.where(flip[:, None, None], last - column, column)
    source = (row * size + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, source).view_as(x)


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Return positions less than a size outside, mirrored at the outermost pixels."""
    last = size - 1
    return last - (last - index.abs()).abs()


def geometric(x: Tensor, p: Tensor) -> Tensor:
    """Zoom, turn, stretch, turn again and move by fractions; what is outside is the mirror image.

    The image is doubled before and halved after, both with the wavelet's low-pass filter, which is exact where nothing else
    happens.
    """
    size = x.shape[-1]
    once = 1 - (1 - p).sqrt()  # of each turn, so that a share p is turned before or after the stretching
    place, moved = _placed(x, p, once)
    double = _doubling(size, x)
    grid = (torch.arange(-REACH + 1, 2 * size + REACH - 1, device=x.device, dtype=x.dtype) + 0.5) / size - 1
    points = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)  # [rows, columns, (x, y)], [-1, 1] inside
    where = points.flatten(0, 1) @ place[:, :, :2].mT + place[:, None, :, 2]
    where = where.unflatten(1, points.shape[:2])
    sampled = _sample(double @ x @ double.T, where)
    halve = _halving(size, x)
    return torch.where(moved.view(-1, 1, 1, 1), halve @ sampled @ halve.T, x)


def _placed(x: Tensor, p: Tensor, once: Tensor) -> tuple[Tensor, Tensor]:
    """Return from where each point [x, y, 1] of the result comes, [N, 2, 3], and which samples move at all."""
    zoom, stretch, move = chosen(x, p), chosen(x, p), chosen(x, p)
    first, second = chosen(x, once), chosen(x, once)
    scale = torch.exp2(-0.2 * _normal(x) * zoom)
    wide = torch.exp2(-0.2 * _normal(x) * stretch)
    linear = scale[:, None, None] * _turn(x, first) @ torch.diag_embed(torch.stack([wide, 1 / wide], 1)) @ _turn(x, second)
    offset = torch.randn(len(x), 2, 1, device=x.device, dtype=x.dtype) * (2 * SHIFT) * move.view(-1, 1, 1)
    return torch.cat([linear, -linear @ offset], 2), zoom | stretch | move | first | second


def _turn(x: Tensor, some: Tensor) -> Tensor:
    """Return rotations by any angle, [N, 2, 2]; the identity for who is not among the chosen."""
    angle = (torch.rand(len(x), device=x.device, dtype=x.dtype) * 2 - 1) * math.pi * some
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def _low_pass(like: Tensor) -> Tensor:
    """Return the filter where it is needed; it is filled in there, as a copy would wait."""
    return torch.stack([like.new_full((), tap) for tap in LOW_PASS])


def _doubling(size: int, like: Tensor) -> Tensor:
    """Return the map from a line of pixels to one of half the distance, [2 size, size]; the line goes on as its mirror."""
    taps = _low_pass(like) * 2**0.5
    pixel = torch.arange(-REACH, size + REACH, device=like.device)
    lag = torch.arange(2 * size, device=like.device)[:, None] - 2 * pixel + REACH - 1
    spread = taps[lag.clamp(0, 2 * REACH - 1)] * ((lag >= 0) & (lag < 2 * REACH))
    period = pixel % (2 * size)
    folded = torch.where(period < size, period, 2 * size - 1 - period)
    return spread @ (folded[:, None] == torch.arange(size, device=like.device)).to(like.dtype)


def _halving(size: int, like: Tensor) -> Tensor:
    """Return the map back, from a line that reaches out by the filter's length less one, [size, 2 size + 10]."""
    taps = _low_pass(like) / 2**0.5
    pixel = torch.arange(size, device=like.device)[:, None]
    lag = torch.arange(-REACH + 1, 2 * size + REACH - 1, device=like.device) - 2 * pixel + REACH - 1
    return taps[lag.clamp(0, 2 * REACH - 1)] * ((lag >= 0) & (lag < 2 * REACH))


class _Sample(torch.autograd.Function):
    """Bilinear samples of x at fixed points; PyTorch's own has no second derivative, though it is linear in x."""

    @staticmethod
    def forward(x: Tensor, points: Tensor) -> Tensor:
        return F.grid_sample(x, points, mode="bilinear", padding_mode="reflection", align_corners=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        x, points = inputs
        ctx.save_for_backward(points)
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        return _Spread.apply(gradient, points, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transpose of that map."""

    @staticmethod
    def forward(y: Tensor, points: Tensor, shape: torch.Size) -> Tensor:
        made: Tensor = torch.ops.aten.grid_sampler_2d_backward(y, y.new_zeros(shape), points, 0, 2, False, [True, False])[0]
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.Size], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (points,) = ctx.saved_tensors
        return _sample(gradient, points), None, None


def _sample(x: Tensor, points: Tensor) -> Tensor:
    sampled: Tensor = _Sample.apply(x, points)
    return sampled


def color(x: Tensor, p: Tensor) -> Tensor:
    """Change brightness and contrast, flip luma, and turn hue and change saturation where there are three channels."""
    brightness, contrast, flip = chosen(x, p), chosen(x, p), chosen(x, p)
    bright = 0.2 * _normal(x) * brightness
    scale = torch.exp2(0.5 * _normal(x) * contrast)
    sign = 1.0 - 2.0 * (flip & (torch.rand(len(x), device=x.device) < 0.5))
    hue, saturation = chosen(x, p), chosen(x, p)
    angle = (torch.rand(len(x), device=x.device, dtype=x.dtype) * 2 - 1) * math.pi * hue
    satiety = torch.exp2(_normal(x) * saturation)
    along, offset = scale * sign, bright * scale * sign  # of the grey axis: luma
    if x.shape[1] == 1:
        return x * _each(along) + _each(offset)
    matrix = _colors(along, scale * satiety * angle.cos(), scale * satiety * angle.sin())
    changed = (matrix @ x.flatten(2)).view_as(x) + _each(offset)
    return torch.where(_each(brightness | contrast | flip | hue | saturation), changed, x)


def _colors(along: Tensor, across: Tensor, around: Tensor) -> Tensor:
    """Return the maps of colours [N, 3, 3] that scale the grey axis, and scale and turn what is across it."""
    grey = torch.full((3, 3), 1 / 3, device=along.device, dtype=along.dtype)
    one = torch.eye(3, device=along.device, dtype=along.dtype)
    turn = (one.roll(1, 0) - one.roll(-1, 0)) / 3**0.5  # the cross product with the grey axis
    parts = ((along, grey), (across, one - grey), (around, turn))
    return torch.stack([factor[:, None, None] * matrix for factor, matrix in parts]).sum(0)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _normal(x: Tensor) -> Tensor:
    return torch.randn(len(x), device=x.device, dtype=x.dtype)
