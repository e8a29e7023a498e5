"""Plots of a board as SVG, without a library: points with intervals, and quality against what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from .board import CONFIDENCE, Board, Row
from .columns import count, number

WIDTH, HEIGHT = 560, 300  # units of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 44  # room for the axes
LETTER, ROW = 6.2, 12  # width of a letter and height of a line, about
LINE = 26  # height of a model's line in the plot of intervals


@dataclass(frozen=True)
class Point:
    """A model in a plot."""

    label: str
    x: float
    y: float


def intervals(board: Board) -> str:
    """Return each model's distances: a dot for each evaluation seed and a bar for the 95 % interval of the mean."""
    key = board.headline
    rows = [row for row in board.models if row.score(key).mean is not None]
    if not rows:
        return ""
    dots = [[value for entry in row.entries for value in entry["scores"][key]["per_seed"]] for row in rows]
    bars = [_interval(row, key) for row in rows]
    low = min(min(low for low, _ in bars), min(map(min, dots)))
    high = max(max(high for _, high in bars), max(map(max, dots)))
    label = max(len(row.name) for row in rows) * 6.6 + 20
    left, height = min(label, 220), len(rows) * LINE + TOP + BOTTOM
    scale = _scale(low, high, left, WIDTH - RIGHT, log=low > 0 and high / low > 20)
    parts = [_axis_x(scale, left, WIDTH - RIGHT, TOP, height - BOTTOM, f"{board.headline} (smaller is better)", number)]
    for place, (row, values, (start, stop)) in enumerate(zip(rows, dots, bars, strict=True)):
        y = TOP + (place + 0.5) * LINE
        name = row.name if len(row.name) <= 32 else row.name[:31] + "…"
        value = row.score(key).mean or 0.0
        parts += [
            f'<text class="name" x="{left - 10:.0f}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>',
            f'<line class="bar" x1="{scale.at(start):.1f}" x2="{scale.at(stop):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
            *(f'<circle class="seed" cx="{scale.at(one):.1f}" cy="{y:.1f}" r="2.6"/>' for one in values),
            f'<circle class="mean" cx="{scale.at(value):.1f}" cy="{y:.1f}" r="4"/>',
        ]
    return _svg(height, "Distances of each model with their intervals", parts)


def _interval(row: Row, key: str) -> tuple[float, float]:
    value = row.score(key)
    room = CONFIDENCE * (value.se or 0.0)
    return (value.mean or 0.0) - room, (value.mean or 0.0) + room


