"""What a head on top of a discriminator has to know of it."""

from __future__ import annotations

from torch import nn

from ganzoo.api import PluginError

__all__ = ["feature_width", "map_shapes"]


def feature_width(net: nn.Module, who: str) -> int:
    """Return F of the features [N, F] that a discriminator gives; PluginError names who asks where it gives none."""
    width = getattr(net, "feature_width", None)
    if not isinstance(width, int):
        raise PluginError(
            f"{who} needs a discriminator with features, and {type(net).__name__} does not say its 'feature_width'; "
            "choose another architecture"
        )
    return width


def map_shapes(net: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return channels and size in pixels of each feature map that a discriminator gives; none where it gives none."""
    shapes: tuple[tuple[int, int], ...] = getattr(net, "map_shapes", ())
    return shapes
