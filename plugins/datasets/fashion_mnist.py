"""The whole of Fashion-MNIST: from a local folder, from Debian's package, or downloaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ganzoo.api import TensorDataset

from ._prepare import cache_folder, check, dataset, local_idx, pad_edges
from ._torchvision import idx_set
from .fashion_mnist_10k import CLASS_NAMES

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist


def fashion_mnist(
    *,
    size: int = 32,
    channels: int = 1,
    labels: bool = False,
    split: Literal["train", "test"] = "train",
    path: str = "",
    root: str = "",
    download: bool = True,
) -> TensorDataset:
    """Pictures of clothes in ten classes: 60,000 to train and 10,000 to test (Xiao et al. 2017, arXiv:1708.07747).

    `path` is a folder with the four idx files, plain or .gz; without it, Debian's dataset-fashion-mnist is used where
    it is installed, else torchvision downloads into `root` (default: ganzoo's cache folder), if `download` allows it.
    The 28x28 originals get two pixels of black background on each side, which makes 32x32; any other `size` is resized
    from there (Lanczos).
    """
    check("fashion-mnist", size, channels)
    if not path and DEBIAN.is_dir():
        path = str(DEBIAN)
    if path:
        images, targets = local_idx(path, split)
    else:
        folder = Path(root).expanduser() if root else cache_folder() / "datasets"
        images, targets = idx_set("fashion-mnist", "FashionMNIST", folder, split, download)
    return dataset(pad_edges(images), targets, size=size, channels=channels, labels=labels, classes=len(CLASS_NAMES))
