"""The benchmark for Python callers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import RunFailed
from ..registry import registry
from .protocol import find
from .sweep import Order, Silent, sweep


def score(
    place: str | Path,
    *,
    protocol: str = "offline10k",
    out: str | Path = "leaderboard",
    device: str = "auto",
    batch: int = 256,
) -> dict[str, Any]:
    """Return the entry of a run folder or checkpoint, as `ganzoo benchmark PLACE --no-baselines` would write it.

    Results are kept in `out`; scoring the same again takes no time. RunFailed where the model cannot be scored.
    """
    known = registry()
    order = Order(
        protocol=find(protocol, known), out=Path(out), targets=(str(place),), device=device, batch=batch, baselines=False
    )
    (entry,) = sweep(order, known, Silent()).entries
    if entry["status"] != "scored":
        raise RunFailed(f"{entry['reason']} ({entry['status']})")
    return entry
