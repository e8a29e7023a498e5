"""Entries become boards: one for each dataset and protocol, with ranges of ranks instead of an order that noise decides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 1.96  # standard errors on each side of a mean: 95 %
BADGES = {  # flag or state -> what stands beside a name, and what it means
    "collapsed": ("collapsed", "nearly all samples are the same image"),
    "memorises": ("M", "samples are closer to single training images than unseen real images are: perhaps copies"),
    "diverged": ("diverged", "its samples are not finite"),
    "failed": ("failed", "it could not be trained, opened or drawn from"),
    "custom": ("custom", "scored with changes to the protocol: not ranked"),
    "pretrained": ("ImageNet", "has parts that were trained on ImageNet, which flatters features from there"),
}


@dataclass(frozen=True)
class Value:
    """A mean with its standard error; both may be missing."""

    mean: float | None = None
    se: float | None = None


@dataclass(frozen=True)
class Row:
    """One model, perhaps with several training seeds, or one baseline."""

    entries: tuple[Mapping[str, Any], ...]
    best: int = 0  # rank range; 0: not ranked
    worst: int = 0

    @property
    def first(self) -> Mapping[str, Any]:
        """The entry of the first training seed."""
        return self.entries[0]

    @property
    def name(self) -> str:
        """The model's name, without a training seed where it has several."""
        return _seedless(self.first) if len(self.entries) > 1 else str(self.first["model"]["name"])

    @property
    def scored(self) -> bool:
        """Has it scores?"""
        return all(entry["status"] == "scored" for entry in self.entries)

    @property
    def rank(self) -> str:
        """The rank as it is shown: 1, 2-4, or nothing."""
        return "" if not self.best else str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"

    @property
    def badges(self) -> list[str]:
        """Keys of BADGES that apply."""
        flags = {flag for entry in self.entries for flag in entry["flags"]}
        flags |= {entry["status"] for entry in self.entries if entry["status"] != "scored"}
        flags |= {"custom" for entry in self.entries if entry["protocol"]["overrides"]}
        flags |= {"pretrained" for entry in self.entries if entry["model"]["imagenet_pretrained"]}
        return [key for key in BADGES if key in flags]

    @property
    def verified(self) -> str:
        """The best that others found when they scored it again, or that nobody did."""
        found = {str(record.get("badge")) for entry in self.entries for record in entry["verified"]}
        return next((badge for badge in ("disputed", "bit-exact", "reproduced") if badge in found), "self-reported")

    def score(self, key: str) -> Value:
        """Return a score over the training seeds: the mean of their means, with the spread between them in its error."""
        scores = [entry["scores"].get(key, {}) for entry in self.entries]
        means = [score.get("mean") for score in scores]
        if not means or any(mean is None for mean in means):
            return Value()
        count = len(means)
        mean = math.fsum(means) / count
        between = math.fsum((one - mean) ** 2 for one in means) / (count - 1) / count if count > 1 else 0.0
        errors = [score.get("se") for score in scores]
        within = math.fsum(error**2 for error in errors if error is not None) / count**2
        known = between > 0 or all(error is not None for error in errors)
        return Value(mean, math.sqrt(between + within) if known else None)

    def beside(self, key: str, field: str) -> float | None:
        """Return what a score must be read beside: a floor, the held-out value."""
        value = self.first["scores"].get(key, {}).get(field)
        return None if value is None else float(value)


