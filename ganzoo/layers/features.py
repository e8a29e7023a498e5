"""What a head on top of a discriminator has to know of it."""

from __future__ import annotations

from torch import nn

from ganzoo.api import PluginError

__all__ = ["feature_width"]


def feature_width(net: nn.Module, who: str) -> int:
    """Return F of the features [N, F] that a discriminator gives; PluginError names who asks where it gives none."""
    width = getattr(net, "feature_width", None)
    if not isinstance(width, int):
        raise PluginError(
            f"{who} needs a discriminator with features, and {type(net).__name__} does not say its 'feature_width'; "
            "choose another architecture"
        )
    return width
