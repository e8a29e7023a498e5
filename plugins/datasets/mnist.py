"""MNIST: from a local folder, or downloaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ganzoo.api import TensorDataset

from ._prepare import cache_folder, check, dataset, local_idx, pad_edges
from ._torchvision import idx_set


def mnist(
    *,
    size: int = 32,
    channels: int = 1,
    labels: bool = False,
    split: Literal["train", "test"] = "train",
    path: str = "",
    root: str = "",
) -> TensorDataset:
    """Handwritten digits: 60,000 to train and 10,000 to test (LeCun et al. 1998, doi:10.1109/5.726791).

    `path` is a folder with the four idx files, plain or .gz; without it torchvision downloads into `root` (default:
    ganzoo's cache folder). The 28x28 originals get two pixels of black background on each side, which makes 32x32; any
    other `size` is resized from there (Lanczos).
    """
    check("mnist", size, channels)
    if path:
        images, targets = local_idx(path, split)
    else:
        folder = Path(root).expanduser() if root else cache_folder() / "datasets"
        images, targets = idx_set("mnist", "MNIST", folder, split)
    return dataset(pad_edges(images), targets, size=size, channels=channels, labels=labels, classes=10)
