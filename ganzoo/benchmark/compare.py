"""Two boards, or two entries, side by side: is a change more than its error?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from .board import CONFIDENCE
from .columns import number


@dataclass(frozen=True)
class Change:
    """One score before and after."""

    model: str
    score: str
    before: str
    after: str
    change: str
    verdict: str  # "same", "within error", "changed", "unknown error"


def changes(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    """Yield the changes of all scores that both sides have; DataError where nothing can be compared.

    A single entry on each side is compared whatever the models are called.
    """
    pairs = _pairs(old, new)
    for before, after in pairs:
        _comparable(before, after)
        for key in before["scores"]:
            if key in after["scores"]:
                yield _change(before, after, key)


def _pairs(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    later = {_key(entry): entry for entry in new}
    pairs = [(entry, later[_key(entry)]) for entry in old if _key(entry) in later]
    if not pairs:
        raise DataError("the two have no model of one name, dataset and protocol in common; nothing can be compared")
    return pairs


def _key(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (entry["kind"], entry["model"]["name"], entry["dataset"]["pixels_sha256"], entry["protocol"]["sha256"])


def _comparable(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for what, one, other in (
        ("protocols", before["protocol"]["id"], after["protocol"]["id"]),
        ("protocols' hashes", before["protocol"]["sha256"][:8], after["protocol"]["sha256"][:8]),
        ("reference images", before["dataset"]["pixels_sha256"][:8], after["dataset"]["pixels_sha256"][:8]),
    ):
        if one != other:
            raise DataError(f"the {what} differ ({one} and {other}), so the scores cannot be compared")


def _change(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> Change:
    first, second = before["scores"][key], after["scores"][key]
    old, new = first["mean"], second["mean"]
    name = str(after["model"]["name"])
    if old is None or new is None:
        return Change(name, key, number(old), number(new), "", "same" if old is new else "changed")
    known = first["se"] is not None and second["se"] is not None
    room = CONFIDENCE * math.hypot(first["se"] or 0.0, second["se"] or 0.0)
    far = "changed" if known else "unknown error"
    verdict = "same" if old == new else "within error" if known and abs(new - old) <= room else far
    return Change(name, key, number(old, 4), number(new, 4), f"{new - old:+.3g}", verdict)
