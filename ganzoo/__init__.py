"""ganzoo: a plugin-based GAN zoo. `train` and `load` are all that a script needs; importing this imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .jobs import train
    from .sampling import Model, load

DISTRIBUTION = "ganzoo-toolkit"
__version__ = "0.1.0"
__all__ = ["DISTRIBUTION", "Model", "__version__", "load", "train"]

_HOMES = {"train": "jobs", "load": "sampling", "Model": "sampling"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ganzoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
