"""Scoring through torch-fidelity under frozen protocols, and leaderboards that anybody can verify."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    """Import what a caller asks for, and torch with it, only then."""
    if name in __all__:
        return getattr(import_module(".api", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
