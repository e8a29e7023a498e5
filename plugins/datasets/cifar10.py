"""CIFAR-10, downloaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ganzoo.api import TensorDataset

from ._prepare import cache_folder, check, dataset
from ._torchvision import cifar_set


def cifar10(
    *,
    size: int = 32,
    channels: int = 3,
    labels: bool = False,
    split: Literal["train", "test"] = "train",
    root: str = "",
) -> TensorDataset:
    """Small photographs in ten classes: 50,000 to train and 10,000 to test (Krizhevsky 2009, technical report).

    Source: Learning Multiple Layers of Features from Tiny Images, University of Toronto.

    torchvision downloads into `root` (default: ganzoo's cache folder). 32x32 as published; any other `size` is resized
    (Lanczos).
    """
    check("cifar10", size, channels)
    folder = Path(root).expanduser() if root else cache_folder() / "datasets"
    images, targets = cifar_set("cifar10", "CIFAR10", folder, split)
    return dataset(images, targets, size=size, channels=channels, labels=labels, classes=10)