@dataclass(frozen=True)
class Board:
    """All rows of one dataset under one protocol."""

    dataset: Mapping[str, Any]
    protocol: Mapping[str, Any]
    extractors: tuple[Mapping[str, Any], ...]  # the first ranks
    models: tuple[Row, ...]
    baselines: tuple[Row, ...]

    @property
    def judge(self) -> Mapping[str, Any]:
        """The extractor that ranks."""
        return self.extractors[0]

    @property
    def headline(self) -> str:
        """The key of the score that ranks."""
        return f"{self.judge['metric']}/{self.judge['id']}"

    @property
    def custom(self) -> bool:
        """Was the protocol changed? Then nothing is ranked."""
        return bool(self.protocol["overrides"])

    @property
    def title(self) -> str:
        """What the board is about."""
        size = "x".join(map(str, self.dataset["shape"][1:]))
        return f"{self.dataset['name']} {size}, {self.protocol['id']}"

    def key(self, metric: str, extractor: Mapping[str, Any] | None = None) -> str:
        """Return the key of a metric's score, of the judge unless told otherwise."""
        chosen = extractor or self.judge
        return f"{chosen['metric'] if metric == 'FD' else metric}/{chosen['id']}"


def boards_of(entries: Iterable[Mapping[str, Any]]) -> list[Board]:
    """Return a board for each dataset and protocol, in an order that depends on the entries alone.

    Those with most models come first, and changed protocols last.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for entry in entries:
        data, protocol = entry["dataset"], entry["protocol"]
        key = (str(data["name"]), data["pixels_sha256"], protocol["id"], protocol["sha256"], *protocol["overrides"])
        groups.setdefault(key, []).append(entry)
    return sorted((_board(groups[key]) for key in sorted(groups)), key=lambda board: (board.custom, -len(board.models)))


def _board(entries: Sequence[Mapping[str, Any]]) -> Board:
    known = {one["id"]: one for entry in entries for one in entry["extractors"]}
    extractors = tuple(sorted(known.values(), key=lambda one: (not one["ranks"], one["id"])))
    first = entries[0]
    models = _rows(entry for entry in entries if entry["kind"] == "model")
    baselines = _rows(entry for entry in entries if entry["kind"] == "baseline")
    board = Board(first["dataset"], first["protocol"], extractors, (), tuple(baselines))
    ranked = models if board.custom else ranks(models, board.headline)
    return Board(board.dataset, board.protocol, extractors, tuple(_sorted(ranked, board.headline)),
                 tuple(_sorted(baselines, board.headline)))  # fmt: skip


def _rows(entries: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Group entries that differ in the training seed only."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for entry in entries:
        seen = (entry["checkpoint"] or {}).get("samples")
        groups.setdefault((_seedless(entry), entry["model"]["config_sha256"], seen), []).append(entry)
    return [Row(tuple(sorted(group, key=_by_seed))) for group in groups.values()]


def _seedless(entry: Mapping[str, Any]) -> str:
    return str(entry["model"]["name"]).split("+seed")[0]


def _by_seed(entry: Mapping[str, Any]) -> tuple[int, str]:
    return (entry["training"] or {}).get("seed", 0), str(entry["entry_sha256"])


def _sorted(rows: Iterable[Row], headline: str) -> list[Row]:
    """Sort by the headline, smallest first; rows without it come last, by name."""

    def key(row: Row) -> tuple[bool, float, str, str]:
        mean = row.score(headline).mean
        return (mean is None, mean or 0.0, row.name, str(row.first["entry_sha256"]))

    return sorted(rows, key=key)


def ranks(rows: Sequence[Row], headline: str) -> list[Row]:
    """Return the rows with their ranges of ranks; A is above B only where their 95 % intervals do not meet.

    A row without an error is taken at its word only if no other is near: its interval is the point itself.
    """
    intervals: dict[int, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        value = row.score(headline)
        if row.scored and value.mean is not None:
            room = CONFIDENCE * (value.se or 0.0)
            intervals[number] = (value.mean - room, value.mean + room)
    found = []
    for number, row in enumerate(rows):
        if number not in intervals:
            found.append(row)
            continue
        low, high = intervals[number]
        better = sum(other_high < low for _, other_high in intervals.values())
        worse = sum(other_low > high for other_low, _ in intervals.values())
        found.append(Row(row.entries, 1 + better, len(intervals) - worse))
    return found
