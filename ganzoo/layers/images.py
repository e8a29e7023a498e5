"""What the built-in image networks ask of the data's spec."""

from __future__ import annotations

from collections.abc import Sequence

from ganzoo.api import PluginError, Spec

__all__ = ["SIZES", "image_format"]

SIZES = (16, 32, 64, 128)


def image_format(spec: Spec, architecture: str, sizes: Sequence[int] = SIZES) -> tuple[int, int]:
    """Return channels and size in pixels of square images; PluginError where the spec is anything else.

    There may be any number of channels: a discriminator that is shown several images at once has those of all of them.
    """
    if len(spec.shape) != 3 or spec.shape[0] < 1 or spec.shape[1] != spec.shape[2] or spec.shape[1] not in sizes:
        allowed = ", ".join(str(size) for size in sizes)
        raise PluginError(
            f"architecture {architecture!r} cannot make samples of shape {tuple(spec.shape)}; "
            f"give square images of {allowed} pixels (data.size)"
        )
    if spec.latent < 1:
        raise PluginError(
            f"architecture {architecture!r} cannot start from {spec.latent} latents; set latent.size to 1 or more"
        )
    return spec.shape[0], spec.shape[1]
