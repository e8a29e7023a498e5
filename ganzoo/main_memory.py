"""How much main memory this process may still take: of the machine, and of the container that it runs in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory"]

ROOT = Path("/")
# controller -> where its groups are, and the files of a group with its limit, its use, and the part of it that can be freed
LAYOUTS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),  # version 2 has one tree for all controllers
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory(root: Path = ROOT) -> int:
    """Return the bytes of main memory that are free or can be freed, within the limits of the process's control groups.

    Where the system tells neither, these are all bytes that there are.
    """
    table = root / "proc/meminfo"
    found = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text()) if table.exists() else None
    whole = int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *_rooms(root)])


def _rooms(root: Path) -> Iterator[int]:
    """Yield what each control group that this process is in leaves it; a group's parents limit it, too."""
    table = root / "proc/self/cgroup"
    for line in table.read_text().splitlines() if table.exists() else []:
        _, controllers, path = line.split(":", 2)
        for controller, (tree, limit, used, cache) in LAYOUTS.items():
            if controller in controllers.split(","):
                group = root / tree / path.strip("/")
                # inside a container the path may be the host's, of which only the container's own end is to be seen
                for folder in (group, *group.parents):
                    if folder.is_relative_to(root / tree) and (room := _room(folder, limit, used, cache)) is not None:
                        yield room


def _room(group: Path, limit: str, used: str, cache: str) -> int | None:
    """Return the bytes between a group's use, without what can be freed, and its limit; None where it has no limit."""
    try:
        most, now = (group / limit).read_text().strip(), int((group / used).read_text())
        stat = re.search(rf"^{cache} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except OSError:  # no such group is to be seen from here, or it does not count memory
        return None
    freed = int(stat[1]) if stat else 0
    return max(int(most) - now + freed, 0) if most.isdecimal() else None
