"""Fashion-MNIST's first 10,000 training and 2,000 test images, shipped inside the package: works offline."""

from __future__ import annotations

from typing import Literal

from ganzoo.api import TensorDataset

from ._prepare import check, dataset, embedded_idx, pad_edges

CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def fashion_mnist_10k(
    *, size: int = 32, channels: int = 1, labels: bool = False, split: Literal["train", "test"] = "train"
) -> TensorDataset:
    """Pictures of clothes in ten classes: 10,000 to train and 2,000 to test (Xiao et al. 2017, arXiv:1708.07747).

    The 28x28 originals get two pixels of black background on each side, which makes 32x32; any other `size` is
    resized from there (Lanczos). `labels` passes the classes on. MIT licence, Zalando SE.
    """
    check("fashion-mnist-10k", size, channels)
    images = embedded_idx(f"fashion-mnist-10k-{split}-images.idx.xz")
    targets = embedded_idx(f"fashion-mnist-10k-{split}-labels.idx.xz")
    return dataset(pad_edges(images), targets, size=size, channels=channels, labels=labels, classes=len(CLASS_NAMES))
