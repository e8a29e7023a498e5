"""What an extractor promises: features that depend on one image each, and an id that names the weights."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ..api import Extractor
from .contract import require
from .promises import COUNT
from .tiny import Factory

CHAPTER = "An extractor"
SIZES = (16, 32)  # pixels


def _images(size: int) -> Tensor:
    source = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (COUNT, 3, size, size), generator=source, dtype=torch.uint8)


def _features(extractor: Extractor, images: Tensor) -> Tensor:
    with torch.no_grad():
        output: Any = extractor(images)
    features: Tensor = output[0] if isinstance(output, tuple) else output
    require(isinstance(features, Tensor), "features, or (features, logits)", type(features).__name__, CHAPTER)
    fits = features.ndim == 2 and len(features) == len(images) and features.is_floating_point()
    shown = f"{features.dtype} {tuple(features.shape)}"
    require(fits, f"float features [{len(images)}, F]", shown, CHAPTER)
    require(bool(torch.isfinite(features).all()), "finite features", "NaN or infinite ones", CHAPTER)
    if isinstance(output, tuple):
        fits = len(output) == 2 and output[1].ndim == 2 and len(output[1]) == len(images)
        require(fits, f"(features, logits [{len(images)}, K])", f"{len(output)} values, or others", CHAPTER)
    return features


def features_are_rows(plugin: Factory) -> None:
    """Colour images uint8 of any size become finite float features [N, F], perhaps with logits [N, K]."""
    widths = {_features(plugin(), _images(size)).shape[1] for size in SIZES}
    require(len(widths) == 1, "one number of features for every size", str(sorted(widths)), CHAPTER)


def features_follow_from_one_image(plugin: Factory) -> None:
    """An image has the same features alone, in any batch and each time, because the network is in eval mode."""
    extractor, images = plugin(), _images(SIZES[1])
    require(not extractor.training, "an extractor in eval mode", "one in training mode", CHAPTER)
    together = _features(extractor, images)
    require(torch.equal(together, _features(extractor, images)), "the same features each time", "others", CHAPTER)
    alone = torch.cat([_features(extractor, images[n : n + 1]) for n in range(COUNT)])
    close = torch.allclose(alone, together, rtol=1e-3, atol=1e-4 * float(together.abs().max()))
    require(close, "the same features alone as in a batch", "others", CHAPTER)


def identity_names_the_weights(plugin: Factory) -> None:
    """`id` is name@hash8, and with the same id come the same features."""
    torch.manual_seed(0)
    one = plugin()
    torch.manual_seed(1)
    two = plugin()
    name = getattr(one, "id", None)
    hashed = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9._-]+@[0-9a-f]{8}", name) is not None
    require(hashed, "an id with a hash of the weights", repr(name), CHAPTER)
    require(name == two.id, "the same id each time", f"{name!r} and {two.id!r}", CHAPTER)
    same = torch.equal(_features(one, _images(SIZES[0])), _features(two, _images(SIZES[0])))
    require(same, "the same features under the same id", "others", CHAPTER)


def features_draw_nothing(plugin: Factory) -> None:
    """Extracting leaves torch's generator where it was."""
    extractor, images = plugin(), _images(SIZES[0])
    before = torch.get_rng_state()
    _features(extractor, images)
    require(torch.equal(before, torch.get_rng_state()), "torch's generator left alone", "draws from it", CHAPTER)


def fitting_is_repeatable(plugin: Factory) -> None:
    """After `fit` features are finite, and to fit the same images again changes neither the id nor the features."""
    images = torch.cat([_images(SIZES[1]), _images(SIZES[1]).flip(3)])
    extractor = plugin()
    extractor.fit(images)
    name, features = extractor.id, _features(extractor, images)
    extractor.fit(images)
    require(name == extractor.id, "the same id after the same `fit`", f"{name!r} and {extractor.id!r}", CHAPTER)
    same = torch.equal(features, _features(extractor, images))
    require(same, "the same features after the same `fit`", "others", CHAPTER)


def of_extractor(plugin: Factory) -> Any:
    """Return a run of an extractor, built anew."""
    return lambda: [_features(plugin(), _images(SIZES[0]))]
