"""Sets that torchvision knows how to download; it is imported only when one of them must be opened by it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ganzoo.api import DataError

from ._prepare import download, find_idx, read_idx


def idx_set(name: str, kind: str, root: Path, split: str, fetch: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, 28, 28] and labels [N] of an MNIST-like set; `kind` is torchvision's class and folder name.

    Without `fetch` nothing is downloaded: a DataError says where the files may lie.
    """
    folder = root / kind / "raw"
    files = find_idx(folder, split)
    if files is None and not fetch:
        raise DataError(
            f"dataset {name!r} is not in {str(folder)!r}, and was not to be downloaded; put its idx files there"
        )
    if files is None:
        wanted = "the idx files train- and t10k- images-idx3-ubyte.gz and labels-idx1-ubyte.gz"
        download(name, lambda: _open(kind, root, split), folder, wanted)
        files = find_idx(folder, split)
    if files is None:
        raise DataError(f"dataset {name!r} was downloaded but its files are not in {str(folder)!r}; give them as 'path'")
    return read_idx(files[0]), read_idx(files[1])


def cifar_set(name: str, kind: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, 32, 32, 3] and labels [N] of CIFAR-10."""
    found = download(name, lambda: _open(kind, root, split), root, "cifar-10-python.tar.gz")
    return np.asarray(found.data, np.uint8), np.asarray(found.targets)


def _open(kind: str, root: Path, split: str) -> Any:
    with contextlib.redirect_stdout(sys.stderr):  # torchvision prints what it downloads; results alone go to stdout
        from torchvision import datasets

        return getattr(datasets, kind)(str(root), train=split == "train", download=True)
