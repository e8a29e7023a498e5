"""Noto emoji without people at 32x32, shipped inside the package: works offline."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

import numpy as np
from PIL import Image

from ganzoo.api import TensorDataset

from ._prepare import check, dataset, embedded

TILE = 32  # pixels
TEST_EVERY = 8  # of the pictures in order of code points, every eighth is for testing


def _index() -> dict[str, list[Any]]:
    index: dict[str, list[Any]] = json.loads(embedded("emoji32.json"))
    return index


def class_names() -> tuple[str, ...]:
    """Return the names of the classes in order of their labels."""
    return tuple(_index()["classes"])


def _tiles(count: int) -> np.ndarray:
    """Return the first `count` tiles [N, 32, 32, 3] of the sheet, row by row."""
    with Image.open(io.BytesIO(embedded("emoji32.webp"))) as sheet:
        grid = np.asarray(sheet.convert("RGB"))
    rows, columns = grid.shape[0] // TILE, grid.shape[1] // TILE
    return grid.reshape(rows, TILE, columns, TILE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, TILE, TILE, 3)[:count]


def emoji32(
    *, size: int = 32, channels: int = 3, labels: bool = False, split: Literal["train", "test"] = "train"
) -> TensorDataset:
    """Colour emoji on white, without people, in eleven classes: 1,387 to train and 198 to test (Noto Emoji 2.042).

    Every eighth picture in order of code points is for testing. 32x32; any other `size` is resized (Lanczos). `labels`
    passes the classes on (faces, body, animals, nature, food, travel, activities, clothing, objects, symbols, flags).
    Apache-2.0 pictures of Google's Noto Emoji project.
    """
    check("emoji32", size, channels)
    index = _index()
    targets = np.asarray(index["labels"])
    chosen = (np.arange(len(targets)) % TEST_EVERY == TEST_EVERY - 1) == (split == "test")
    images = _tiles(len(targets))[chosen]
    return dataset(images, targets[chosen], size=size, channels=channels, labels=labels, classes=len(index["classes"]))
