"""Your own pictures: a folder or a zip archive of image files becomes a dataset of squares.

What counts: files below the folder, at any depth, whose suffix is that of a format this Pillow opens (PNG, JPEG, WebP,
GIF, AVIF, BMP, TIFF, PPM, TGA, ICO, JPEG 2000, DDS, PCX, SGI, QOI, PSD, ...). Hidden files and __MACOSX are left out;
only regular files are opened; links to folders, and links that lead out of the folder, are not followed. The order is
that of the relative names. From an archive nothing is unpacked to disk.

What becomes of a picture: EXIF orientation is applied; of an animation or a multi-page TIFF the first frame counts;
transparency (alpha, or of a palette) is composited on `background`; 16-bit grey is scaled by 65535 and floating point,
or integers beyond 16 bits, by its own smallest and largest value, so nothing is clipped; CMYK, YCbCr, palette and grey
are converted. Then `fit` makes it square: "crop" takes the central square, "pad" shows the whole picture on
`background`, "stretch" ignores the proportions. All resizing is antialiased (Lanczos).

What is skipped, and listed in `dataset.skipped`: damaged, cut short or empty files, files that are no pictures, files
that vanish, and pictures of more than `megapixels`. If that is more than half of the files it is an error.

With `labels` the top-level folders are the classes, sorted by name, and pictures beside those folders are left out. In
an archive, one folder around everything is not counted as a level.

Decoded pictures are cached in $XDG_CACHE_HOME/ganzoo/decoded (or ~/.cache/ganzoo/decoded), so that the next start of
the same, unchanged pictures is quick; `cache = false` keeps them in memory only.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganzoo.api import DataError, TensorDataset

from ._decode import Fit, Preparation, colour
from ._decoded import Decoded, key_of, mapped, open_decoded
from ._prepare import cache_folder, check
from ._sources import Listing, list_folder, list_zip, open_zip


class ImageDataset(TensorDataset):
    """Pictures of a folder or archive, with what was left out of it.

    `skipped` lists (relative name, reason), `notes` holds sentences for the user, `class_names` the classes in order of
    their labels.
    """

    def __init__(
        self,
        samples: torch.Tensor,
        labels: torch.Tensor | None,
        *,
        class_names: Sequence[str],
        fingerprint: str,
        skipped: list[tuple[str, str]],
        notes: list[str],
        file: Path | None = None,
    ) -> None:
        super().__init__(samples, labels, classes=len(class_names), fingerprint=fingerprint)
        self.file = file
        self.stored = samples.nbytes if file else 0
        self.class_names = tuple(class_names)
        self.skipped = skipped
        self.notes = notes

    def __getstate__(self) -> dict[str, Any]:
        """Leave out samples that lie in a file: a process that unpickles the dataset maps the file again."""
        return {**self.__dict__, "samples": None} if self.file else self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file:
            self.samples = _tensor(mapped(self.file))


def image_folder(
    *,
    path: str,
    size: int = 32,
    channels: int = 3,
    labels: bool = False,
    fit: Fit = "crop",
    background: str = "white",
    megapixels: int = 64,
    cache: bool = True,
) -> ImageDataset:
    """All pictures below a folder, as squares of `size` pixels; the rules are at the top of this module."""
    check("directory", size, channels)
    how = Preparation(size, channels, fit, colour(background), megapixels)
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"folder {path!r} does not exist; give a folder that holds pictures")
    if not folder.is_dir():
        raise DataError(f"{path!r} is a file, not a folder; give a folder that holds pictures, or a zip archive of them")
    return _open(folder, list_folder(folder), how, labels=labels, cache=cache)


def image_zip(
    *,
    path: str,
    size: int = 32,
    channels: int = 3,
    labels: bool = False,
    fit: Fit = "crop",
    background: str = "white",
    megapixels: int = 64,
    cache: bool = True,
) -> ImageDataset:
    """All pictures of a zip archive, as squares of `size` pixels; the rules are at the top of this module."""
    check("zip", size, channels)
    how = Preparation(size, channels, fit, colour(background), megapixels)
    file = Path(path).expanduser()
    if not file.exists():
        raise DataError(f"archive {path!r} does not exist; give a zip archive that holds pictures")
    if not file.is_file():
        raise DataError(f"{path!r} is no file; give a zip archive that holds pictures, or read the folder as a folder")
    with open_zip(file) as archive:
        return _open(file, list_zip(file, archive), how, labels=labels, cache=cache)


def _open(source: Path, listing: Listing, how: Preparation, *, labels: bool, cache: bool) -> ImageDataset:
    if labels:
        _keep_classes(source, listing)
    if not listing.items and not listing.skipped:
        raise DataError(f"{str(source)!r} holds no pictures; give a folder or archive with .png, .jpg or .webp files")
    entry = cache_folder() / "decoded" / key_of(str(source.resolve()), how, listing.items) if cache else None
    decoded, note = open_decoded(listing, how, entry)
    skipped = sorted(listing.skipped + decoded.skipped)
    _check_enough(source, len(decoded.samples), skipped)
    notes = [*listing.notes, *([note] if note else [])]
    if skipped:
        whole = len(decoded.samples) + len(skipped)
        notes.append(f"{len(skipped)} of {whole} files in {str(source)!r} were skipped: {_reasons(skipped)}")
    names, targets = _classes(listing, decoded) if labels else ((), None)
    return ImageDataset(
        _tensor(decoded.samples),
        None if targets is None else torch.from_numpy(targets),
        class_names=names,
        fingerprint=_fingerprint(decoded, targets),
        skipped=skipped,
        notes=notes,
        file=decoded.file,
    )


def _tensor(samples: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes samples
        return torch.from_numpy(samples)


def _keep_classes(source: Path, listing: Listing) -> None:
    """Leave out the pictures beside the class folders."""
    inside = [item for item in listing.items if "/" in item.name]
    if not inside:
        raise DataError(f"{str(source)!r} has no class folders; put the pictures of each class into a folder of its own")
    if len(inside) < len(listing.items):
        beside = len(listing.items) - len(inside)
        listing.notes.append(f"{beside} pictures beside the class folders of {str(source)!r} were left out")
    listing.items = inside


def _classes(listing: Listing, decoded: Decoded) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted class names and the class of each sample."""
    names = sorted({item.name.partition("/")[0] for item in listing.items})
    number = {name: index for index, name in enumerate(names)}
    missing = {name for name, _ in decoded.skipped}
    kept = (item.name for item in listing.items if item.name not in missing)
    return tuple(names), np.array([number[name.partition("/")[0]] for name in kept], np.int64)


def _check_enough(source: Path, count: int, skipped: list[tuple[str, str]]) -> None:
    if len(skipped) > count:
        raise DataError(
            f"{len(skipped)} of {count + len(skipped)} files in {str(source)!r} cannot be read: {_reasons(skipped)}; "
            "check the files or give another folder or archive"
        )
    if count < 2:
        also = f", besides {_reasons(skipped)}" if skipped else ""
        raise DataError(f"a GAN needs at least 2 pictures; found {count} in {str(source)!r}{also}")


def _reasons(skipped: list[tuple[str, str]], count: int = 3) -> str:
    shown = ", ".join(f"{name!r} ({reason})" for name, reason in skipped[:count])
    return shown if len(skipped) <= count else f"{shown}, ..."


def _fingerprint(decoded: Decoded, targets: np.ndarray | None) -> str:
    """Return the identity of the content: pixels, shape and classes, wherever they were read from."""
    digest = hashlib.sha256(f"{decoded.digest}{decoded.samples.shape}".encode())
    if targets is not None:
        digest.update(targets.tobytes())
    return digest.hexdigest()
