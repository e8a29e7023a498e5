"""Which pictures a folder or a zip archive holds, in a fixed order, and how to read each."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ganzoo.api import DataError

from ._decode import UnreadableError, suffixes

MEMBER_BYTES = 256 * 1024 * 1024  # of one picture in an archive, unpacked
TOTAL_BYTES = 1024**3  # archives that unpack to more than this ...
RATIO = 100  # ... and to this many times their own size are refused


@dataclass(frozen=True, slots=True)
class Item:
    """One picture file: its name below the source and what tells an old version from a new one."""

    name: str  # relative, with / between the parts
    size: int  # bytes
    stamp: int  # ns of last modification; in an archive, the checksum


@dataclass(slots=True)
class Listing:
    """The pictures of one source, sorted by name."""

    items: list[Item]
    read: Callable[[str], bytes]  # by name; OSError or UnreadableError where that fails
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (name, reason)
    notes: list[str] = field(default_factory=list)


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes()


def list_folder(folder: Path) -> Listing:
    """Return the pictures below a folder; links to folders or out of it are not followed, only regular files are opened."""
    root = os.path.realpath(folder)
    items: list[Item] = []
    links: list[str] = []
    listing = Listing(items, lambda name: Path(root, name).read_bytes())
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                visible = [entry for entry in entries if not _is_hidden(entry.name)]
        except OSError as error:
            listing.skipped.append((below or ".", f"folder cannot be read ({error.strerror})"))
            continue
        for entry in visible:
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            elif entry.is_symlink() and _leads_away(entry, root):
                links.append(name)
            elif _is_picture(name):
                _add_file(listing, entry, name)
    items.sort(key=lambda item: item.name)
    if links:
        listing.notes.append(f"{len(links)} links to folders or out of {str(folder)!r} were not followed: {_first(links)}")
    return listing


def _leads_away(entry: os.DirEntry[str], root: str) -> bool:
    """Say whether a link leads to a folder or out of the root."""
    target = os.path.realpath(entry.path)
    return os.path.isdir(target) or not Path(target).is_relative_to(root)


def _add_file(listing: Listing, entry: os.DirEntry[str], name: str) -> None:
    try:
        status = entry.stat()
    except OSError as error:
        listing.skipped.append((name, f"cannot be read ({error.strerror})"))
        return
    if stat.S_ISREG(status.st_mode):
        listing.items.append(Item(name, status.st_size, status.st_mtime_ns))
    else:
        listing.skipped.append((name, "not a regular file"))


def _first(names: list[str], count: int = 3) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:count])
    return shown if len(names) <= count else f"{shown}, ..."


def open_zip(path: Path) -> zipfile.ZipFile:
    """Return an open archive, or raise a DataError that says what is wrong with it."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"{str(path)!r} is no readable zip archive ({error}); make it anew or give a folder") from error
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be opened ({error.strerror}); check its permissions") from error


def list_zip(path: Path, archive: zipfile.ZipFile) -> Listing:
    """Return the pictures of an archive; they are read in memory, so no name can lead anywhere.

    One folder around everything, which archivers add, is taken off the names.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        parts = [part for part in member.filename.split("/") if part not in ("", ".", "..")]
        if parts and not member.is_dir() and not any(map(_is_hidden, parts)) and _is_picture(parts[-1]):
            members["/".join(parts)] = member
    members = _without_wrapper(members)
    _check_members(path, members)
    items = [Item(name, member.file_size, member.CRC) for name, member in sorted(members.items())]
    return Listing(items, lambda name: _read_member(archive, members[name]))


def _without_wrapper(members: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    heads = {name.partition("/")[0] for name in members}
    if len(heads) != 1 or not all(name.count("/") >= 2 for name in members):
        return members
    return {name.partition("/")[2]: member for name, member in members.items()}


def _check_members(path: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    if any(member.flag_bits & 1 for member in members.values()):
        raise DataError(f"{str(path)!r} is encrypted; unpack it with its password and give the folder")
    total = sum(member.file_size for member in members.values())
    if total > TOTAL_BYTES and total > RATIO * max(path.stat().st_size, 1):
        raise DataError(
            f"{str(path)!r} unpacks to {total / 1024**3:.1f} GiB, over {RATIO} times its size, as zip bombs do; "
            "if you trust it, unpack it and give the folder"
        )


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MEMBER_BYTES:
        raise UnreadableError(f"unpacks to more than {MEMBER_BYTES // 1024**2} MiB")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise UnreadableError(f"damaged in the archive ({error})") from error
