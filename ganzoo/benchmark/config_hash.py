"""The hash of what a recipe trains: equal for two runs that differ in names, texts and the seed only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..recipe import HOW

UNHASHED = ("name", "summary", "provenance", "presets", "tier")  # of a recipe: they change no weight


def config_sha256(raw: Mapping[str, Any]) -> str:
    """Return the hash of a recipe's tables without names, texts, presets, the seed and how it was computed."""
    kept = {key: value for key, value in raw.items() if key not in UNHASHED}
    if isinstance(kept.get("train"), Mapping):
        kept["train"] = {key: value for key, value in kept["train"].items() if key not in ("seed", *HOW)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
