"""Is an entry true? Its checkpoint is opened, its samples are drawn and scored again, and every number is compared."""

from __future__ import annotations

import datetime
import getpass
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import read_header
from ..errors import CheckpointError, DataError
from ..pretrained import sha256_of
from ..registry import registry
from ..sampling import find_checkpoint
from .config_hash import config_sha256
from .entry import canonical_sha256
from .protocol import Protocol, find
from .sweep import Order, Reporter, sweep

SHARE = 0.005  # of a score: what it may differ by on another machine, or three standard errors where those are more
LEVELS = 2  # grey levels that a shown pixel may differ by there
PIXELS = 0.999  # share of the pixels that must not differ by more


@dataclass
class Verdict:
    """What a verification found: `bit-exact`, `reproduced` or `disputed`, with a line for each reason."""

    badge: str
    lines: list[str]
    ok: bool
    record: dict[str, Any] = field(default_factory=dict)


def verify(entry: Mapping[str, Any], checkpoint: Path, device: str, reporter: Reporter) -> Verdict:
    """Score a checkpoint again, in a folder of its own, and compare it with what an entry says.

    DataError where the entry cannot be verified here at all: another protocol, or an edited one.
    """
    checkpoint = find_checkpoint(checkpoint)  # of a run folder, the newest
    disputed = list(_edited(entry, checkpoint))
    if disputed:
        return Verdict("disputed", disputed, False)
    protocol = _protocol(entry)
    with tempfile.TemporaryDirectory(prefix="ganzoo-verify-") as folder:
        order = Order(protocol=protocol, out=Path(folder), targets=(str(checkpoint),), device=device, baselines=False)
        new = sweep(order, registry(), reporter).entries[0]
    return _compared(entry, new)


def _edited(entry: Mapping[str, Any], checkpoint: Path) -> Iterator[str]:
    """Yield what shows without any computation that entry, checkpoint and recipe do not belong together."""
    if entry.get("kind") != "model" or entry.get("status") != "scored":
        raise DataError("only the entry of a scored model can be verified; baselines are made anew with every board")
    if entry["entry_sha256"] != canonical_sha256(entry):
        yield "the entry was edited: its hash does not match its content"
    found = sha256_of(checkpoint)
    if found != entry["checkpoint"]["sha256"]:
        yield f"the checkpoint is another one: its SHA-256 is {found}, the entry's {entry['checkpoint']['sha256']}"
        return
    recipe = str(read_header(checkpoint)["provenance"]["recipe"])
    try:
        raw = tomllib.loads(recipe)
    except ValueError as error:
        raise CheckpointError(f"checkpoint {checkpoint} has a recipe that cannot be read ({error})") from None
    if recipe != entry["model"]["recipe"] or config_sha256(raw) != entry["model"]["config_sha256"]:
        yield "the recipe is another one than that of the checkpoint"


def _protocol(entry: Mapping[str, Any]) -> Protocol:
    """Return the installed protocol that an entry was scored by; DataError where it is not the same."""
    said = entry["protocol"]
    if said["overrides"]:
        raise DataError(
            f"the entry was scored with changes ({'; '.join(said['overrides'])}); only whole protocols are verified"
        )
    protocol = find(str(said["id"]).rpartition("/")[0], registry())
    if protocol.sha256 != said["sha256"]:
        raise DataError(
            f"protocol {said['id']!r} has the hash {protocol.sha256[:8]} here and {str(said['sha256'])[:8]} in the entry; "
            "install the version of ganzoo that the entry names"
        )
    return protocol


def _compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> Verdict:
    lines: list[str] = []
    if new["status"] != "scored":
        return Verdict("disputed", [f"it cannot be scored here: {new['reason']}"], False)
    if old["dataset"]["pixels_sha256"] != new["dataset"]["pixels_sha256"]:
        lines.append("the reference images are others than the entry's")
    exact = old["samples"]["stream_sha256"] == new["samples"]["stream_sha256"]
    lines.append("all samples are the same, bit for bit" if exact else "the samples are not the same bits")
    deltas = {key: _delta(old["scores"][key], new["scores"].get(key)) for key in old["scores"]}
    same = exact and all(old["scores"][key] == new["scores"].get(key) for key in old["scores"])
    far = {key: text for key, (text, fine) in deltas.items() if not fine}
    lines += [f"{key}: {text}" for key, text in far.items()]
    close = exact or _alike(old, new)
    if not close:
        lines.append(
            f"the shown samples differ by more than {LEVELS} grey levels in more than {1 - PIXELS:.1%} of the pixels"
        )
    ok = not far and close and old["dataset"]["pixels_sha256"] == new["dataset"]["pixels_sha256"]
    badge = "disputed" if not ok else "bit-exact" if same else "reproduced"
    if same:
        lines.append(f"all {len(deltas)} scores are the same, bit for bit")
    return Verdict(
        badge, lines, ok, _record(badge, new, {key: text for key, (text, _) in deltas.items()} if not same else {})
    )


def _delta(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> tuple[str, bool]:
    """Return the change of a score in words, and whether it is within what another machine may give."""
    if new is None:
        return "is not there when it is scored again", False
    before, after = old["mean"], new["mean"]
    if before is None or after is None:
        return f"was {before}, is {after}", before is after
    room = max(3 * (old["se"] or 0.0), SHARE * abs(before))
    return f"was {before:.6g}, is {after:.6g} ({after - before:+.2g}, room {room:.2g})", abs(after - before) <= room


def _alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    first, second = (_pixels(entry) for entry in (old, new))
    if first is None or second is None or first.shape != second.shape:
        return False
    return bool((np.abs(first - second) <= LEVELS).mean() >= PIXELS)


def _pixels(entry: Mapping[str, Any]) -> np.ndarray | None:
    import base64
    import io

    from PIL import Image

    shown = entry["samples"]["witness_png"]
    if not shown:
        return None
    with Image.open(io.BytesIO(base64.b64decode(shown[0]))) as picture:
        return np.asarray(picture).astype(np.int16)


def _record(badge: str, new: Mapping[str, Any], delta: Mapping[str, str]) -> dict[str, Any]:
    try:
        who = getpass.getuser()
    except (OSError, KeyError):  # no name for this user
        who = "unknown"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"who": who, "env": new["env"], "date": today, "badge": badge, "delta": dict(delta)}
