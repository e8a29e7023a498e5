"""All pictures of a listing as one array: decoded by a pool of threads, kept on disk so that the next start is quick.

A cache entry is a folder named by a hash of the source's path, the preparation and the listing (names, sizes, times of
modification). It holds samples.npy, memory-mapped when read, and index.json, written last: an entry without it, or
whose array does not fit it, is decoded anew. Entries are written to a temporary name and moved, so that processes
starting together do not disturb each other. Delete the cache folder whenever you like.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ._decode import Preparation, UnreadableError, decode, formats
from ._sources import Item, Listing

VERSION = 1  # of the cache's layout and of the decoding rules: a new number makes old entries unused
BLOCK = 2048  # pictures between two writes


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding a listing gave."""

    samples: np.ndarray  # uint8 [N, C, size, size]
    skipped: list[tuple[str, str]]  # (name, reason)
    digest: str  # SHA-256 of the samples' bytes
    lasting: bool = True  # False: a file could not be read this time, which the next start may better
    file: Path | None = None  # where the samples lie, None where they are held in memory


def key_of(source: str, how: Preparation, items: list[Item]) -> str:
    """Return the name of the cache entry."""
    digest = hashlib.sha256(repr((VERSION, source, dataclasses.astuple(how))).encode("utf-8", "surrogateescape"))
    for item in items:
        digest.update(f"{item.name}\0{item.size}\0{item.stamp}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def open_decoded(listing: Listing, how: Preparation, entry: Path | None) -> tuple[Decoded, str]:
    """Return the decoded pictures and a note, empty where all is well; `entry` is the cache entry or None for none."""
    if entry is None:
        return _in_memory(listing, how), ""
    found = _load(entry, how, len(listing.items))
    if found is not None:
        return found, ""
    try:
        return _in_cache(listing, how, entry), ""
    except OSError as error:  # reading pictures raises none: it is the cache that cannot be written
        note = f"the cache {str(entry)!r} cannot be written ({error.strerror}), so every start decodes all pictures again"
        return _in_memory(listing, how), note


def _load(entry: Path, how: Preparation, count: int) -> Decoded | None:
    try:
        index = json.loads((entry / "index.json").read_text(encoding="utf-8"))
        samples = mapped(entry / "samples.npy")
        skipped = [(str(name), str(reason)) for name, reason in index["skipped"]]
        digest = str(index["digest"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    fits = samples.dtype == np.uint8 and samples.shape == (count - len(skipped), *how.shape)
    return Decoded(samples, skipped, digest, file=entry / "samples.npy") if fits else None


def mapped(file: Path) -> np.ndarray:
    """Return an array file mapped for reading alone: what may be written must fit into memory, copies on write too."""
    return np.load(file, mmap_mode="r")


def _in_memory(listing: Listing, how: Preparation) -> Decoded:
    samples = np.empty((len(listing.items), *how.shape), np.uint8)
    filled = 0

    def keep(block: np.ndarray) -> None:
        nonlocal filled
        samples[filled : filled + len(block)] = block
        filled += len(block)

    skipped, digest, lasting = _decode_all(listing, how, keep)
    return Decoded(samples[:filled], skipped, digest, lasting)


def _in_cache(listing: Listing, how: Preparation, entry: Path) -> Decoded:
    entry.mkdir(parents=True, exist_ok=True)
    with _replacing(entry / "samples.npy") as file:
        start = _write_header(file, (len(listing.items), *how.shape))
        # written, not mapped: a full disk is an OSError here and would be a fatal signal there
        skipped, digest, lasting = _decode_all(listing, how, lambda block: file.write(block.tobytes()))
        if skipped:
            file.seek(0)
            if _write_header(file, (len(listing.items) - len(skipped), *how.shape)) != start:
                raise OSError(0, "the header of the array changed its length")
    if lasting:
        with _replacing(entry / "index.json") as file:
            file.write(json.dumps({"digest": digest, "skipped": skipped}).encode())
    if len(skipped) == len(listing.items):  # an empty array cannot be mapped
        return Decoded(np.empty((0, *how.shape), np.uint8), skipped, digest, lasting)
    return Decoded(mapped(entry / "samples.npy"), skipped, digest, lasting, entry / "samples.npy")


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the header of an array file and return its length, which does not depend on the number of samples."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.tell()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` once it is whole and on disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _decode_all(
    listing: Listing, how: Preparation, keep: Callable[[np.ndarray], object]
) -> tuple[list[tuple[str, str]], str, bool]:
    """Hand the pictures to `keep` in order, block by block; return the skipped ones, the digest, and whether it lasts."""
    skipped: list[tuple[str, str]] = []
    digest, lasting = hashlib.sha256(), True

    def attempt(item: Item) -> np.ndarray | UnreadableError | OSError:
        try:
            return decode(listing.read(item.name), how)
        except (UnreadableError, OSError) as error:
            return error

    formats()  # registers Pillow's formats before the threads start
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata; what matters is an exception or a skipped file
        for start in range(0, len(listing.items), BLOCK):
            items = listing.items[start : start + BLOCK]
            pictures = []
            for item, outcome in zip(items, pool.map(attempt, items), strict=True):
                if isinstance(outcome, np.ndarray):
                    pictures.append(outcome)
                    continue
                lasting = lasting and not isinstance(outcome, OSError)
                reason = f"cannot be read ({outcome.strerror})" if isinstance(outcome, OSError) else str(outcome)
                skipped.append((item.name, reason))
            if pictures:
                block = np.stack(pictures)
                digest.update(block.tobytes())
                keep(block)
    return skipped, digest.hexdigest(), lasting
