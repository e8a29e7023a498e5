"""What the datasets share: reading idx files and embedded data, size and channels, where downloads and caches live."""

from __future__ import annotations

import gzip
import lzma
import math
import os
import struct
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ganzoo.api import DataError, TensorDataset

RESAMPLE = Image.Resampling.LANCZOS  # antialiased when shrinking, and the same integers on every machine
EDGE = 2  # pixels of background added to each side of a 28x28 picture: 32 halves evenly, 28 does not


def check(name: str, size: int, channels: int) -> None:
    """Raise a DataError unless the options `size` (pixels) and `channels` of dataset `name` make sense."""
    if size < 1:
        raise DataError(f"dataset {name!r} cannot have size = {size}; give the width of its pictures in pixels, such as 32")
    if channels not in (1, 3):
        raise DataError(f"dataset {name!r} cannot have channels = {channels}; give 1 (grey) or 3 (colour)")


def embedded(name: str) -> bytes:
    """Return the content of a file shipped in the folder `embedded`."""
    return resources.files(__package__ or __name__.rpartition(".")[0]).joinpath("embedded", name).read_bytes()


def parse_idx(content: bytes, source: str) -> np.ndarray:
    """Return the uint8 array of an idx file, MNIST's format; `source` is named in errors."""
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{source!r} is not an idx file of bytes; get it again from where it came from")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else (-1,)
    if len(content) - start != math.prod(shape):
        raise DataError(f"{source!r} is cut short or has trailing bytes; get it again from where it came from")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def embedded_idx(name: str) -> np.ndarray:
    """Return the uint8 array of an embedded, xz-compressed idx file."""
    return parse_idx(lzma.decompress(embedded(name)), name)


def find_idx(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the image and label files of a split in a folder, plain or .gz, by MNIST's names; None: one is missing."""
    prefix = "train" if split == "train" else "t10k"
    found = []
    for stem in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        paths = [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
        found += paths[:1]
    return (found[0], found[1]) if len(found) == 2 else None


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an idx file, plain or .gz."""
    try:
        content = path.read_bytes()
        return parse_idx(gzip.decompress(content) if path.suffix == ".gz" else content, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); get it again from where it came from") from error


def local_idx(path: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a split from a folder of idx files that the user named."""
    files = find_idx(Path(path).expanduser(), split)
    if files is None:
        raise DataError(
            f"{path!r} lacks the idx files of the {split!r} split; put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz there"
        )
    return read_idx(files[0]), read_idx(files[1])


def cache_folder() -> Path:
    """Return ganzoo's folder in the platform's cache: $XDG_CACHE_HOME/ganzoo, or ~/.cache/ganzoo."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "ganzoo"


def pad_edges(images: np.ndarray) -> np.ndarray:
    """Return images [N, 28, 28] as [N, 32, 32], with two pixels of black background on each side."""
    return np.pad(images, ((0, 0), (EDGE, EDGE), (EDGE, EDGE)))


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 images [N, H, W] or [N, H, W, 3] as [N, size, size, ...], antialiased (Lanczos)."""
    if images.shape[1:3] == (size, size):
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), RESAMPLE)) for image in images])


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Return uint8 images [N, H, W] or [N, H, W, 3] as [N, channels, H, W]; colour turns grey by ITU-R 601 luma."""
    if images.ndim == 3:
        return np.repeat(images[:, None], channels, axis=1)
    if channels == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    luma = images @ np.array([19595, 38470, 7471], np.uint32) + 0x8000  # Pillow's integers
    return (luma >> 16).astype(np.uint8)[:, None]


def dataset(
    images: np.ndarray, targets: np.ndarray, *, size: int, channels: int, labels: bool, classes: int
) -> TensorDataset:
    """Return uint8 images [N, H, W] or [N, H, W, 3] and their classes [N] as a dataset of that size and channel count."""
    samples = np.array(with_channels(resize(images, size), channels))  # a copy: torch wants to own what it may write
    label = torch.from_numpy(np.asarray(targets).astype(np.int64)) if labels else None
    return TensorDataset(torch.from_numpy(samples), label, classes=classes if labels else 0)


def download(name: str, open_set: Callable[[], Any], folder: Path, files: str) -> Any:
    """Return what torchvision's dataset class gives, downloading it into `folder` on first use.

    Without network or disk: a DataError that says which `files` are missing and where to put them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open_set()
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        reason = str(error).strip().splitlines()[0].rstrip(":") if str(error).strip() else type(error).__name__
        raise DataError(
            f"dataset {name!r} is not on this machine and could not be downloaded ({reason}); put {files} into "
            f"{str(folder)!r}, or use an embedded dataset: fashion-mnist-10k or emoji32"
        ) from error