def against(board: Board, title: str, cost: Callable[[Row], float | None], show: Callable[[float | None], str]) -> str:
    """Return quality against a cost, both smaller is better, with the models that none beats in both joined by a line.

    These have their names first; where no room is left beside a point, its name shows when it is pointed at.
    """
    points = [
        Point(row.name, x, y)
        for row in board.models
        if (x := cost(row)) is not None and (y := row.score(board.headline).mean) is not None and x > 0 and y > 0
    ]
    if len(points) < 2:
        return ""
    xs, ys = [point.x for point in points], [point.y for point in points]
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT - 40, log=max(xs) / min(xs) > 20)
    up = _scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP, log=max(ys) / min(ys) > 20)
    best = front(points)
    path = " ".join(f"{across.at(point.x):.1f},{up.at(point.y):.1f}" for point in best)
    parts = [
        _axis_x(across, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, title, show),
        _axis_y(up, LEFT, WIDTH - RIGHT, board.judge["metric"]),
        f'<polyline class="front" points="{path}"/>',
    ]
    taken = [(across.at(point.x) - 5, across.at(point.x) + 5, up.at(point.y) + 4) for point in points]
    for point in sorted(points, key=lambda one: (one not in best, one.y, one.x)):
        x, y = across.at(point.x), up.at(point.y)
        kind = "mean" if point in best else "seed other"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(point.label)}</title></circle>'
        )
        parts.append(name_beside(point.label, x, y, taken))
    return _svg(HEIGHT, f"{board.judge['metric']} against {title}", parts)


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both (Pareto's front), by cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, one.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return best


def name_beside(text: str, x: float, y: float, taken: list[tuple[float, float, float]]) -> str:
    """Return a label beside a point, moved up or down by whole lines to where no other one stands; or nothing."""
    text = text if len(text) <= 24 else text[:23] + "…"
    turned = x > WIDTH * 0.7
    width = LETTER * len(text)
    left, right = (x - 8 - width, x - 8) if turned else (x + 8, x + 8 + width)
    for move in (0, 1, -1, 2, -2, 3, -3, 4):
        place = y + 4 + move * ROW
        free = all(abs(place - line) >= ROW or right < start or stop < left for start, stop, line in taken)
        if free and TOP < place < HEIGHT - BOTTOM:
            taken.append((left, right, place))
            anchor, at = ("end", right) if turned else ("start", left)
            return f'<text class="name" x="{at:.1f}" y="{place:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    return ""


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    stop: float
    log: bool

    def at(self, value: float) -> float:
        """Return where a value lies."""
        low, high, here = (
            (math.log(one) for one in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (here - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            wide = self.high / self.low > 100
            found = [base * 10.0**power for power in powers for base in ((1,) if wide else (1, 2, 5))]
        else:
            step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
            step *= next(one for one in (1, 2, 5, 10) if (self.high - self.low) / (one * step) <= 6)
            found = [step * n for n in range(math.floor(self.low / step), math.ceil(self.high / step) + 1)]
        return [value for value in found if self.low <= value <= self.high]


def _scale(low: float, high: float, start: float, stop: float, log: bool) -> _Scale:
    """Return an axis with some air at its ends; it begins at zero where values are near it."""
    if log:
        return _Scale(low / 1.2, high * 1.2, start, stop, True)
    room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    low = 0.0 if 0 <= low < 0.4 * high else low - room
    return _Scale(low, high + room, start, stop, False)


def _axis_x(
    scale: _Scale, left: float, right: float, top: float, bottom: float, title: str, show: Callable[[float | None], str]
) -> str:
    parts = [f'<line class="axis" x1="{left:.0f}" x2="{right:.0f}" y1="{bottom:.0f}" y2="{bottom:.0f}"/>']
    for value in scale.ticks():
        x = scale.at(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16:.0f}" text-anchor="middle">{escape(show(value))}</text>'
        )
    middle = (left + right) / 2
    parts.append(f'<text class="title" x="{middle:.0f}" y="{bottom + 36:.0f}" text-anchor="middle">{escape(title)}</text>')
    return "".join(parts)


def _axis_y(scale: _Scale, left: float, right: float, title: str) -> str:
    parts = []
    for value in scale.ticks():
        y = scale.at(value)
        parts.append(f'<line class="grid" x1="{left:.0f}" x2="{right:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8:.0f}" y="{y + 4:.1f}" text-anchor="end">{escape(number(value))}</text>'
        )
    middle = (scale.start + scale.stop) / 2
    turned = f'transform="rotate(-90 14 {middle:.0f})"'
    parts.append(f'<text class="title" x="14" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(title)}</text>')
    return "".join(parts)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
    return head + "".join(parts) + "</svg>"


def costs(board: Board) -> list[tuple[str, str]]:
    """Return the plots of quality against parameters, training time and sampling time, each with its caption."""

    def time(row: Row) -> float | None:
        return row.first["training"]["wall_s"] if row.first["training"] else None

    found = [
        ("Against the generator's size", against(board, "numbers in the generator",
                                                 lambda row: float(row.first["model"]["params_g"]) or None, count)),
        ("Against the time of the training", against(board, "seconds of training", time, count)),
        ("Against the time of a sample", against(board, "milliseconds for one image",
                                                 lambda row: row.first["timing"]["sample_ms_per_img"], number)),
    ]  # fmt: skip
    return [(caption, plot) for caption, plot in found if plot]
