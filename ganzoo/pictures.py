"""Samples as PNG: grids and single images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from .errors import DataError, ResourceError

GAP = 2  # pixels between two samples of a grid
TARGET = 640  # pixels that a grid is enlarged to by whole factors


def to_bytes(x: Tensor) -> Tensor:
    """Return samples in [-1, 1] as uint8, rounded to the nearest."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def image(sample: Tensor) -> Image.Image:
    """Return one image [C, H, W] in [-1, 1], grey or colour, as a picture."""
    if sample.ndim != 3 or sample.shape[0] not in (1, 3):
        raise DataError(f"samples of shape {tuple(sample.shape)} are no grey or colour images; ganzoo cannot draw them")
    pixels = to_bytes(sample).cpu().numpy()
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def grid(samples: Tensor, columns: int = 0) -> Image.Image:
    """Return images [N, C, H, W] side by side, row by row, enlarged by a whole factor where they are small."""
    columns = columns or math.ceil(math.sqrt(len(samples)))
    rows = math.ceil(len(samples) / columns)
    tiles = [image(sample) for sample in samples]
    width, height = tiles[0].size
    sheet = Image.new(tiles[0].mode, (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    factor = max(TARGET // max(sheet.size), 1)
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def save_png(picture: Image.Image, path: Path, notes: dict[str, str] | None = None) -> None:
    """Write a picture with text notes (recipe, seed) inside, making its folder where needed."""
    info = PngImagePlugin.PngInfo()
    for key, value in (notes or {}).items():
        info.add_text(key, value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG", pnginfo=info)
    except OSError as error:
        why = error.strerror or error
        raise ResourceError(f"picture {path} cannot be written: {why}; make room or choose another place") from error
